//! Data-parallel training: what the loop asks of the ranks' common channel.

use candle_core::{Device, Tensor};

use super::metrics::Metrics;
use crate::{Gradients, ParamStore, Result};

/// A group of processes (or threads) that train one model on different batches.
///
/// Every rank calls the same methods in the same order. The contract of reproducibility: all ranks
/// receive the same bits from [`Communicator::all_reduce_sum`].
pub trait Communicator: Send {
    /// This process, in `0..world_size`.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn world_size(&self) -> usize;

    /// Replaces `values` by their sum over all ranks.
    fn all_reduce_sum(&self, values: &mut [f32]) -> Result<()>;

    /// Replaces `values` by those of rank `root`.
    fn broadcast(&self, values: &mut [f32], root: usize) -> Result<()>;

    /// Waits until all ranks are here.
    fn barrier(&self) -> Result<()>;
}

/// The only member of its group: no communication.
#[derive(Debug, Clone, Copy, Default)]
pub struct Solo;

impl Communicator for Solo {
    fn rank(&self) -> usize {
        0
    }
    fn world_size(&self) -> usize {
        1
    }
    fn all_reduce_sum(&self, _values: &mut [f32]) -> Result<()> {
        Ok(())
    }
    fn broadcast(&self, _values: &mut [f32], _root: usize) -> Result<()> {
        Ok(())
    }
    fn barrier(&self) -> Result<()> {
        Ok(())
    }
}

/// Replaces gradients and some scalars by their means over all ranks, in one reduction.
///
/// The loss and the wish to stop travel with the gradients so that all ranks decide alike: a loss that is
/// not finite on one of them is finite on none.
pub(super) fn average(channel: &dyn Communicator, gradients: &mut Gradients, scalars: &mut [f64]) -> Result<()> {
    let world = channel.world_size();
    if world == 1 {
        return Ok(());
    }
    let mut flat = gradients.flatten()?;
    let weights = flat.len();
    flat.extend(scalars.iter().map(|&value| value as f32));
    channel.all_reduce_sum(&mut flat)?;
    let share = 1.0 / world as f32;
    flat.iter_mut().for_each(|value| *value *= share);
    let (mean, tail) = flat.split_at(weights);
    scalars.iter_mut().zip(tail).for_each(|(scalar, &value)| *scalar = f64::from(value));
    gradients.unflatten(mean)
}

/// Gives every rank the parameters and buffers of rank 0.
pub(super) fn broadcast_weights(channel: &dyn Communicator, store: &ParamStore) -> Result<()> {
    if channel.world_size() == 1 {
        return Ok(());
    }
    for param in store.all() {
        let value = param.var().as_detached_tensor();
        let mut flat = value.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?;
        channel.broadcast(&mut flat, 0)?;
        param.set(&Tensor::from_vec(flat, value.shape(), &Device::Cpu)?)?;
    }
    Ok(())
}

/// Replaces metrics by their means over all ranks.
pub(super) fn average_metrics(channel: &dyn Communicator, metrics: &mut Metrics) -> Result<()> {
    if channel.world_size() == 1 {
        return Ok(());
    }
    let mut flat: Vec<f32> = metrics.iter().map(|metric| metric.value as f32).collect();
    channel.all_reduce_sum(&mut flat)?;
    let share = 1.0 / channel.world_size() as f64;
    metrics.iter_mut().zip(flat).for_each(|(metric, value)| metric.value = f64::from(value) * share);
    Ok(())
}
