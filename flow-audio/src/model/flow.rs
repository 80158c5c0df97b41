//! One flow of WaveFlow: an affine map of rows by the rows before them, then a permutation of rows.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use flow_core::autodiff::pair;
use flow_core::bijector::{backprop_locally, check_batch_as, check_context, sum_event};
use flow_core::kernels::{Real, accepts, read, read_on_host};
use flow_core::{Bijector, Direction, Gradients, ParamPath, Pullback, Result, Tape};

use super::WaveFlowConfig;
use super::kernel::{self, History, Shape, Transposed, Weights};
use super::network::Network;

/// A flow with the place of its rows, whatever the width.
#[derive(Debug)]
pub(super) struct Step {
    pub network: Network,
    height: usize,
    mels: usize,
    /// The row of the context that goes with each row of the input.
    pub order: Vec<usize>,
    /// The row of the result that goes to each place.
    permutation: Vec<u32>,
    name: String,
}

/// `z_0 = x_0`, `z_i = x_i e^{log s_i} + t_i` with `(log s_i, t_i)` from `x_{<i}` and the context (Ping et al. 2019,
/// equation 6), then the permutation of rows, for waveforms of `W` columns.
///
/// # Shapes
/// - `x`, `z`: `(B, h, W)`; context `(B, h, W, M)`, its rows in the order of the waveform before the first flow.
///
/// The inverse is `h - 1` networks one after the other, so the backward pass starts from the input, which is kept.
pub(super) struct StepAt {
    step: Arc<Step>,
    event: [usize; 2],
    context: [usize; 3],
}

/// The sizes of a flow's network, but for the width: row `i + 1` of the waveform has its context in row `order[i + 1]`.
fn sizes(config: &WaveFlowConfig, order: &[usize]) -> Shape {
    Shape {
        width: 0,
        input_rows: config.height,
        inputs: 1,
        outputs: 2,
        channels: config.channels,
        context: config.mels,
        context_rows: config.height,
        kernel_rows: 3,
        dilations: (0..config.layers).map(|l| [config.height_dilation(l), config.width_dilation(l)]).collect(),
        causal: config.causal_width,
        order: order[1..].to_vec(),
    }
}

impl Step {
    pub fn new(path: &ParamPath, config: &WaveFlowConfig, index: usize, order: &[usize]) -> Result<Self> {
        Ok(Step {
            network: Network::new(path, sizes(config, order), true)?,
            height: config.height,
            mels: config.mels,
            order: order.to_vec(),
            permutation: config.permuted_rows(index).into_iter().map(|row| row as u32).collect(),
            name: format!("waveflow flow {index}"),
        })
    }

    /// The flow for waveforms of `width` columns.
    pub fn at(self: &Arc<Self>, width: usize) -> StepAt {
        let (height, mels) = (self.height, self.mels);
        StepAt { step: self.clone(), event: [height, width], context: [height, width, mels] }
    }

    /// Rows in the order after the flow; its own inverse.
    pub fn permute(&self, x: &Tensor) -> Result<Tensor> {
        let rows = Tensor::new(self.permutation.as_slice(), x.device())?;
        Ok(x.contiguous()?.index_select(&rows, 1)?)
    }

    /// The latent before the permutation, and `log s` of rows `1..h`, `(B, h - 1, W)`.
    pub fn transform(&self, x: &Tensor, context: &Tensor) -> Result<(Tensor, Tensor)> {
        let params = self.network.forward(x, context)?;
        let log_s = params.narrow(3, 0, 1)?.squeeze(3)?.contiguous()?;
        let shift = params.narrow(3, 1, 1)?.squeeze(3)?.contiguous()?;
        let rows = x.dim(1)? - 1;
        let moved = (x.narrow(1, 1, rows)?.contiguous()?.mul(&log_s.exp()?)? + shift)?;
        Ok((Tensor::cat(&[&x.narrow(1, 0, 1)?, &moved], 1)?, log_s))
    }

    /// The latent after the permutation, and the terms of the log-determinant in the waveform's order, `(B, h, W)`.
    pub fn terms(&self, x: &Tensor, context: &Tensor) -> Result<(Tensor, Tensor)> {
        let (z, log_s) = self.transform(x, context)?;
        let scales = Tensor::cat(&[&x.narrow(1, 0, 1)?.zeros_like()?, &log_s], 1)?;
        Ok((self.permute(&z)?, unordered(&scales, &self.order)?))
    }

    /// The inverse of [`Step::transform`] with the whole network for every row: the specification of the kernel.
    pub fn decode_composed(&self, z: &Tensor, context: &Tensor) -> Result<(Tensor, Tensor)> {
        let rows = z.dim(1)?;
        let mut known = vec![z.narrow(1, 0, 1)?.contiguous()?];
        let mut sum = z.narrow(1, 0, 1)?.zeros_like()?;
        for i in 1..rows {
            let rest = z.narrow(1, i, rows - i)?.contiguous()?;
            let x = Tensor::cat(&[&Tensor::cat(&known, 1)?, &rest], 1)?;
            let params = self.network.composed(&x, context)?.narrow(1, i - 1, 1)?;
            let (log_s, shift) = (params.narrow(3, 0, 1)?.squeeze(3)?, params.narrow(3, 1, 1)?.squeeze(3)?);
            known.push(((z.narrow(1, i, 1)? - shift)? * log_s.neg()?.exp()?)?);
            sum = (sum + log_s)?;
        }
        Ok((Tensor::cat(&known, 1)?, sum_event(&sum)?))
    }
}

/// Rows back in the waveform's order: row `i` goes to `order[i]`.
pub(super) fn unordered(rows: &Tensor, order: &[usize]) -> Result<Tensor> {
    let mut places = vec![0_u32; order.len()];
    for (i, &row) in order.iter().enumerate() {
        places[row] = i as u32;
    }
    let places = Tensor::from_vec(places, order.len(), rows.device())?;
    Ok(rows.contiguous()?.index_select(&places, 1)?)
}

/// The weights of a flow, packed once for many decodings.
pub(super) enum Packed {
    F32(Weights<f32>),
    F64(Weights<f64>),
}

/// Where a stream of a width-causal flow stands.
pub(super) enum Past {
    F32(History<f32>),
    F64(History<f64>),
}

impl Past {
    pub fn new(shape: &Shape, dtype: DType) -> Self {
        if dtype == DType::F64 { Past::F64(History::new(shape)) } else { Past::F32(History::new(shape)) }
    }

    /// Numbers that are kept.
    pub fn len(&self) -> usize {
        match self {
            Past::F32(history) => history.len(),
            Past::F64(history) => history.len(),
        }
    }
}

impl Step {
    /// Packs the weights for the CPU. Call it with tracking paused.
    pub fn prepare(&self) -> Result<Packed> {
        let (packed, shape) = (self.network.packed()?, self.network.shape(1));
        Ok(match packed.dtype() {
            DType::F64 => Packed::F64(read_on_host(&packed, |packed| Ok(Weights::new(&shape, packed)))?),
            _ => Packed::F32(read_on_host(&packed, |packed| Ok(Weights::new(&shape, packed)))?),
        })
    }

    /// The inverse of permutation and transform, and the log-determinant of the inverse, on the CPU wherever `z` lies.
    pub fn decode_with(
        &self,
        packed: &Packed,
        z: &Tensor,
        context: &Tensor,
        past: Option<&mut Past>,
    ) -> Result<(Tensor, Tensor)> {
        let (z, shape) = (self.permute(z)?, self.network.shape(z.dim(2)?));
        match (packed, past) {
            (Packed::F64(weights), Some(Past::F64(past))) => decode_as(&shape, weights, &z, context, Some(past)),
            (Packed::F32(weights), Some(Past::F32(past))) => decode_as(&shape, weights, &z, context, Some(past)),
            (Packed::F64(weights), _) => decode_as(&shape, weights, &z, context, None),
            (Packed::F32(weights), _) => decode_as(&shape, weights, &z, context, None),
        }
    }
}

fn decode_as<T: Real>(
    shape: &Shape,
    weights: &Weights<T>,
    z: &Tensor,
    context: &Tensor,
    past: Option<&mut History<T>>,
) -> Result<(Tensor, Tensor)> {
    let decode = |z: &[T]| read_on_host(context, |context| Ok(kernel::decode(shape, weights, z, context, past)));
    let (x, sums) = read_on_host(z, decode)?;
    let batch = sums.len();
    Ok((Tensor::from_vec(x, z.shape(), z.device())?, Tensor::from_vec(sums, batch, z.device())?.neg()?))
}

/// Gradients of one flow: of the waveform, the context and the packed weights.
fn pull_back<T: Real>(shape: &Shape, operands: [&Tensor; 5]) -> Result<[Vec<T>; 3]> {
    let [x, context, packed, grad_z, grad_log_det] = operands;
    read::<T, _>(x, |x| {
        read(context, |context| {
            read(packed, |packed| {
                read(grad_z, |grad_z| {
                    read(grad_log_det, |grad_log_det| {
                        Ok(pull_back_slices(shape, [x, context, packed, grad_z, grad_log_det]))
                    })
                })
            })
        })
    })
}

fn pull_back_slices<T: Real>(s: &Shape, [x, context, packed, grad_z, grad_log_det]: [&[T]; 5]) -> [Vec<T>; 3] {
    let (weights, transposed) = (Weights::new(s, packed), Transposed::new(s, packed));
    let (mut dx, mut dcontext) = (grad_z.to_vec(), vec![T::ZERO; context.len()]);
    let mut sums = kernel::Gradients::new(s);
    let mut params = vec![T::ZERO; s.params()];
    let operands = x.chunks_exact(s.input_len()).zip(context.chunks_exact(s.context_len())).zip(grad_log_det);
    let results = dx.chunks_exact_mut(s.input_len()).zip(dcontext.chunks_exact_mut(s.context_len()));
    for (((x, context), &grad_log_det), (dx, dcontext)) in operands.zip(results) {
        let activations = kernel::forward(s, &weights, x, context, &mut params, true);
        // From the parameters to their gradients, in place.
        let moved = dx[s.width..].iter_mut().zip(&x[s.width..]).zip(params.chunks_exact_mut(2));
        for ((grad, &x), pair) in moved {
            let scaled = *grad * pair[0].exp_bounded();
            pair.copy_from_slice(&[x * scaled + grad_log_det, *grad]);
            *grad = scaled;
        }
        if let Some(activations) = activations {
            let operands = [x, context, params.as_slice()];
            kernel::backward(s, &weights, &transposed, activations, operands, [dx, dcontext], &mut sums);
        }
    }
    [dx, dcontext, sums.packed(s)]
}

impl StepAt {
    fn check<'a>(&self, x: &Tensor, context: Option<&'a Tensor>) -> Result<&'a Tensor> {
        let (name, dtype) = (&self.step.name, self.step.network.dtype());
        let batch = check_batch_as(name, x, &self.event, dtype)?;
        check_context(name, context, batch, &self.context, dtype)
    }
}

impl Bijector for StepAt {
    fn name(&self) -> String {
        self.step.name.clone()
    }

    fn event_shape(&self) -> &[usize] {
        &self.event
    }

    fn context_shape(&self) -> Option<&[usize]> {
        Some(&self.context)
    }

    fn analytic(&self, direction: Direction) -> bool {
        direction == Direction::Encode
    }

    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (z, log_s) = self.step.transform(x, self.check(x, context)?)?;
        Ok((self.step.permute(&z)?, sum_event(&log_s)?))
    }

    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let context = self.check(z, context)?;
        if accepts(z) && !z.track_op() && !context.track_op() && !self.step.network.tracked() {
            return self.step.decode_with(&self.step.prepare()?, z, context, None);
        }
        let (x, sums) = self.step.decode_composed(&self.step.permute(z)?, context)?;
        Ok((x, sums.neg()?))
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
        let Tape::Input(x) = tape else {
            return backprop_locally(self, z, tape, context, grad_z, grad_log_det, gradients);
        };
        let known = self.check(x, context)?;
        if !accepts(x) {
            return backprop_locally(self, z, tape, context, grad_z, grad_log_det, gradients);
        }
        let network = &self.step.network;
        let shape = network.shape(self.event[1]);
        let (packed, grad_z) = (network.packed()?, self.step.permute(&grad_z.detach())?);
        let grad_log_det = grad_log_det.to_dtype(x.dtype())?;
        let operands = [x, known, &packed, &grad_z, &grad_log_det];
        let [grad_x, grad_context, grad_packed] = match x.dtype() {
            DType::F64 => tensors(pull_back::<f64>(&shape, operands)?, operands)?,
            _ => tensors(pull_back::<f32>(&shape, operands)?, operands)?,
        };
        if packed.track_op() {
            gradients.accumulate(&pair(&packed, &grad_packed)?.backward()?)?;
        }
        Ok(Pullback { x: x.detach(), grad_x, grad_context: Some(grad_context) })
    }
}

/// Gradients in the shapes of the first three operands.
fn tensors<T: Real>(found: [Vec<T>; 3], operands: [&Tensor; 5]) -> Result<[Tensor; 3]> {
    let [a, b, c] = found;
    let tensor = |values: Vec<T>, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device());
    Ok([tensor(a, operands[0])?, tensor(b, operands[1])?, tensor(c, operands[2])?])
}
