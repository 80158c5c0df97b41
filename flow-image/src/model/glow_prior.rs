//! The top prior of Glow and the classifier that goes with it.

use candle_core::Tensor;
use flow_core::bijector::{check_batch, check_context};
use flow_core::distribution::gaussian_log_prob;
use flow_core::nn::ZeroConv;
use flow_core::{Distribution, FlowRng, Init, Param, ParamPath, Result};

/// `N(μ, diag σ²)` over the top latent, with `(μ, ln σ) = h` and `h = h_top + h_class`.
///
/// `h_top` is a zero-initialised 3×3 convolution of an image of zeros, which sees only its bias and the
/// edge indicator; `h_class` is a zero-initialised linear map of the one-hot class, the same at every
/// pixel (Kingma & Dhariwal 2018, the authors' `learntop` and `ycond`).
///
/// # Shapes
/// - event `(C, H, W)`, context `(classes)` one-hot if conditional.
pub(super) struct TopPrior {
    shape: [usize; 3],
    context_shape: Option<[usize; 1]>,
    top: Option<ZeroConv>,
    class: Option<ZeroLinear>,
    like: Param,
}

impl TopPrior {
    pub(super) fn new(path: &ParamPath, shape: [usize; 3], learn: bool, classes: Option<usize>) -> Result<Self> {
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
    fn parameters(&self, batch: usize, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
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

/// `(x·W + b) · exp(3 l)`, zero at the start: the authors' `linear_zeros`.
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
        let y = x.contiguous()?.matmul(&self.weight.tensor())?.broadcast_add(&self.bias.tensor())?;
        Ok(y.broadcast_mul(&self.log_scale.tensor().affine(3.0, 0.0)?.exp()?)?)
    }
}

/// The classifier on the top latent: logits are a [`ZeroLinear`] of its mean over space.
pub(super) struct ClassHead(ZeroLinear);

impl ClassHead {
    pub(super) fn new(path: &ParamPath, channels: usize, classes: usize) -> Result<Self> {
        Ok(ClassHead(ZeroLinear::new(path, channels, classes)?))
    }

    /// `ln p(class | z)` in nats, `(B,)`, for one-hot classes.
    pub(super) fn log_prob(&self, top: &Tensor, one_hot: &Tensor) -> Result<Tensor> {
        let logits = self.0.forward(&top.flatten_from(2)?.mean(2)?)?;
        // Shifted by a constant (no gradient flows through the maximum, which it does not need).
        let logits = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
        let normalizer = logits.exp()?.sum(1)?.log()?;
        Ok(((logits * one_hot)?.sum(1)? - normalizer)?)
    }
}
