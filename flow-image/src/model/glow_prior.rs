//! The top prior of Glow.

use candle_core::Tensor;
use flow_core::bijector::{check_batch, check_context};
use flow_core::distribution::gaussian_log_prob;
use flow_core::nn::ZeroConv;
use flow_core::{Distribution, FlowRng, Param, ParamPath, Result};

use super::class_head::ZeroLinear;

/// `N(μ, diag σ²)` over the top latent, with `(μ, ln σ) = h` and `h = h_top + h_class`.
///
/// `h_top` is a zero-initialised 3×3 convolution of an image of zeros, which sees only its bias and the
/// edge indicator; `h_class` is a zero-initialised linear map of the one-hot class, the same at every
/// pixel (Kingma & Dhariwal 2018, the authors' `learntop` and `ycond`).
///
/// # Shapes
/// - event `(C, H, W)`, context `(classes)` one-hot if conditional.
pub struct TopPrior {
    shape: [usize; 3],
    context_shape: Option<[usize; 1]>,
    top: Option<ZeroConv>,
    class: Option<ZeroLinear>,
    like: Param,
}

impl TopPrior {
    /// Over `(C, H, W)`; `learn` the convolution, otherwise zeros; of a conditional model, the number of classes.
    ///
    /// # Errors
    /// A failure of the store.
    pub fn new(path: &ParamPath, shape: [usize; 3], learn: bool, classes: Option<usize>) -> Result<Self> {
        let [c, ..] = shape;
        let store = path.store();
        Ok(TopPrior {
            shape,
            context_shape: classes.map(|n| [n]),
            top: if learn { Some(ZeroConv::new(&path.pp("top"), 0, 2 * c)?) } else { None },
            class: classes.map(|n| ZeroLinear::new(&path.pp("class"), n, 2 * c)).transpose()?,
            like: path.buffer("like", &Tensor::zeros(1, store.dtype(), store.device())?)?,
        })
    }

    /// Mean and `ln σ`, broadcastable to `(batch, C, H, W)`.
    ///
    /// # Errors
    /// [`flow_core::Error::Context`] for a conditional model without classes.
    pub fn parameters(&self, batch: usize, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let [c, height, width] = self.shape;
        let like = self.like.tensor();
        let mut h = match &self.top {
            Some(top) => top.constant(height, width)?,
            None => Tensor::zeros((1, 2 * c, height, width), like.dtype(), like.device())?,
        };
        if let (Some(class), Some(shape)) = (&self.class, &self.context_shape) {
            let context = check_context("glow top prior", context, batch, shape, like.dtype())?;
            h = h.broadcast_add(&class.forward(context)?.reshape((batch, 2 * c, 1, 1))?)?;
        }
        Ok((h.narrow(1, 0, c)?, h.narrow(1, c, c)?))
    }
}

impl Distribution for TopPrior {
    fn name(&self) -> String {
        "glow top prior".into()
    }
    fn event_shape(&self) -> &[usize] {
        &self.shape
    }
    fn context_shape(&self) -> Option<&[usize]> {
        self.context_shape.as_ref().map(|s| &s[..])
    }
    fn log_prob(&self, z: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let (mean, log_std) = self.parameters(check_batch("glow top prior", z, &self.shape)?, context)?;
        gaussian_log_prob(z, &mean, &log_std)
    }
    fn sample(&self, n: usize, context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        let ([c, h, w], like) = (self.shape, self.like.tensor());
        let noise = rng.normal((n, c, h, w), like.dtype(), like.device())?.affine(temperature, 0.0)?;
        self.color(&noise, context)
    }
    fn whiten(&self, z: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let (mean, log_std) = self.parameters(check_batch("glow top prior", z, &self.shape)?, context)?;
        Ok(z.broadcast_sub(&mean)?.broadcast_mul(&log_std.neg()?.exp()?)?)
    }
    fn color(&self, noise: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let (mean, log_std) = self.parameters(check_batch("glow top prior", noise, &self.shape)?, context)?;
        Ok(noise.broadcast_mul(&log_std.exp()?)?.broadcast_add(&mean)?)
    }
}
