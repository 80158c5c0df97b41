//! Batch statistics over ranks: exchanges in the middle of a step, of which any rank may fail.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Communicator;
use crate::param::Peers;
use crate::{Error, Result};

/// What a message of statistics begins with; a [report](super::agreement) of a step is an object in JSON.
pub(super) const STATISTICS: u8 = b's';

/// What a message of a task's own numbers begins with.
pub(super) const NUMBERS: u8 = b'n';

/// The layer that a step is said to have failed in when it has failed on another rank.
pub(super) const ELSEWHERE: &str = "batch statistics";

/// The ranks of a channel as [`Peers`].
///
/// A rank whose step fails says so in place of the statistics that the others wait for, and they stop where they are: all
/// then agree on the failure.
pub(in crate::train) struct StepPeers {
    channel: Arc<dyn Communicator>,
    interrupted: AtomicBool,
}

impl StepPeers {
    pub(in crate::train) fn new(channel: Arc<dyn Communicator>) -> Self {
        StepPeers { channel, interrupted: AtomicBool::new(false) }
    }
}

impl fmt::Debug for StepPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.channel.rank(), self.channel.world_size())
    }
}

impl Peers for StepPeers {
    fn gather(&self, own: &[f64]) -> Result<Vec<Vec<f64>>> {
        // Others may wait for this rank's report already.
        if self.interrupted() {
            return Err(failed_elsewhere());
        }
        let mut message = vec![STATISTICS];
        message.extend(own.iter().flat_map(|value| value.to_le_bytes()));
        let all = self.channel.all_gather(&message)?;
        let read = |said: &Vec<u8>| {
            let (&STATISTICS, numbers) = said.split_first()? else { return None };
            Some(numbers.as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect::<Vec<f64>>())
        };
        match all.iter().map(read).collect::<Option<Vec<_>>>() {
            Some(all) if all.iter().all(|numbers| numbers.len() == own.len()) => Ok(all),
            Some(_) => Err(Error::config("ranks", "sent statistics of different layers; do all run the same program?")),
            None => {
                self.interrupted.store(true, Ordering::Relaxed);
                Err(failed_elsewhere())
            }
        }
    }

    fn begin(&self) {
        self.interrupted.store(false, Ordering::Relaxed);
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// What a step ends with that has failed on another rank.
pub(in crate::train) fn failed_elsewhere() -> Error {
    Error::NonFinite { layer: ELSEWHERE.into(), what: "step of another rank".into(), step: None }
}
