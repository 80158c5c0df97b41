//! What is told beside frames.

use candle_core::{DType, Device, Tensor};
use flow_core::{Error, Param, ParamPath, Result};

/// Clips with what is told beside their frames; a reference to clips alone becomes one that tells nothing.
#[derive(Debug, Clone, Copy)]
pub struct Footage<'a> {
    /// Levels `(B, T, C, H, W)`.
    pub clips: &'a Tensor,
    /// `(B, T, A)`: what is told of each frame, such as what was done before it. A frame with NaN is told nothing, and `None`
    /// tells nothing of any.
    pub actions: Option<&'a Tensor>,
}

impl<'a> Footage<'a> {
    /// Clips and what is told of their frames.
    pub fn new(clips: &'a Tensor, actions: Option<&'a Tensor>) -> Self {
        Footage { clips, actions }
    }
}

impl<'a> From<&'a Tensor> for Footage<'a> {
    fn from(clips: &'a Tensor) -> Self {
        Footage { clips, actions: None }
    }
}

/// The scale of what is told: networks see `(a - mean) / deviation`, and one channel more that says whether anything is told.
pub(super) struct ActionScale {
    mean: Param,
    deviation: Param,
    size: usize,
}

impl ActionScale {
    /// Buffers `mean` and `deviation` for `size` numbers under `path`, zero and one.
    pub(super) fn new(path: &ParamPath, size: usize) -> Result<Self> {
        let zeros = Tensor::zeros(size, path.store().dtype(), path.store().device())?;
        let (mean, deviation) = (path.buffer("mean", &zeros)?, path.buffer("deviation", &zeros.ones_like()?)?);
        Ok(ActionScale { mean, deviation, size })
    }

    /// Sets mean and deviation of each number.
    pub(super) fn set(&self, scale: &[(f64, f64)]) -> Result<()> {
        if scale.len() != self.size {
            let reason = format!("{} numbers are told, the model takes {}", scale.len(), self.size);
            return Err(Error::config("actions", reason));
        }
        let (mean, deviation): (Vec<f64>, Vec<f64>) = scale.iter().copied().unzip();
        let values = |values: Vec<f64>| -> Result<Tensor> {
            let like = self.mean.tensor();
            Ok(Tensor::new(values, &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())?)
        };
        self.mean.set(&values(mean)?)?;
        self.deviation.set(&values(deviation)?)
    }

    /// What the networks see of actions `(B, T, A)`, `(B·T, A + 1, 1, 1)`.
    ///
    /// # Errors
    /// [`Error::Shape`] for actions of other clips or of another size.
    pub(super) fn seen(&self, actions: Option<&Tensor>, clips: usize, steps: usize) -> Result<Tensor> {
        let (rows, size, like) = (clips * steps, self.size, self.mean.tensor());
        let Some(actions) = actions else {
            return Ok(Tensor::zeros((rows, size + 1, 1, 1), like.dtype(), like.device())?);
        };
        if actions.dims() != [clips, steps, size] {
            return Err(Error::Shape {
                layer: "actions".into(),
                expected: format!("({clips}, {steps}, {size})"),
                actual: actions.dims().to_vec(),
            });
        }
        let numbers = |t: &Tensor| -> Result<Vec<f64>> {
            Ok(t.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
        };
        let (mean, deviation) = (numbers(&like)?, numbers(&self.deviation.tensor())?);
        let mut seen = Vec::with_capacity(rows * (size + 1));
        for row in numbers(actions)?.chunks_exact(size) {
            let is_told = row.iter().all(|v| !v.is_nan());
            let scaled = row.iter().zip(mean.iter().zip(&deviation)).map(|(v, (m, s))| (v - m) / s);
            seen.extend(scaled.map(|v| if is_told { v } else { 0.0 }));
            seen.push(if is_told { 1.0 } else { 0.0 });
        }
        Ok(Tensor::from_vec(seen, (rows, size + 1, 1, 1), &Device::Cpu)?
            .to_dtype(like.dtype())?
            .to_device(like.device())?)
    }
}
