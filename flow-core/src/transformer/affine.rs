//! Additive (NICE) and affine (RealNVP, Glow) transformers.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::{Transformer, TransformerPullback, backprop_by_graph, check_params};
use crate::bijector::{sum_event, zero_log_det};
use crate::kernels::affine::{self as kernel, Sizes, Way};
use crate::kernels::{Real, accepts, read};
use crate::numerics::softmax::log_sigmoid;
use crate::{Error, Result};

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
        check_params(self, x, params)?;
        Ok(((x + params.squeeze(2)?)?, x.zeros_like()?.detach()))
    }
    fn decode(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        check_params(self, y, params)?;
        Ok(((y - params.squeeze(2)?)?, y.zeros_like()?.detach()))
    }
    fn encode_summed(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        check_params(self, x, params)?;
        Ok(((x + params.squeeze(2)?)?, zero_log_det(x)?))
    }
    fn decode_summed(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        check_params(self, y, params)?;
        Ok(((y - params.squeeze(2)?)?, zero_log_det(y)?))
    }
    fn backprop(
        &self,
        y: &Tensor,
        params: &Tensor,
        grad_y: &Tensor,
        _grad_log: &Tensor,
    ) -> Result<TransformerPullback> {
        let x = (y - params.squeeze(2)?)?;
        Ok(TransformerPullback { x, grad_x: grad_y.clone(), grad_params: grad_y.unsqueeze(2)? })
    }
}

/// How the raw log-scale `h` of an [`Affine`] transformer is bounded, so that no scale can overflow.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ScaleBound {
    /// `s = sigmoid(h + 2)`, in `(0, 1)`: the Glow authors' code.
    Sigmoid,
    /// `s = exp(c · tanh(h / c))`, in `(e^-c, e^c)`: a soft clamp with slope one at the origin; `c` is positive.
    SoftClamp(f64),
    /// `s = exp(h)`: the conditioner bounds what it returns (RealNVP's `g · tanh`, whose learned `g` is
    /// one of its parameters).
    ByConditioner,
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
        self.check()?;
        let shift = params.narrow(2, 0, 1)?.squeeze(2)?;
        let raw = params.narrow(2, 1, 1)?.squeeze(2)?;
        let log_scale = match self.bound {
            ScaleBound::Sigmoid => log_sigmoid(&(raw + 2.0)?)?,
            ScaleBound::SoftClamp(c) => soft_clamp(&raw, c)?,
            ScaleBound::ByConditioner => raw,
        };
        Ok((shift, log_scale))
    }
}

/// A smooth bound of `h` to `(-c, c)` with slope one at the origin: `c · tanh(h / c)`.
pub(super) fn soft_clamp(h: &Tensor, c: f64) -> Result<Tensor> {
    Ok(h.affine(1.0 / c, 0.0)?.tanh()?.affine(c, 0.0)?)
}

impl Transformer for Affine {
    fn name(&self) -> String {
        match self.bound {
            ScaleBound::Sigmoid | ScaleBound::ByConditioner => "affine".into(),
            ScaleBound::SoftClamp(c) => format!("affine, soft clamp {c}"),
        }
    }
    fn params_per_element(&self) -> usize {
        2
    }
    fn check(&self) -> Result<()> {
        match self.bound {
            ScaleBound::SoftClamp(c) if !(c.is_finite() && c > 0.0) => {
                let reason = format!("is {c}; a soft clamp needs a positive number, `SoftClamp(2.0)` say");
                Err(Error::config("affine scale bound", reason))
            }
            _ => Ok(()),
        }
    }
    fn encode(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        check_params(self, x, params)?;
        let (shift, log_scale) = self.split(params)?;
        Ok((((x + shift)? * log_scale.exp()?)?, log_scale))
    }
    fn decode(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        check_params(self, y, params)?;
        let (shift, log_scale) = self.split(params)?;
        let inverse = log_scale.neg()?;
        Ok((((y * inverse.exp()?)? - shift)?, inverse))
    }

    fn encode_summed(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        self.summed(Way::Encode, x, params)
    }

    fn decode_summed(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        self.summed(Way::Decode, y, params)
    }

    fn backprop(&self, y: &Tensor, params: &Tensor, grad_y: &Tensor, grad_log: &Tensor) -> Result<TransformerPullback> {
        let per_sample = grad_log.elem_count() == y.dim(0)?;
        if self.bound != ScaleBound::Sigmoid || !per_sample || !accepts(y) {
            return backprop_by_graph(self, y, params, grad_y, grad_log);
        }
        match y.dtype() {
            DType::F32 => fused_backprop::<f32>(y, params, grad_y, grad_log),
            _ => fused_backprop::<f64>(y, params, grad_y, grad_log),
        }
    }
}

impl Affine {
    /// The fused pass where it applies: the sigmoid bound, on the CPU, outside any graph.
    fn summed(&self, way: Way, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        check_params(self, x, params)?;
        let tracked = x.track_op() || params.track_op();
        if self.bound == ScaleBound::Sigmoid && !tracked && accepts(x) {
            return match x.dtype() {
                DType::F32 => fused_transform::<f32>(way, x, params),
                _ => fused_transform::<f64>(way, x, params),
            };
        }
        let (y, log) = if way == Way::Encode { self.encode(x, params)? } else { self.decode(x, params)? };
        Ok((y, sum_event(&log)?))
    }
}

/// Batch, channels and everything behind them; checks that the parameters fit.
fn sizes(x: &Tensor, params: &Tensor) -> Result<Sizes> {
    let (batch, channels) = (x.dim(0)?, x.dim(1)?);
    let pixels = x.elem_count() / (batch * channels).max(1);
    if params.elem_count() != 2 * x.elem_count() {
        let expected = format!("two parameters for each element of {:?}", x.dims());
        return Err(Error::Shape { layer: "affine".into(), expected, actual: params.dims().to_vec() });
    }
    Ok(Sizes { batch, channels, pixels })
}

fn fused_transform<T: Real>(way: Way, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
    let s = sizes(x, params)?;
    let (y, log) = read::<T, _>(x, |x| read::<T, _>(params, |p| Ok(kernel::transform(s, way, x, p))))?;
    Ok((Tensor::from_vec(y, x.shape(), x.device())?, Tensor::from_vec(log, s.batch, x.device())?))
}

fn fused_backprop<T: Real>(
    y: &Tensor,
    params: &Tensor,
    grad_y: &Tensor,
    grad_log: &Tensor,
) -> Result<TransformerPullback> {
    let s = sizes(y, params)?;
    let out = read::<T, _>(y, |y| {
        read::<T, _>(params, |p| {
            read::<T, _>(grad_y, |g| read::<T, _>(grad_log, |l| Ok(kernel::backward(s, y, p, g, l))))
        })
    })?;
    Ok(TransformerPullback {
        x: Tensor::from_vec(out.x, y.shape(), y.device())?,
        grad_x: Tensor::from_vec(out.grad_x, y.shape(), y.device())?,
        grad_params: Tensor::from_vec(out.grad_params, params.shape(), y.device())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlowRng;
    use crate::testing::numbers::distance;
    use candle_core::Device;

    #[test]
    fn fused_equals_composed() {
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
            let mut rng = FlowRng::seed_from(1);
            let mut draw = |shape: &[usize]| rng.normal(shape, dtype, &Device::Cpu).unwrap();
            let (x, params) = (draw(&[3, 5, 2, 7]), draw(&[3, 5, 2, 2, 7]));
            let (grad, log) = (draw(&[3, 5, 2, 7]), draw(&[3, 1, 1, 1]));
            let affine = Affine::new(ScaleBound::Sigmoid);
            let (y, elementwise) = affine.encode(&x, &params).unwrap();
            let (fused, summed) = affine.encode_summed(&x, &params).unwrap();
            assert!(
                distance(&y, &fused) < tolerance
                    && distance(&sum_event(&elementwise).unwrap(), &summed) < 10.0 * tolerance
            );
            let (back, negative) = affine.decode_summed(&y, &params).unwrap();
            assert!(distance(&back, &x) < tolerance && distance(&negative.neg().unwrap(), &summed) < 10.0 * tolerance);
            let got = affine.backprop(&y, &params, &grad, &log).unwrap();
            let want = backprop_by_graph(&affine, &y, &params, &grad, &log).unwrap();
            assert!(distance(&got.x, &want.x) < tolerance);
            assert!(distance(&got.grad_x, &want.grad_x) < tolerance);
            assert!(distance(&got.grad_params, &want.grad_params) < 5.0 * tolerance);
        }
    }

    /// `shift = h[0::2]`, `scale = sigmoid(h[1::2] + 2)`, `z₂ = (x₂ + shift)·scale`: the affine coupling of tensor2tensor's
    /// Glow and VideoFlow, by hand for two transformed channels of one pixel.
    #[test]
    fn a_sigmoid_coupling_is_that_of_tensor2tensor() {
        use crate::layers::{Coupling, Partition};
        use crate::nn::Conditioner;

        /// Returns the same whatever it is given.
        struct Constant(Tensor);
        impl Conditioner for Constant {
            fn forward(&self, _: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
                Ok(self.0.clone())
            }
        }

        let tensor = |v: &[f64]| Tensor::new(v, &Device::Cpu).unwrap().reshape((1, 4, 1, 1)).unwrap();
        let h = [0.7, -1.3, -0.2, 0.4];
        let affine = Affine::new(ScaleBound::Sigmoid);
        let partition = Partition::Channels { swap: false };
        let layer = Coupling::new(&[4, 1, 1], partition, affine, Constant(tensor(&h))).unwrap();
        let x = tensor(&[1.5, -0.5, 0.25, -2.0]);
        let (z, log_det) = crate::Bijector::encode(&layer, &x, None).unwrap();
        // sigmoid(0.7) and sigmoid(2.4), to sixteen digits.
        let scale = [0.668_187_772_168_166, 0.916_827_303_506_077_7];
        let want = tensor(&[1.5, -0.5, (0.25 + 0.7) * scale[0], (-2.0 - 0.2) * scale[1]]);
        assert!(distance(&z, &want) < 1e-14);
        let log_det = log_det.to_vec1::<f64>().unwrap()[0];
        assert!((log_det - (scale[0].ln() + scale[1].ln())).abs() < 1e-14);
    }

    #[test]
    fn a_soft_clamp_of_nothing_is_refused() {
        let x = Tensor::ones((1, 1, 1), DType::F64, &Device::Cpu).unwrap();
        let params = Tensor::ones((1, 1, 2, 1), DType::F64, &Device::Cpu).unwrap();
        for c in [-1.0, 0.0, -0.0, f64::NAN, f64::INFINITY] {
            let affine = Affine::new(ScaleBound::SoftClamp(c));
            for outcome in [affine.encode(&x, &params), affine.decode_summed(&x, &params)] {
                assert!(matches!(outcome, Err(Error::Config { .. })), "{c}");
            }
        }
    }

    #[test]
    fn extreme_scales_stay_finite() {
        let affine = Affine::new(ScaleBound::Sigmoid);
        let x = Tensor::full(1.0_f32, (1, 1, 4), &Device::Cpu).unwrap();
        let raw = Tensor::new(&[-1e30_f32, -50.0, 50.0, 1e30], &Device::Cpu).unwrap().reshape((1, 1, 1, 4)).unwrap();
        let params = Tensor::cat(&[&raw.zeros_like().unwrap(), &raw], 2).unwrap();
        for (value, log) in [affine.encode_summed(&x, &params).unwrap(), affine.decode_summed(&x, &params).unwrap()] {
            assert!(value.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|v| v.is_finite()));
            assert!(log.to_vec1::<f32>().unwrap()[0].is_finite());
        }
    }
}
