//! What a task knows of the ranks.

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::statistics::{NUMBERS, failed_elsewhere};
use super::{Communicator, Solo};
use crate::{Error, Result, Share};

/// The ranks that take a step together, as a [`Task`](crate::train::Task) sees them: which rows of a batch are this
/// rank's, and what little the ranks have to tell each other within a step.
///
/// What gathers has to be called by every rank, in the same order, even by one that has no rows or has failed: the others
/// wait for it.
#[derive(Clone)]
pub struct Ranks(Arc<dyn Communicator>);

impl Default for Ranks {
    fn default() -> Self {
        Ranks::alone()
    }
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.count())
    }
}

impl Ranks {
    /// One rank.
    pub fn alone() -> Self {
        Ranks(Arc::new(Solo))
    }

    /// The ranks of a channel.
    pub fn new(channel: Arc<dyn Communicator>) -> Self {
        Ranks(channel)
    }

    /// The channel between them.
    pub(in crate::train) fn channel(&self) -> Arc<dyn Communicator> {
        self.0.clone()
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.0.rank()
    }

    /// The number of ranks.
    pub fn count(&self) -> usize {
        self.0.world_size()
    }

    /// This rank's rows of a batch of `of` rows.
    pub fn share(&self, of: usize) -> Share {
        Share::part(of, self.rank(), self.count())
    }

    /// The numbers of all ranks, in the order of ranks.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn gather(&self, own: &[f64]) -> Result<Vec<f64>> {
        if self.count() == 1 {
            return Ok(own.to_vec());
        }
        let mut message = vec![NUMBERS];
        message.extend(own.iter().flat_map(|value| value.to_le_bytes()));
        let mut numbers = Vec::new();
        for said in self.0.all_gather(&message)? {
            match said.split_first() {
                Some((&NUMBERS, bytes)) if bytes.len().is_multiple_of(8) => {
                    numbers.extend(bytes.as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)));
                }
                // The report of a step that has ended early.
                Some((&b'{', _)) => return Err(failed_elsewhere()),
                _ => {
                    let reason = "a rank sent something else than numbers; do all run the same program?";
                    return Err(Error::config("ranks", reason));
                }
            }
        }
        Ok(numbers)
    }

    /// The rows `(B_r, W)` of all ranks as one matrix `(Σ B_r, W)`, untracked; a rank without rows gives `(0, W)`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `own` is a matrix; a rank that is gone, or one with rows of another width.
    pub fn gather_rows(&self, own: &Tensor) -> Result<Tensor> {
        if self.count() == 1 {
            return Ok(own.detach());
        }
        let (count, width) = own.dims2()?;
        // In double precision, which holds every number of the narrower types.
        let values = match count {
            0 => Vec::new(),
            _ => own.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?,
        };
        let all = self.gather(&values)?;
        let rows = all.len() / width.max(1);
        if rows * width != all.len() {
            return Err(Error::config("ranks", format!("{} numbers make no rows of {width}", all.len())));
        }
        Ok(Tensor::from_vec(all, (rows, width), &Device::Cpu)?.to_dtype(own.dtype())?.to_device(own.device())?)
    }

    /// `Ok` with one rank, otherwise an error: `what` cannot be shared out, and what helps.
    ///
    /// # Errors
    /// [`Error::Config`] with more than one rank.
    pub fn only_alone(&self, what: &str, remedy: &str) -> Result<()> {
        match self.count() {
            1 => Ok(()),
            ranks => Err(Error::config(what, format!("cannot be shared out over {ranks} ranks: {remedy}"))),
        }
    }
}
