//! Data-parallel training: what the loop asks of the channel that several processes have in common.
//!
//! Every rank trains the same model on its own rows of the same batches. Gradients are summed over the ranks before
//! clipping, weighed by their samples and in part while back-propagation still runs, so that all ranks take the step that one process would have
//! taken. Nothing else about a run knows of ranks: the order of the data and the noise of a sample are those of the one
//! process ([`FlowRng::for_rows`](crate::FlowRng::for_rows)), and rank 0 alone reads and writes the run's folder.

mod agreement;
pub mod launch;
#[cfg(feature = "mpi")]
pub mod mpi;
#[cfg(feature = "nccl")]
pub mod nccl;
mod overlap;
mod ranks;
mod reduction;
mod statistics;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

pub(super) use agreement::{Agreed, Description, agree, check_alike, check_same_weights};
pub(super) use overlap::{Ending, Overlap, Underway};
pub use ranks::Ranks;
pub(super) use reduction::sum_weighed;
pub(super) use statistics::{StepPeers, failed_elsewhere};

/// A group of processes (or threads) that train one model together.
///
/// Every rank calls the same methods in the same order. The contract of reproducibility: all ranks receive the same bits
/// from [`Communicator::all_reduce_sum`], and the same layout of ranks receives the same bits again.
pub trait Communicator: Send + Sync {
    /// This process, in `0..world_size`.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn world_size(&self) -> usize;

    /// Replaces numbers by their sums over all ranks.
    ///
    /// # Errors
    /// A rank that is gone.
    fn all_reduce_sum(&self, values: Summands<'_>) -> Result<()>;

    /// The sums of a tensor of f32 or f64 over all ranks, where it lies. It goes through the host's memory, unless the
    /// channel knows of a way between devices.
    ///
    /// # Errors
    /// Another type of numbers; a rank that is gone.
    fn all_reduce_tensor(&self, values: &Tensor) -> Result<Tensor> {
        let flat = values.detach().to_device(&Device::Cpu)?.flatten_all()?;
        let sum = match values.dtype() {
            DType::F32 => {
                let mut numbers = flat.to_vec1()?;
                self.all_reduce_sum(Summands::F32(&mut numbers))?;
                Tensor::from_vec(numbers, values.shape(), &Device::Cpu)?
            }
            DType::F64 => {
                let mut numbers = flat.to_vec1()?;
                self.all_reduce_sum(Summands::F64(&mut numbers))?;
                Tensor::from_vec(numbers, values.shape(), &Device::Cpu)?
            }
            other => return Err(Error::config("ranks", format!("sum f32 and f64, not {other:?}"))),
        };
        Ok(sum.to_device(values.device())?)
    }

    /// What every rank has to say, in the order of ranks; the lengths may differ.
    ///
    /// # Errors
    /// A rank that is gone.
    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// What rank 0 has to say; on other ranks `bytes` are not looked at.
    ///
    /// # Errors
    /// A rank that is gone.
    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>>;

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// A rank that is gone.
    fn barrier(&self) -> Result<()>;

    /// Another channel between the same ranks, for another thread of each: what is said on one is not heard on the other. `None` where
    /// there is no such thing. All ranks call it.
    ///
    /// # Errors
    /// A rank that is gone.
    fn second(&self) -> Result<Option<Arc<dyn Communicator>>> {
        Ok(None)
    }

    /// Ends the work of all ranks, since this one cannot go on: the others would wait for it for ever. May return, where
    /// that is not the end of this process; it is about to return an error then.
    fn abort(&self, reason: &str);
}

/// Numbers to be summed over ranks.
#[derive(Debug)]
pub enum Summands<'a> {
    /// In single precision.
    F32(&'a mut [f32]),
    /// In double precision.
    F64(&'a mut [f64]),
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
    fn all_reduce_sum(&self, _values: Summands<'_>) -> Result<()> {
        Ok(())
    }
    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![own.to_vec()])
    }
    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(bytes)
    }
    fn barrier(&self) -> Result<()> {
        Ok(())
    }
    fn abort(&self, _reason: &str) {}
}

/// Ends the work of all ranks when a panic unwinds through the scope that holds it.
pub(super) struct Alarm<'a>(pub(super) &'a dyn Communicator);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abort(launch::PANICKED);
        }
    }
}
