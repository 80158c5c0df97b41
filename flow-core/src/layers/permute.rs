//! A fixed permutation of channels or vector entries.

use candle_core::{Device, Tensor};

use crate::bijector::{Bijector, Pullback, Tape, check_batch, zero_log_det};
use crate::numerics::host;
use crate::param::{Param, ParamPath};
use crate::{Error, Gradients, Result};

/// `z[i] = x[π(i)]` along the first event dimension; `log |det| = 0`.
///
/// The order is a buffer, so that it is saved with the model.
#[derive(Debug)]
pub struct Permute {
    shape: Vec<usize>,
    order: Param,
}

impl Permute {
    /// The reverse order.
    pub fn reverse(path: &ParamPath, shape: &[usize]) -> Result<Self> {
        Self::with_order(path, shape, (0..shape.first().copied().unwrap_or(0)).rev().collect())
    }

    /// A random order, drawn from the store's seed.
    pub fn random(path: &ParamPath, shape: &[usize]) -> Result<Self> {
        let order = path.rng("order").permutation(shape.first().copied().unwrap_or(0));
        Self::with_order(path, shape, order)
    }

    /// A given order: `z[i] = x[order[i]]`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `order` is a permutation of `0..shape[0]`.
    pub fn with_order(path: &ParamPath, shape: &[usize], order: Vec<usize>) -> Result<Self> {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if shape.is_empty() || !sorted.iter().copied().eq(0..shape[0]) {
            let reason = format!("{order:?} is not a permutation of the first dimension of {shape:?}");
            return Err(Error::config("permutation", reason));
        }
        let values: Vec<f64> = order.iter().map(|&i| i as f64).collect();
        let order = path.buffer("order", &Tensor::from_vec(values, shape[0], &Device::Cpu)?)?;
        Ok(Permute { shape: shape.to_vec(), order })
    }

    /// `x` in the stored order, or in the inverse of it.
    fn select(&self, x: &Tensor, inverse: bool) -> Result<Tensor> {
        check_batch("permutation", x, &self.shape)?;
        let order = host::numbers(self.order.var())?;
        let mut index: Vec<u32> = order.iter().map(|&i| i as u32).collect();
        if inverse {
            for (i, &from) in order.iter().enumerate() {
                if let Some(slot) = index.get_mut(from as usize) {
                    *slot = i as u32;
                }
            }
        }
        let index = Tensor::from_vec(index, self.shape[0], x.device())?;
        Ok(x.contiguous()?.index_select(&index, 1)?)
    }
}

impl Bijector for Permute {
    fn name(&self) -> String {
        "permutation".into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        Ok((self.select(x, false)?, zero_log_det(x)?))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        Ok((self.select(z, true)?, zero_log_det(z)?))
    }

    fn backprop(
        &self,
        z: &Tensor,
        _tape: &Tape,
        _context: Option<&Tensor>,
        grad_z: &Tensor,
        _grad_log_det: &Tensor,
        _gradients: &mut Gradients,
    ) -> Result<Pullback> {
        // A permutation is orthogonal: its transpose is its inverse.
        Ok(Pullback { x: self.select(z, true)?, grad_x: self.select(grad_z, true)?, grad_context: None })
    }
}
