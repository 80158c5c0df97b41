//! The classifier of a conditional model.

use candle_core::Tensor;
use flow_core::nn::matmul;
use flow_core::{Error, Init, Param, ParamPath, Result};

/// A classifier on the top latent: logits are a zero-initialised linear map of its mean over space (Kingma &
/// Dhariwal 2018, the authors' `ycond`).
///
/// # Shapes
/// - top latent `(B, C, H, W)`; classes one-hot, `(B, classes)`.
pub struct ClassHead {
    logits: ZeroLinear,
    weight: f64,
}

impl ClassHead {
    /// A head over top latents of `channels` whose cross entropy counts `weight` times in a loss in bits/dim.
    ///
    /// # Errors
    /// [`Error::Config`] for no classes, a weight that is no number, or a name that is taken.
    pub fn new(path: &ParamPath, channels: usize, classes: usize, weight: f64) -> Result<Self> {
        if classes == 0 {
            return Err(Error::config("class head", "a conditional model needs at least one class"));
        }
        if !weight.is_finite() {
            return Err(Error::config("class weight", format!("must be finite, got {weight}")));
        }
        Ok(ClassHead { logits: ZeroLinear::new(path, channels, classes)?, weight })
    }

    /// The weight of the cross entropy, in bits, relative to bits/dim.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// `ln p(class | z)` in nats, `(B,)`, of the top latent before whitening, for one-hot classes.
    ///
    /// # Errors
    /// Shapes that do not fit each other or the head.
    pub fn log_prob(&self, top: &Tensor, one_hot: &Tensor) -> Result<Tensor> {
        let logits = self.logits.forward(&top.flatten_from(2)?.mean(2)?)?;
        // Shifted by a constant (no gradient flows through the maximum, which it does not need).
        let logits = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
        let normalizer = logits.exp()?.sum(1)?.log()?;
        Ok(((logits * one_hot)?.sum(1)? - normalizer)?)
    }
}

/// `(x·W + b) · exp(3 l)`, zero at the start: the Glow authors' `linear_zeros`.
pub(super) struct ZeroLinear {
    weight: Param,
    bias: Param,
    log_scale: Param,
}

impl ZeroLinear {
    pub(super) fn new(path: &ParamPath, inputs: usize, outputs: usize) -> Result<Self> {
        let zero = Init::Const(0.0);
        Ok(ZeroLinear {
            weight: path.param("weight", (inputs, outputs), zero)?,
            bias: path.param("bias", outputs, zero)?,
            log_scale: path.param("log_scale", outputs, zero)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = matmul(x, &self.weight.tensor())?.broadcast_add(&self.bias.tensor())?;
        Ok(y.broadcast_mul(&self.log_scale.tensor().affine(3.0, 0.0)?.exp()?)?)
    }
}
