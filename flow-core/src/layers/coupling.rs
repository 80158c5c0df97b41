//! Coupling layers, generic over partition, transformer and conditioner.

use candle_core::Tensor;

use crate::autodiff::{Leaves, add_optional, pair};
use crate::bijector::{Bijector, LayerReport, Pullback, Tape, check_batch, check_context, scale_range, sum_event};
use crate::nn::Conditioner;
use crate::numerics::host;
use crate::transformer::Transformer;
use crate::{Error, Gradients, Result};

/// Which entries a coupling leaves alone and which it transforms.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Partition {
    /// The first `⌈C/2⌉` channels condition the rest; with `swap` the last `⌈C/2⌉` condition the rest.
    Channels {
        /// Condition on the second part instead of the first.
        swap: bool,
    },
    /// An arbitrary 0/1 mask of the event's shape: ones condition, zeros are transformed.
    Mask(Tensor),
}

impl Partition {
    /// The checkerboard of RealNVP: position `(i, j)` conditions when `i + j` is even (odd if `swap`).
    ///
    /// # Errors
    /// [`Error::Config`] unless `shape` is `(C, H, W)`.
    pub fn checkerboard(shape: &[usize], swap: bool) -> Result<Self> {
        let &[c, h, w] = shape else {
            return Err(Error::config("checkerboard mask", format!("needs an event (C, H, W), got {shape:?}")));
        };
        let offset = usize::from(swap);
        let mask: Vec<f32> =
            (0..c * h * w).map(|k| f32::from(u8::from((k / w % h + k % w + offset) % 2 == 0))).collect();
        Ok(Partition::Mask(Tensor::from_vec(mask, shape, &candle_core::Device::Cpu)?))
    }

    /// Even entries of a vector condition the odd ones (odd the even ones if `swap`): NICE.
    pub fn alternating(len: usize, swap: bool) -> Result<Self> {
        let offset = usize::from(swap);
        let mask: Vec<f32> = (0..len).map(|i| f32::from(u8::from((i + offset) % 2 == 0))).collect();
        Ok(Partition::Mask(Tensor::from_vec(mask, len, &candle_core::Device::Cpu)?))
    }

    /// Whether this divides events of `shape` into two sides, neither of them empty; with a context to condition on,
    /// every entry may be transformed.
    fn check(&self, shape: &[usize], context: bool) -> Result<()> {
        const REMEDY: &str = "use an autoregressive layer (`MaskedAutoregressive`), which transforms every entry";
        let Some(&channels) = shape.first() else {
            return Err(Error::config("coupling", "needs an event with at least one dimension"));
        };
        let mask = match self {
            Partition::Channels { .. } if channels < 2 => {
                let reason = format!("the event {shape:?} has {channels} channel(s), two are needed: {REMEDY}");
                return Err(Error::config("coupling", reason));
            }
            Partition::Channels { .. } => return Ok(()),
            Partition::Mask(mask) => mask,
        };
        let entries = check_mask("coupling mask", mask, shape)?;
        let nothing = match (entries.contains(&0.0), entries.contains(&1.0)) {
            (true, true) => return Ok(()),
            (true, false) if context => return Ok(()),
            (false, _) => "transformed",
            (true, false) => "conditioned on",
        };
        Err(Error::config("coupling mask", format!("leaves no entry of {shape:?} to be {nothing}: {REMEDY}")))
    }
}

/// The entries of a mask of events of `shape`.
///
/// # Errors
/// [`Error::Config`] naming the `mask` for another shape, and for entries other than zero and one.
pub(super) fn check_mask(name: &str, mask: &Tensor, shape: &[usize]) -> Result<Vec<f64>> {
    if mask.dims() != shape {
        return Err(Error::config(name, format!("has shape {:?}, the event {shape:?}", mask.dims())));
    }
    let entries = host::numbers(mask)?;
    match entries.iter().find(|&&m| m != 0.0 && m != 1.0) {
        Some(other) => Err(Error::config(name, format!("contains {other}, only zeros and ones are allowed"))),
        None => Ok(entries),
    }
}

/// `z_A = x_A`, `z_B = τ(x_B; θ(x_A, context))`, and `log |det| = Σ ln |∂τ/∂x_B|`.
///
/// Dinh et al. 2015 (NICE), 2017 (RealNVP, section 3.4). The conditioner sees the untouched part
/// `x_A` (for a mask: the whole event with the other entries zeroed).
pub struct Coupling<T, C> {
    shape: Vec<usize>,
    context_shape: Option<Vec<usize>>,
    partition: Partition,
    transformer: T,
    net: C,
}

impl<T: Transformer, C: Conditioner> Coupling<T, C> {
    /// A coupling over events of `shape`.
    ///
    /// The conditioner returns [`Coupling::output_channels`] channels for [`Coupling::input_channels`]. The coupling
    /// takes the context that it declares ([`Conditioner::context_shape`]).
    ///
    /// # Errors
    /// [`Error::Config`] for an event without channels, a mask of another shape or with other entries than zeros and
    /// ones, and for a partition with an empty side: a coupling over one channel would be the identity.
    pub fn new(shape: &[usize], partition: Partition, transformer: T, net: C) -> Result<Self> {
        let context_shape = net.context_shape().map(<[usize]>::to_vec);
        transformer.check()?;
        partition.check(shape, context_shape.is_some())?;
        Ok(Coupling { shape: shape.to_vec(), context_shape, partition, transformer, net })
    }

    /// Declares the shape of the context for a conditioner that takes one and does not say so itself.
    ///
    /// A conditioner is given no context that is declared neither here nor by itself.
    #[must_use]
    pub fn with_context(mut self, shape: &[usize]) -> Self {
        self.context_shape = Some(shape.to_vec());
        self
    }

    /// How many channels the conditioner of such a coupling receives.
    pub fn input_channels(channels: usize, partition: &Partition) -> usize {
        match partition {
            Partition::Channels { .. } => channels.div_ceil(2),
            Partition::Mask(_) => channels,
        }
    }

    /// How many channels the conditioner has to return.
    pub fn output_channels(channels: usize, partition: &Partition, transformer: &T) -> usize {
        let transformed = match partition {
            Partition::Channels { .. } => channels / 2,
            Partition::Mask(_) => channels,
        };
        transformed * transformer.params_per_element()
    }

    /// The conditioner.
    pub fn net(&self) -> &C {
        &self.net
    }

    /// The transformer.
    pub fn transformer(&self) -> &T {
        &self.transformer
    }

    /// What the conditioner is given of a context: nothing unless one is declared.
    fn declared<'a>(&self, context: Option<&'a Tensor>) -> Option<&'a Tensor> {
        self.context_shape.as_ref().and(context)
    }

    /// Checks arguments and separates what conditions from what is transformed.
    fn split(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let batch = check_batch(&self.name(), x, &self.shape)?;
        if let Some(shape) = &self.context_shape {
            check_context(&self.name(), context, batch, shape, x.dtype())?;
        }
        match &self.partition {
            Partition::Channels { swap } => {
                let (channels, keep) = (self.shape[0], self.shape[0].div_ceil(2));
                let (a, b) = if *swap { (channels - keep, 0) } else { (0, keep) };
                let kept = x.narrow(1, a, keep)?.contiguous()?;
                Ok((kept, x.narrow(1, b, channels - keep)?.contiguous()?))
            }
            Partition::Mask(mask) => {
                Ok((x.broadcast_mul(&mask.to_dtype(x.dtype())?.to_device(x.device())?)?, x.clone()))
            }
        }
    }

    /// Puts the two parts together again; the inverse of [`Coupling::split`].
    fn join(&self, kept: &Tensor, moved: &Tensor) -> Result<Tensor> {
        Ok(match &self.partition {
            Partition::Channels { swap: false } => Tensor::cat(&[kept, moved], 1)?,
            Partition::Channels { swap: true } => Tensor::cat(&[moved, kept], 1)?,
            Partition::Mask(_) => (kept + self.transformed_only(moved)?)?,
        })
    }

    /// Zeroes what the mask leaves alone; the identity for a channel split.
    fn transformed_only(&self, t: &Tensor) -> Result<Tensor> {
        Ok(match &self.partition {
            Partition::Channels { .. } => t.clone(),
            Partition::Mask(mask) => {
                let keep = mask.to_dtype(t.dtype())?.to_device(t.device())?.affine(-1.0, 1.0)?;
                t.broadcast_mul(&keep)?
            }
        })
    }

    /// Zeroes what the mask transforms; the identity for a channel split.
    fn kept_only(&self, t: &Tensor) -> Result<Tensor> {
        Ok(match &self.partition {
            Partition::Channels { .. } => t.clone(),
            Partition::Mask(mask) => t.broadcast_mul(&mask.to_dtype(t.dtype())?.to_device(t.device())?)?,
        })
    }

    /// The conditioner's output `(B, P·C, …)` seen as `(B, C, P, …)`.
    fn as_params(&self, h: &Tensor, moved: &Tensor) -> Result<Tensor> {
        let per = self.transformer.params_per_element();
        let mut dims = moved.dims().to_vec();
        dims.insert(2, per);
        if h.elem_count() != dims.iter().product::<usize>() {
            return Err(Error::Shape {
                layer: format!("{} (conditioner output)", self.name()),
                expected: format!("(B, {}, …), {per} parameters for each of {} channels", dims[1] * per, dims[1]),
                actual: h.dims().to_vec(),
            });
        }
        Ok(h.reshape(dims)?)
    }

    /// The range of `∂τ/∂x` over the entries that are transformed; `None` without rows.
    fn scales(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Option<(f64, f64)>> {
        let (kept, moved) = self.split(x, context)?;
        if x.dim(0)? == 0 {
            return Ok(None);
        }
        let params = self.as_params(&self.net.forward(&kept, self.declared(context))?, &moved)?;
        let (_, log) = self.transformer.encode(&moved, &params)?;
        let logs = host::numbers(&log)?;
        Ok(match &self.partition {
            Partition::Channels { .. } => scale_range(logs),
            Partition::Mask(mask) => {
                let kept = host::numbers(mask)?;
                let moved = logs.iter().zip(kept.iter().cycle()).filter(|(_, kept)| **kept == 0.0);
                scale_range(moved.map(|(log, _)| *log))
            }
        })
    }

    fn finish(&self, kept: &Tensor, moved: &Tensor, log: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((self.join(kept, moved)?, sum_event(&self.transformed_only(log)?)?))
    }
}

impl<T: Transformer, C: Conditioner> Bijector for Coupling<T, C> {
    fn name(&self) -> String {
        format!("coupling({})", self.transformer.name())
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn context_shape(&self) -> Option<&[usize]> {
        self.context_shape.as_deref()
    }

    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (kept, moved) = self.split(x, context)?;
        if x.dim(0)? == 0 {
            return Ok((x.clone(), crate::bijector::zero_log_det(x)?));
        }
        let params = self.as_params(&self.net.forward(&kept, self.declared(context))?, &moved)?;
        if let Partition::Channels { .. } = &self.partition {
            let (y, log_det) = self.transformer.encode_summed(&moved, &params)?;
            return Ok((self.join(&kept, &y)?, log_det));
        }
        let (y, log) = self.transformer.encode(&moved, &params)?;
        self.finish(&kept, &y, &log)
    }

    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (kept, moved) = self.split(z, context)?;
        if z.dim(0)? == 0 {
            return Ok((z.clone(), crate::bijector::zero_log_det(z)?));
        }
        let params = self.as_params(&self.net.forward(&kept, self.declared(context))?, &moved)?;
        if let Partition::Channels { .. } = &self.partition {
            let (x, log_det) = self.transformer.decode_summed(&moved, &params)?;
            return Ok((self.join(&kept, &x)?, log_det));
        }
        let (x, log) = self.transformer.decode(&moved, &params)?;
        self.finish(&kept, &x, &log)
    }

    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (kept, _) = self.split(x, context)?;
        if x.dim(0)? > 0 {
            self.net.initialize(&kept, self.declared(context))?;
        }
        self.encode(x, context)
    }

    fn set_training(&self, training: bool) {
        self.net.set_training(training);
    }

    fn describe(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
        Ok(vec![LayerReport { scale: self.scales(x, context)?, ..LayerReport::of(self, x, context)? }])
    }

    fn backprop(
        &self,
        z: &Tensor,
        _tape: &Tape,
        context: Option<&Tensor>,
        grad_z: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        let (kept, moved) = self.split(z, context)?;
        if z.dim(0)? == 0 {
            return Ok(Pullback { x: z.clone(), grad_x: grad_z.clone(), grad_context: None });
        }
        // One evaluation of the conditioner inverts the layer and is then differentiated.
        let evaluation = self.net.evaluate(&kept, self.declared(context))?;
        let params = self.as_params(&evaluation.value, &moved)?;
        let (grad_kept, grad_moved) = match &self.partition {
            Partition::Channels { .. } => self.split(grad_z, context)?,
            Partition::Mask(_) => (self.split(grad_z, context)?.0, self.transformed_only(grad_z)?),
        };
        let mut dims = vec![1; moved.rank()];
        dims[0] = moved.dim(0)?;
        let mut grad_log = grad_log_det.reshape(dims)?;
        if let Partition::Mask(_) = &self.partition {
            grad_log = self.transformed_only(&grad_log.broadcast_as(moved.shape())?)?;
        }
        let inner = self.transformer.backprop(&moved, &params, &grad_moved, &grad_log)?;
        let cotangent = inner.grad_params.reshape(evaluation.value.shape())?;
        let (grad_net, grad_context) = (evaluation.pullback)(&cotangent, gradients)?;
        let grad_kept = (grad_kept + self.kept_only(&grad_net)?)?;
        let grad_context = if self.context_shape.is_some() { grad_context } else { None };
        Ok(Pullback {
            x: self.join(&kept, &inner.x)?,
            grad_x: self.join(&grad_kept, &inner.grad_x)?,
            grad_context: add_optional(None, grad_context)?,
        })
    }

    fn backprop_decode(
        &self,
        x: &Tensor,
        _tape: &Tape,
        context: Option<&Tensor>,
        grad_x: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        let (kept, moved) = self.split(x, context)?;
        if x.dim(0)? == 0 {
            return Ok(Pullback { x: x.clone(), grad_x: grad_x.clone(), grad_context: None });
        }
        // One evaluation of the conditioner serves the way back to the latent and the gradient.
        let evaluation = self.net.evaluate(&kept, self.declared(context))?;
        let params = self.as_params(&evaluation.value, &moved)?.detach();
        let latent = self.transformer.encode(&moved, &params)?.0;
        let leaves = Leaves::new(&latent, Some(&params))?;
        let (value, log) = self.transformer.decode(leaves.x(), leaves.context().unwrap_or(&params))?;
        let (grad_kept, grad_moved) = self.split(grad_x, context)?;
        let log_det = sum_event(&self.transformed_only(&log)?)?;
        let objective = (pair(&self.transformed_only(&value)?, &grad_moved)? + pair(&log_det, grad_log_det)?)?;
        // The transformer has no parameters of its own, so nothing is added to the gradients here.
        let (grad_latent, grad_params) = leaves.pull_back(&objective, gradients)?;
        let cotangent = add_optional(None, grad_params)?.map_or_else(|| params.zeros_like(), Ok)?;
        let (grad_net, grad_context) = (evaluation.pullback)(&cotangent.reshape(evaluation.value.shape())?, gradients)?;
        let grad_kept = (grad_kept + self.kept_only(&grad_net)?)?;
        Ok(Pullback {
            x: self.join(&kept, &latent)?,
            grad_x: self.join(&grad_kept, &grad_latent)?,
            grad_context: grad_context.filter(|_| self.context_shape.is_some()),
        })
    }
}

#[cfg(test)]
#[path = "coupling_tests.rs"]
mod tests;
