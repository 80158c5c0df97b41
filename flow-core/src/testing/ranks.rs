//! Ranks that are threads of one process: what MPI does between processes, for tests of data-parallel training.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::train::{Communicator, Summands};
use crate::{Error, Result};

/// One of several threads that train together. Sums are taken in the order of ranks.
///
/// ```
/// use flow_core::testing::ThreadRanks;
/// use flow_core::train::{Communicator, Summands};
///
/// let sums = ThreadRanks::run(3, |ranks| {
///     let mut values = [ranks.rank() as f64, 1.0];
///     ranks.all_reduce_sum(Summands::F64(&mut values)).unwrap();
///     values
/// });
/// assert_eq!(sums, [[3.0, 3.0]; 3]);
/// ```
#[derive(Debug, Clone)]
pub struct ThreadRanks {
    rank: usize,
    ranks: usize,
    meeting: Arc<Meeting>,
    /// Where they meet on their second channel.
    second: Arc<Meeting>,
}

/// Where the ranks leave what they have to say.
#[derive(Debug, Default)]
struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Exchanges that are over.
    round: u64,
    /// What was said so far in the one at hand.
    said: Vec<Option<Vec<u8>>>,
    /// What was said in the last one.
    heard: Arc<Vec<Vec<u8>>>,
    /// Why no exchange will ever end again.
    over: Option<String>,
}

impl ThreadRanks {
    /// The ranks of one group.
    pub fn group(ranks: usize) -> Vec<Self> {
        let [meeting, second] = [(); 2].map(|()| {
            let meeting = Meeting::default();
            meeting.lock().said = vec![None; ranks];
            Arc::new(meeting)
        });
        (0..ranks).map(|rank| ThreadRanks { rank, ranks, meeting: meeting.clone(), second: second.clone() }).collect()
    }

    /// Runs `work` on every rank at once and returns what each returned.
    ///
    /// # Panics
    /// When one of them does.
    pub fn run<R: Send>(ranks: usize, work: impl Fn(ThreadRanks) -> R + Sync) -> Vec<R> {
        std::thread::scope(|scope| {
            let started: Vec<_> = Self::group(ranks).into_iter().map(|rank| scope.spawn(|| work(rank))).collect();
            let joined = started.into_iter().map(|thread| match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect()
        })
    }

    /// Leaves `own` and takes what all left, when all have.
    fn exchange(&self, own: Vec<u8>) -> Result<Arc<Vec<Vec<u8>>>> {
        let mut state = self.meeting.lock();
        if let Some(slot) = state.said.get_mut(self.rank) {
            *slot = Some(own);
        }
        let round = state.round;
        if state.said.iter().all(Option::is_some) {
            state.heard = Arc::new(state.said.iter_mut().filter_map(Option::take).collect());
            state.round += 1;
            self.meeting.changed.notify_all();
        }
        while state.round == round && state.over.is_none() {
            state = self.meeting.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match &state.over {
            Some(reason) => Err(Error::Config { what: "ranks".into(), reason: reason.clone() }),
            None => Ok(state.heard.clone()),
        }
    }
}

impl Meeting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Communicator for ThreadRanks {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.ranks
    }

    fn all_reduce_sum(&self, values: Summands<'_>) -> Result<()> {
        match values {
            Summands::F32(values) => {
                let heard = self.exchange(values.iter().flat_map(|v| v.to_le_bytes()).collect())?;
                let numbers = |bytes: &[u8], i: usize| {
                    bytes.as_chunks::<4>().0.get(i).map_or(f32::NAN, |&b| f32::from_le_bytes(b))
                };
                values.iter_mut().enumerate().for_each(|(i, value)| {
                    *value = heard.iter().map(|bytes| numbers(bytes, i)).fold(0.0, |sum, v| sum + v);
                });
            }
            Summands::F64(values) => {
                let heard = self.exchange(values.iter().flat_map(|v| v.to_le_bytes()).collect())?;
                let numbers = |bytes: &[u8], i: usize| {
                    bytes.as_chunks::<8>().0.get(i).map_or(f64::NAN, |&b| f64::from_le_bytes(b))
                };
                values.iter_mut().enumerate().for_each(|(i, value)| {
                    *value = heard.iter().map(|bytes| numbers(bytes, i)).fold(0.0, |sum, v| sum + v);
                });
            }
        }
        Ok(())
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(self.exchange(own.to_vec())?.to_vec())
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.exchange(bytes)?.first().cloned().unwrap_or_default())
    }

    fn barrier(&self) -> Result<()> {
        self.exchange(Vec::new()).map(drop)
    }

    fn second(&self) -> Result<Option<Arc<dyn Communicator>>> {
        let other = ThreadRanks { meeting: self.second.clone(), second: self.meeting.clone(), ..self.clone() };
        Ok(Some(Arc::new(other)))
    }

    fn abort(&self, reason: &str) {
        for meeting in [&self.meeting, &self.second] {
            let mut state = meeting.lock();
            state.over.get_or_insert(format!("rank {} of {}: {reason}", self.rank, self.ranks));
            meeting.changed.notify_all();
        }
    }
}
