//! Additive (NICE) and affine (RealNVP, Glow) transformers.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Transformer;
use crate::Result;

/// `y = x + t`; the log-derivative is zero (Dinh et al. 2015).
#[derive(Debug, Clone, Copy, Default)]
pub struct Additive;

impl Transformer for Additive {
    fn name(&self) -> String {
        "additive".into()
    }
    fn params_per_element(&self) -> usize {
        1
    }
    fn encode(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok(((x + params.squeeze(2)?)?, x.zeros_like()?.detach()))
    }
    fn decode(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok(((y - params.squeeze(2)?)?, y.zeros_like()?.detach()))
    }
}

/// How the raw log-scale `h` of an [`Affine`] transformer is bounded, so that no scale can overflow.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleBound {
    /// `s = sigmoid(h + 2)`, in `(0, 1)`: the Glow authors' code.
    Sigmoid,
    /// `s = exp(c · tanh(h / c))`, in `(e^-c, e^c)`: a soft clamp with slope one at the origin.
    SoftClamp(f64),
}

/// `y = (x + t) · s` with a bounded scale `s`, and `ln |∂y/∂x| = ln s`.
///
/// Parameter 0 is the shift `t`, parameter 1 the raw scale (Kingma & Dhariwal 2018, table 1, with the
/// order and the sigmoid of the authors' code).
#[derive(Debug, Clone, Copy)]
pub struct Affine {
    bound: ScaleBound,
}

impl Affine {
    /// An affine transformer with the given bound on its scale.
    pub fn new(bound: ScaleBound) -> Self {
        Affine { bound }
    }

    /// The bound.
    pub fn bound(&self) -> ScaleBound {
        self.bound
    }

    /// The shift and `ln s`.
    fn split(&self, params: &Tensor) -> Result<(Tensor, Tensor)> {
        let shift = params.narrow(2, 0, 1)?.squeeze(2)?;
        let raw = params.narrow(2, 1, 1)?.squeeze(2)?;
        let log_scale = match self.bound {
            ScaleBound::Sigmoid => log_sigmoid(&(raw + 2.0)?)?,
            ScaleBound::SoftClamp(c) => soft_clamp(&raw, c)?,
        };
        Ok((shift, log_scale))
    }
}

/// `ln sigmoid(h) = min(h, 0) - ln(1 + e^-|h|)`, stable for every finite `h`.
pub(crate) fn log_sigmoid(h: &Tensor) -> Result<Tensor> {
    let softplus = (h.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok((h.minimum(0.0)? - softplus)?)
}

/// A smooth bound of `h` to `(-c, c)` with slope one at the origin: `c · tanh(h / c)`.
pub(crate) fn soft_clamp(h: &Tensor, c: f64) -> Result<Tensor> {
    Ok(h.affine(1.0 / c, 0.0)?.tanh()?.affine(c, 0.0)?)
}

impl Transformer for Affine {
    fn name(&self) -> String {
        match self.bound {
            ScaleBound::Sigmoid => "affine".into(),
            ScaleBound::SoftClamp(c) => format!("affine, soft clamp {c}"),
        }
    }
    fn params_per_element(&self) -> usize {
        2
    }
    fn encode(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        let (shift, log_scale) = self.split(params)?;
        Ok((((x + shift)? * log_scale.exp()?)?, log_scale))
    }
    fn decode(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        let (shift, log_scale) = self.split(params)?;
        let inverse = log_scale.neg()?;
        Ok((((y * inverse.exp()?)? - shift)?, inverse))
    }
}
