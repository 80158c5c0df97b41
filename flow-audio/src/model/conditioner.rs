//! The conditioner: mel frames to one column of numbers for every sample.

use candle_core::Tensor;
use flow_core::{ParamPath, Result};

use super::WaveFlowConfig;
use super::normed::{Normed, misshapen};

/// The slope of the leaky rectifier below zero.
const SLOPE: f64 = 0.4;

/// Transposed convolutions over time, one for each stride `s`, with kernels of 3 bands and `2 s` samples, each followed by a
/// leaky rectifier of slope 0.4 (Ping et al. 2019, section 3.2).
///
/// As the kernel is two strides long, an output sample sees two frames and three bands: with `q` the block of `s` samples
/// that begins at `q s - s/2` and `r` the place in it,
/// `y[m, q, r] = b + Σ_u w[u, r]·x[m + 1 - u, q] + w[u, s + r]·x[m + 1 - u, q - 1]`,
/// a product of a `(s, 6)` matrix with the gathered inputs. Frames and bands outside are zero.
#[derive(Debug)]
pub(crate) struct Conditioner {
    stages: Vec<Stage>,
    mels: usize,
}

/// One transposed convolution.
#[derive(Debug)]
struct Stage {
    kernel: Normed,
    stride: usize,
}

impl Stage {
    /// `(B, n + 1, M)` to `(B, n s, M)`: the blocks that lie between neighbouring frames.
    fn blocks(&self, frames: &Tensor) -> Result<Tensor> {
        let (batch, count, mels) = frames.dims3()?;
        let blocks = count - 1;
        let padded = frames.pad_with_zeros(2, 1, 1)?;
        let (now, before) = (padded.narrow(1, 1, blocks)?, padded.narrow(1, 0, blocks)?);
        let mut seen = Vec::with_capacity(6);
        for side in [&now, &before] {
            for u in 0..3 {
                seen.push(side.narrow(2, 2 - u, mels)?);
            }
        }
        // (1, 1, 3, 2 s) to (s, 6): the taps of this frame, then those of the frame before.
        let taps = self.kernel.weight()?.reshape((3, 2, self.stride))?.permute((2, 1, 0))?.reshape((self.stride, 6))?;
        // Columns are bands of all blocks, so that one product makes everything.
        let columns = Tensor::stack(&seen, 0)?.reshape((6, batch * blocks * mels))?;
        let made = taps.contiguous()?.matmul(&columns)?.reshape((self.stride, batch, blocks, mels))?;
        let made = made.permute((1, 2, 0, 3))?.reshape((batch, blocks * self.stride, mels))?;
        let made = made.broadcast_add(&self.kernel.bias())?;
        Ok((made.relu()?.affine(1.0 - SLOPE, 0.0)? + made.affine(SLOPE, 0.0)?)?)
    }

    /// `(B, F, M)` to `(B, F s, M)`.
    fn forward(&self, frames: &Tensor) -> Result<Tensor> {
        let count = frames.dim(1)?;
        let all = self.blocks(&frames.pad_with_zeros(1, 1, 1)?)?;
        Ok(all.narrow(1, self.stride / 2, count * self.stride)?)
    }
}

impl Conditioner {
    pub fn new(path: &ParamPath, config: &WaveFlowConfig) -> Result<Self> {
        let stage = |(i, &stride): (usize, &usize)| -> Result<Stage> {
            Ok(Stage { kernel: Normed::new(&path.pp(format!("upsample{i}")), [1, 1, 3, 2 * stride], 1)?, stride })
        };
        let stages = config.upsample.iter().enumerate().map(stage).collect::<Result<_>>()?;
        Ok(Conditioner { stages, mels: config.mels })
    }

    /// The kernels in order.
    pub fn kernels(&self) -> impl Iterator<Item = &Normed> {
        self.stages.iter().map(|stage| &stage.kernel)
    }

    /// `(B, M, F)` to `(B, hop·F, M)`.
    pub fn forward(&self, mel: &Tensor) -> Result<Tensor> {
        let frames = self.frames(mel)?;
        self.stages.iter().try_fold(frames, |x, stage| stage.forward(&x))
    }

    /// `(B, M, F)` to `(B, F, M)`.
    fn frames(&self, mel: &Tensor) -> Result<Tensor> {
        let fits = mel.rank() == 3 && mel.dim(1)? == self.mels && mel.dim(2)? > 0;
        if !fits {
            return Err(misshapen("waveflow (mel)", format!("(B, {}, F) with F > 0", self.mels), mel));
        }
        if let Some(stage) = self.stages.first() {
            flow_core::bijector::check_dtype("waveflow (mel)", mel, stage.kernel.dtype())?;
        }
        Ok(mel.transpose(1, 2)?.contiguous()?)
    }

    /// Samples that can be had only once a later frame is known.
    pub fn look_ahead(&self) -> usize {
        self.stages.iter().fold(0, |samples, stage| samples * stage.stride + stage.stride / 2)
    }
}

/// The conditioner over frames that come little by little.
#[derive(Debug)]
pub(crate) struct Upsampling {
    /// The last input of each stage, and how many samples of its next block are to be left out.
    stages: Vec<(Option<Tensor>, usize)>,
}

impl Upsampling {
    pub fn new(conditioner: &Conditioner) -> Self {
        Upsampling { stages: conditioner.stages.iter().map(|stage| (None, stage.stride / 2)).collect() }
    }

    /// What some frames `(B, M, F)` make known: `(B, n, M)`, `None` where it is nothing.
    pub fn push(&mut self, conditioner: &Conditioner, mel: &Tensor) -> Result<Option<Tensor>> {
        self.through(conditioner, 0, Some(conditioner.frames(mel)?))
    }

    /// The rest, once there are no more frames.
    pub fn finish(&mut self, conditioner: &Conditioner) -> Result<Option<Tensor>> {
        let mut rest: Option<Tensor> = None;
        for i in 0..conditioner.stages.len() {
            let Some(last) = self.stages[i].0.clone() else { return Ok(rest) };
            let stage = &conditioner.stages[i];
            let tail = stage.blocks(&Tensor::cat(&[&last, &last.zeros_like()?], 1)?)?.narrow(1, 0, stage.stride / 2)?;
            let tail = self.through(conditioner, i + 1, Some(tail))?;
            rest = join(rest, tail)?;
        }
        Ok(rest)
    }

    fn through(&mut self, conditioner: &Conditioner, first: usize, x: Option<Tensor>) -> Result<Option<Tensor>> {
        let mut x = x;
        for (stage, (last, skip)) in conditioner.stages.iter().zip(&mut self.stages).skip(first) {
            let Some(input) = x else { return Ok(None) };
            let before = match last.take() {
                Some(before) => before,
                None => input.narrow(1, 0, 1)?.zeros_like()?,
            };
            let made = stage.blocks(&Tensor::cat(&[&before, &input], 1)?)?;
            // A copy, or the whole chunk would be kept.
            *last = Some(input.narrow(1, input.dim(1)? - 1, 1)?.force_contiguous()?);
            let skipped = (*skip).min(made.dim(1)?);
            *skip -= skipped;
            let left = made.dim(1)? - skipped;
            x = if left == 0 { None } else { Some(made.narrow(1, skipped, left)?) };
        }
        Ok(x)
    }
}

/// Two stretches of samples one after the other.
pub(crate) fn join(a: Option<Tensor>, b: Option<Tensor>) -> Result<Option<Tensor>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(Tensor::cat(&[a, b], 1)?),
        (a, b) => a.or(b),
    })
}
