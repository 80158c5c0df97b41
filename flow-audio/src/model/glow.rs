//! One flow of WaveGlow: a mixing of a group's samples, then an affine map of one half of them by the other.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use flow_core::autodiff::pair;
use flow_core::bijector::{backprop_locally, check_batch_as, check_context, sum_event};
use flow_core::kernels::{Real, accepts, read};
use flow_core::layers::InvertibleConv;
use flow_core::{Bijector, Gradients, ParamPath, Pullback, Result, Tape};

use super::WaveGlowConfig;
use super::kernel::{self, Shape, Transposed, Weights};
use super::network::Network;

/// A flow, whatever the width.
#[derive(Debug)]
pub(super) struct GlowStep {
    pub network: Network,
    pub mix: InvertibleConv,
    group: usize,
    /// Samples of a group that have left already.
    left: usize,
    context: usize,
    name: String,
}

/// `(y_a, y_b) = W x`, `z_a = y_a`, `z_b = y_b e^{log s} + t` with `(log s, t)` from `y_a` and the context (Prenger et al. 2018,
/// section 2), of the samples that have not left as a part of the latent before; for waveforms of `W` groups.
///
/// # Shapes
/// - `x`, `z`: `(B, G, W)`, what has left first; context `(B, 1, W, G·M)`.
///
/// `log|det| = W ln |det W| + Σ log s`. Both directions are one pass of the network.
pub(super) struct GlowAt {
    step: Arc<GlowStep>,
    mix: InvertibleConv,
    event: [usize; 2],
    context: [usize; 3],
}

impl GlowStep {
    pub fn new(path: &ParamPath, config: &WaveGlowConfig, index: usize) -> Result<Self> {
        let (left, context) = (config.left_before(index), config.group * config.mels);
        let size = config.group - left;
        let sizes = Shape {
            width: 0,
            input_rows: 1,
            inputs: size / 2,
            outputs: size,
            channels: config.channels,
            context,
            context_rows: 1,
            kernel_rows: 1,
            dilations: (0..config.layers).map(|l| [1, 1 << l]).collect(),
            causal: false,
            order: vec![0],
        };
        Ok(GlowStep {
            network: Network::new(path, sizes, false)?,
            mix: InvertibleConv::proper_rotation(&path.pp("mix"), &[size, 1])?,
            group: config.group,
            left,
            context,
            name: format!("waveglow flow {index}"),
        })
    }

    fn half(&self) -> usize {
        (self.group - self.left) / 2
    }

    /// The flow for waveforms of `width` groups.
    pub fn at(self: &Arc<Self>, width: usize) -> Result<GlowAt> {
        Ok(GlowAt {
            mix: self.mix.resized(&[self.group - self.left, width])?,
            step: self.clone(),
            event: [self.group, width],
            context: [1, width, self.context],
        })
    }

    /// `log s` and `t`, each `(B, half, W)`, from the half `(B, half, W)` that stays; by the packed weights, if there are some.
    fn params(&self, kept: &Tensor, context: &Tensor, packed: Option<&Tensor>) -> Result<[Tensor; 2]> {
        let kept = kept.transpose(1, 2)?.contiguous()?;
        let params = match packed.filter(|_| accepts(&kept) && kept.elem_count() > 0) {
            Some(packed) => self.network.forward_packed(&kept, context, packed)?,
            None => self.network.forward(&kept, context)?,
        };
        let params = params.squeeze(1)?.transpose(1, 2)?;
        let part = |i: usize| -> Result<Tensor> { Ok(params.narrow(1, i * self.half(), self.half())?.contiguous()?) };
        Ok([part(0)?, part(1)?])
    }
}

impl GlowAt {
    /// What has left, and the rest.
    fn split(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        let left = self.step.left;
        Ok([x.narrow(1, 0, left)?, x.narrow(1, left, self.event[0] - left)?.contiguous()?])
    }

    /// The two halves of a mixed rest.
    fn halves(&self, mixed: &Tensor) -> Result<[Tensor; 2]> {
        let half = self.step.half();
        Ok([mixed.narrow(1, 0, half)?.contiguous()?, mixed.narrow(1, half, half)?.contiguous()?])
    }

    /// The latent; `log s` of the second half, `(B, half, W)`; and the log-determinant of the mixing, `(B,)`.
    pub fn transform(&self, x: &Tensor, context: &Tensor) -> Result<[Tensor; 3]> {
        let [left, rest] = self.split(x)?;
        let (mixed, volume) = self.mix.encode(&rest, None)?;
        let [kept, moved] = self.halves(&mixed)?;
        let [log_s, shift] = self.step.params(&kept, context, None)?;
        let moved = ((moved * log_s.exp()?)? + shift)?;
        Ok([Tensor::cat(&[left, kept, moved], 1)?, log_s, volume])
    }

    /// The latent, and the terms of its log-determinant, `(B, G, W)`: those of the mixing lie evenly on what it mixes.
    pub fn terms(&self, x: &Tensor, context: &Tensor) -> Result<(Tensor, Tensor)> {
        let [z, log_s, volume] = self.transform(x, context)?;
        let ([group, width], left) = (self.event, self.step.left);
        let batch = x.dim(0)?;
        let each = volume.affine(1.0 / ((group - left) * width).max(1) as f64, 0.0)?;
        let spread = each.reshape((batch, 1, 1))?.broadcast_as((batch, group - left, width))?;
        let scales = log_s.pad_with_zeros(1, group - left - self.step.half(), 0)?;
        Ok((z, (spread + scales)?.pad_with_zeros(1, left, 0)?))
    }

    /// The inverse and its log-determinant.
    pub fn invert(&self, z: &Tensor, context: &Tensor, packed: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let [left, rest] = self.split(z)?;
        let [kept, moved] = self.halves(&rest)?;
        let [log_s, shift] = self.step.params(&kept, context, packed)?;
        let moved = ((moved - shift)? * log_s.neg()?.exp()?)?;
        let (rest, volume) = self.mix.decode(&Tensor::cat(&[kept, moved], 1)?, None)?;
        Ok((Tensor::cat(&[left, rest], 1)?, (volume - sum_event(&log_s)?)?))
    }

    fn check<'a>(&self, x: &Tensor, context: Option<&'a Tensor>) -> Result<&'a Tensor> {
        let (name, dtype) = (&self.step.name, self.step.network.dtype());
        let batch = check_batch_as(name, x, &self.event, dtype)?;
        check_context(name, context, batch, &self.context, dtype)
    }

    /// Through the affine map alone, with one pass of the network for its inversion and for the gradients.
    fn pull_back<T: Real>(&self, operands: [&Tensor; 5]) -> Result<Pulled> {
        let (shape, device) = (self.step.network.shape(self.event[1]), operands[0].device());
        let (batch, whole) = (operands[0].dim(0)?, 2 * self.step.half());
        let [z, context, packed, grad_z, grad_log_det] = operands;
        let [moved, grad, grad_context, grad_packed] = read::<T, _>(z, |z| {
            read(context, |context| {
                read(packed, |packed| {
                    read(grad_z, |grad_z| {
                        read(grad_log_det, |grad_log_det| {
                            Ok(pull_back_slices(&shape, [z, context, packed, grad_z, grad_log_det]))
                        })
                    })
                })
            })
        })?;
        let places = |values: Vec<T>| -> Result<Tensor> {
            let last = Tensor::from_vec(values, (batch, self.event[1], whole), device)?;
            Ok(last.transpose(1, 2)?.contiguous()?)
        };
        Ok(Pulled {
            mixed: places(moved)?,
            grad_mixed: places(grad)?,
            grad_context: Tensor::from_vec(grad_context, context.shape(), device)?,
            grad_packed: Tensor::from_vec(grad_packed, packed.shape(), device)?,
        })
    }
}

/// What [`GlowAt::pull_back`] finds.
struct Pulled {
    mixed: Tensor,
    grad_mixed: Tensor,
    grad_context: Tensor,
    grad_packed: Tensor,
}

/// From the latent `(B, W, 2 half)` and its gradient: the mixed waveform and its gradient of the same shape, and the gradients
/// of context and weights.
fn pull_back_slices<T: Real>(s: &Shape, [z, context, packed, grad_z, grad_log_det]: [&[T]; 5]) -> [Vec<T>; 4] {
    let (weights, transposed) = (Weights::new(s, packed), Transposed::new(s, packed));
    let (half, whole) = (s.inputs, 2 * s.inputs);
    let (mut mixed, mut grad) = (z.to_vec(), grad_z.to_vec());
    let mut dcontext = vec![T::ZERO; context.len()];
    let mut sums = kernel::Gradients::new(s);
    let (mut kept, mut dkept) = (vec![T::ZERO; s.input_len()], vec![T::ZERO; s.input_len()]);
    let mut params = vec![T::ZERO; s.params()];
    let samples = mixed.chunks_exact_mut(s.width * whole).zip(grad.chunks_exact_mut(s.width * whole));
    let contexts = context.chunks_exact(s.context_len()).zip(dcontext.chunks_exact_mut(s.context_len()));
    for (((mixed, grad), (context, dcontext)), &grad_log_det) in samples.zip(contexts).zip(grad_log_det) {
        kept.chunks_exact_mut(half)
            .zip(mixed.chunks_exact(whole))
            .for_each(|(to, from)| to.copy_from_slice(&from[..half]));
        let activations = kernel::forward(s, &weights, &kept, context, &mut params, true);
        // From parameters to their gradients, and from the latent to what was moved, in place.
        let places = mixed.chunks_exact_mut(whole).zip(grad.chunks_exact_mut(whole));
        for ((x, g), params) in places.zip(params.chunks_exact_mut(whole)) {
            let (log_s, shift) = params.split_at_mut(half);
            let moved = x[half..].iter_mut().zip(&mut g[half..]);
            for ((x, g), (log_s, shift)) in moved.zip(log_s.iter_mut().zip(shift)) {
                *x = (*x - *shift) * (T::ZERO - *log_s).exp_bounded();
                let scaled = *g * log_s.exp_bounded();
                (*log_s, *shift) = (*x * scaled + grad_log_det, *g);
                *g = scaled;
            }
        }
        if let Some(activations) = activations {
            dkept.fill(T::ZERO);
            let operands = [kept.as_slice(), context, params.as_slice()];
            kernel::backward(s, &weights, &transposed, activations, operands, [&mut dkept, dcontext], &mut sums);
            for (g, dkept) in grad.chunks_exact_mut(whole).zip(dkept.chunks_exact(half)) {
                g.iter_mut().zip(dkept).for_each(|(g, &more)| *g += more);
            }
        }
    }
    [mixed, grad, dcontext, sums.packed(s)]
}

impl Bijector for GlowAt {
    fn name(&self) -> String {
        self.step.name.clone()
    }

    fn event_shape(&self) -> &[usize] {
        &self.event
    }

    fn context_shape(&self) -> Option<&[usize]> {
        Some(&self.context)
    }

    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let [z, log_s, volume] = self.transform(x, self.check(x, context)?)?;
        Ok((z, (volume + sum_event(&log_s)?)?))
    }

    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.invert(z, self.check(z, context)?, None)
    }

    fn backprop(
        &self,
        z: &Tensor,
        tape: &Tape,
        context: Option<&Tensor>,
        grad_z: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        let known = self.check(z, context)?;
        if !matches!(tape, Tape::Inverse) || !accepts(z) || z.elem_count() == 0 {
            return backprop_locally(self, z, tape, context, grad_z, grad_log_det, gradients);
        }
        let ([left, rest], [grad_left, grad_rest]) = (self.split(z)?, self.split(&grad_z.detach())?);
        let last = |t: &Tensor| t.transpose(1, 2)?.contiguous();
        let packed = self.step.network.packed()?;
        let (rest, grad_rest, of_log_det) = (last(&rest)?, last(&grad_rest)?, grad_log_det.to_dtype(z.dtype())?);
        let operands = [&rest, known, &packed, &grad_rest, &of_log_det];
        let found = match z.dtype() {
            DType::F64 => self.pull_back::<f64>(operands)?,
            _ => self.pull_back::<f32>(operands)?,
        };
        if packed.track_op() {
            gradients.accumulate(&pair(&packed, &found.grad_packed)?.backward()?)?;
        }
        let mixing =
            self.mix.backprop(&found.mixed, &Tape::Inverse, None, &found.grad_mixed, grad_log_det, gradients)?;
        Ok(Pullback {
            x: Tensor::cat(&[&left, &mixing.x], 1)?.detach(),
            grad_x: Tensor::cat(&[&grad_left, &mixing.grad_x], 1)?,
            grad_context: Some(found.grad_context),
        })
    }
}
