//! A learned scale for every entry.

use candle_core::Tensor;

use crate::Result;
use crate::bijector::{Bijector, LayerReport, check_batch_as, scale_range};
use crate::numerics::host;
use crate::param::{Init, Param, ParamPath};

/// `z = x · exp(s)` with one learned `s` for every entry of the event, and `log |det| = Σ s`.
///
/// NICE's last layer (Dinh et al. 2015, section 3.3): additive couplings preserve volume, this layer is
/// what lets the model weigh dimensions.
///
/// # Shapes
/// - any event; the parameter `log_scale` has its shape.
#[derive(Debug, Clone)]
pub struct Scaling {
    shape: Vec<usize>,
    log_scale: Param,
}

impl Scaling {
    /// The parameter `log_scale`, zero, under `path`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when the name is taken.
    pub fn new(path: &ParamPath, shape: &[usize]) -> Result<Self> {
        Ok(Scaling { shape: shape.to_vec(), log_scale: path.param("log_scale", shape, Init::Const(0.0))? })
    }

    /// `x · exp(sign · s)` and its log-determinant.
    fn scale(&self, x: &Tensor, sign: f64) -> Result<(Tensor, Tensor)> {
        let batch = check_batch_as("scaling", x, &self.shape, self.log_scale.dtype())?;
        let log_scale = self.log_scale.tensor().affine(sign, 0.0)?;
        let log_det = log_scale.sum_all()?.reshape(1)?.broadcast_as(batch)?;
        Ok((x.broadcast_mul(&log_scale.exp()?)?, log_det))
    }
}

impl Bijector for Scaling {
    fn name(&self) -> String {
        "scaling".into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.scale(x, 1.0)
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.scale(z, -1.0)
    }

    fn describe(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
        let logs = host::numbers(self.log_scale.var())?;
        Ok(vec![LayerReport { scale: scale_range(logs), ..LayerReport::of(self, x, context)? }])
    }
}
