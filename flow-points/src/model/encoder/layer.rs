//! The encoder's layers: of points, and of the heads after the maximum.

use candle_core::Tensor;
use flow_core::nn::{RunningStatistics, column_moments};
use flow_core::numerics::host;
use flow_core::param::Init;
use flow_core::{Param, ParamPath, ParamStore};

use super::kernel::{EPSILON, Moments};
use super::{EncoderConfig, EncoderNorm};
use crate::Result;

/// A linear layer and, where there is one, the batch normalization after it.
#[derive(Debug)]
pub(super) struct PointLayer {
    weight: Param,
    bias: Param,
    norm: Option<BatchNorm>,
}

/// Batch normalization of rows.
#[derive(Debug)]
struct BatchNorm {
    gain: Param,
    offset: Param,
    running: RunningStatistics,
    store: ParamStore,
}

impl BatchNorm {
    fn new(path: &ParamPath, width: usize) -> flow_core::Result<Self> {
        Ok(BatchNorm {
            gain: path.param("weight", width, Init::Const(1.0))?,
            offset: path.param("bias", width, Init::Const(0.0))?,
            running: RunningStatistics::new(path, ["running_mean", "running_var"], width)?,
            store: path.store().clone(),
        })
    }

    /// In Candle's operations on rows `(R, C)`; statistics of the rows, on all ranks, when `training`.
    fn composed(&self, y: &Tensor, training: bool) -> Result<Tensor> {
        let (mean, variance, rows) = if training {
            column_moments(&self.store, y)?
        } else {
            (self.running.mean().unsqueeze(0)?, self.running.variance().unsqueeze(0)?, 0)
        };
        let scale = (&variance + EPSILON)?.sqrt()?.recip()?.broadcast_mul(&self.gain.tensor())?;
        let normal = y.broadcast_sub(&mean)?.broadcast_mul(&scale)?.broadcast_add(&self.offset.tensor())?;
        if training && self.gain.tracked() {
            self.advance(&mean, &variance, rows)?;
        }
        Ok(normal)
    }

    /// Moves the running averages; torch's variance there is the unbiased one.
    fn advance(&self, mean: &Tensor, variance: &Tensor, rows: usize) -> Result<()> {
        let unbiased = rows as f64 / (rows as f64 - 1.0).max(1.0);
        Ok(self.running.advance(mean, &(variance * unbiased)?)?)
    }
}

impl PointLayer {
    pub(super) fn new(
        linear: &ParamPath,
        norm: &ParamPath,
        inputs: usize,
        outputs: usize,
        kind: EncoderNorm,
    ) -> flow_core::Result<Self> {
        let small = Init::Uniform(1.0 / (inputs as f64).sqrt());
        let (start, norm) = match kind {
            EncoderNorm::Batch => (small, Some(BatchNorm::new(norm, outputs)?)),
            // Variance 2/inputs: rectified layers then keep the scale of what passes.
            EncoderNorm::Layer => (Init::Uniform((6.0 / inputs as f64).sqrt()), None),
        };
        Ok(PointLayer {
            weight: linear.param("weight", (outputs, inputs), start)?,
            bias: linear.param("bias", outputs, small)?,
            norm,
        })
    }

    /// In Candle's operations on rows `(R, I)`.
    pub(super) fn composed(&self, x: &Tensor, training: bool) -> Result<Tensor> {
        let y = x.matmul(&self.weight.tensor().t()?)?.broadcast_add(&self.bias.tensor())?;
        self.norm.as_ref().map_or(Ok(y.clone()), |norm| norm.composed(&y, training))
    }

    /// Weight and bias, and gain and offset where there are any: the kernels' order.
    pub(super) fn packed(&self) -> Result<Tensor> {
        let mut parts = vec![self.weight.tensor().flatten_all()?, self.bias.tensor()];
        parts.extend(self.norm.iter().flat_map(|norm| [norm.gain.tensor(), norm.offset.tensor()]));
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// The running averages.
    pub(super) fn running(&self) -> Result<Option<Moments>> {
        let read = |t: Tensor| host::numbers(&t);
        let moments =
            |n: &BatchNorm| Ok(Moments { mean: read(n.running.mean())?, variance: read(n.running.variance())? });
        self.norm.as_ref().map(moments).transpose()
    }

    /// Moves the running averages by what the kernel saw on `rows` rows.
    pub(super) fn advance(&self, moments: &Moments, rows: usize) -> Result<()> {
        let Some(norm) = &self.norm else { return Ok(()) };
        let like = norm.running.mean();
        let tensor = |v: &[f64]| host::tensor_like(v, v.len(), &like);
        norm.advance(&tensor(&moments.mean)?, &tensor(&moments.variance)?, rows)
    }
}

/// Layer normalization (Ba et al. 2016, arXiv 1607.06450) of rows `(R, C)`, without parameters: a linear layer follows.
fn layer_norm(x: &Tensor) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
    let variance = centred.sqr()?.mean_keepdim(1)?;
    Ok(centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?)
}

/// A small perceptron from the maximum to a vector: 512 → 256 → 128 → Z in the paper.
#[derive(Debug)]
pub(super) struct Head {
    hidden: Vec<PointLayer>,
    norm: EncoderNorm,
    weight: Param,
    bias: Param,
}

impl Head {
    pub(super) fn new(
        path: &ParamPath,
        inputs: usize,
        config: &EncoderConfig,
        outputs: usize,
    ) -> flow_core::Result<Self> {
        let (mut hidden, mut width) = (Vec::new(), inputs);
        for (i, &next) in config.head.iter().enumerate() {
            let (linear, norm) = (path.pp(format!("fc{}", i + 1)), path.pp(format!("bn{}", i + 1)));
            hidden.push(PointLayer::new(&linear, &norm, width, next, config.norm)?);
            width = next;
        }
        let last = path.pp(format!("fc{}", config.head.len() + 1));
        let bound = Init::Uniform(1.0 / (width as f64).sqrt());
        let (weight, bias) = (last.param("weight", (outputs, width), bound)?, last.param("bias", outputs, bound)?);
        Ok(Head { hidden, norm: config.norm, weight, bias })
    }

    pub(super) fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor> {
        let in_range = |x: &Tensor| match self.norm {
            EncoderNorm::Batch => Ok(x.clone()),
            EncoderNorm::Layer => layer_norm(x),
        };
        let mut h = in_range(x)?;
        for layer in &self.hidden {
            h = in_range(&layer.composed(&h, training)?)?.maximum(0.0)?;
        }
        Ok(h.matmul(&self.weight.tensor().t()?)?.broadcast_add(&self.bias.tensor())?)
    }
}
