//! Sums of gradients over ranks while others are still being made.
//!
//! A gradient is done when it has been added to as often as in an earlier step; a bucket goes to the other ranks, on a channel and a thread
//! of its own, when all of its gradients are done and those before it have gone. What is not done by then goes at the end of the step. Where a
//! gradient changes after it has gone (a walk that did not come back to its input, a sample that took another way), the step is summed again.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::Tensor;

use super::Communicator;
use super::reduction::{Bucket, Plan, put_back, sum_of_bucket};
use crate::param::Watcher;
use crate::{Error, Gradients, Param, Result};

/// A bucket on its way, and where its sum is awaited.
struct Job {
    bucket: Bucket,
    weight: f64,
    sum: SyncSender<Result<Tensor>>,
}

/// What all steps have in common.
#[derive(Debug)]
struct Lane {
    params: Vec<Param>,
    plan: Plan,
    jobs: Sender<Job>,
}

impl Lane {
    /// Sends some gradients, by their numbers; where their sum will be.
    fn send(
        &self,
        members: &[usize],
        value: impl Fn(usize) -> Option<Tensor>,
        weight: f64,
    ) -> Receiver<Result<Tensor>> {
        let parts = members.iter().filter_map(|&i| Some((self.params.get(i)?.clone(), value(i))));
        let (sum, awaited) = sync_channel(1);
        // Where the thread has ended, its answer is missed.
        let _ = self.jobs.send(Job { bucket: Bucket(parts.collect()), weight, sum });
        awaited
    }
}

/// A gradient by now, and how often it was added to.
#[derive(Debug, Clone, Default)]
struct Slot {
    value: Option<Tensor>,
    added: usize,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    /// What was there when an attempt began, and how many buckets had gone.
    before: Option<(Vec<Slot>, usize)>,
    weight: Option<f64>,
    /// Whether buckets wait for the end of the step.
    waits: bool,
    sums: Vec<Receiver<Result<Tensor>>>,
    spoiled: bool,
}

/// The gradients of one step, of which some may be on their way.
#[derive(Debug)]
pub(in crate::train) struct Underway {
    lane: Arc<Lane>,
    expected: Arc<Vec<usize>>,
    state: Mutex<State>,
}

impl Underway {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what is done and in its turn.
    fn send(&self, state: &mut State) {
        let Some(weight) = state.weight.filter(|_| !state.waits) else { return };
        while let Some(members) = self.lane.plan.0.get(state.sums.len()) {
            let done = |&i: &usize| self.expected[i] > 0 && state.slots[i].added >= self.expected[i];
            if !members.iter().all(done) {
                return;
            }
            let sum = self.lane.send(members, |i| state.slots[i].value.clone(), weight);
            state.sums.push(sum);
        }
    }

    /// Sends what has not gone yet, now that this rank's `gradients` are means over `weight` samples. Whether some had gone that are
    /// otherwise now.
    pub(in crate::train) fn close(&self, gradients: &Gradients, weight: f64) -> bool {
        let mut state = self.state();
        state.spoiled |= !state.sums.is_empty() && (state.weight != Some(weight) || !gradients.is_watched());
        let values: Vec<Option<&Tensor>> = gradients.iter().map(|(_, value)| value).collect();
        for members in self.lane.plan.0.iter().skip(state.sums.len()) {
            let sum = self.lane.send(members, |i| values.get(i).copied().flatten().map(Tensor::detach), weight);
            state.sums.push(sum);
        }
        state.spoiled
    }
}

impl Watcher for Underway {
    fn added(&self, index: usize, total: &Tensor) {
        let mut state = self.state();
        let gone = self.lane.plan.0.iter().take(state.sums.len()).any(|members| members.contains(&index));
        state.spoiled |= gone;
        if let Some(slot) = state.slots.get_mut(index) {
            *slot = Slot { value: Some(total.clone()), added: slot.added + 1 };
        }
        self.send(&mut state);
    }

    fn weighed(&self, samples: f64) {
        let mut state = self.state();
        // Said twice: what has gone counts for the first.
        state.spoiled |= !state.sums.is_empty() && state.weight != Some(samples);
        state.weight = Some(samples);
    }

    fn attempted(&self) {
        let mut state = self.state();
        state.before = Some((state.slots.clone(), state.sums.len()));
    }

    fn rejected(&self) {
        let mut state = self.state();
        if let Some((slots, gone)) = state.before.take() {
            state.spoiled |= state.sums.len() > gone;
            state.slots = slots;
        }
    }

    fn changed(&self) {
        let mut state = self.state();
        state.spoiled |= !state.sums.is_empty();
        state.waits = true;
    }
}

/// The ranks' second channel, with the thread that sums on it.
#[derive(Debug)]
pub(in crate::train) struct Overlap {
    lane: Arc<Lane>,
    /// How often each gradient has been added to in a step at most; zero until it is known.
    expected: Arc<Vec<usize>>,
}

/// How a step ended, on all ranks but for the weight of this one.
#[derive(Debug, Clone, Copy)]
pub(in crate::train) struct Ending {
    /// Samples of this rank, and of all.
    pub(in crate::train) weight: f64,
    pub(in crate::train) total: f64,
    /// Whether gradients of any rank changed after they had gone.
    pub(in crate::train) spoiled: bool,
    /// Whether the step is to be taken.
    pub(in crate::train) usable: bool,
}

impl Overlap {
    /// Starts the thread. Buckets hold `limit` bytes or a little more.
    pub(in crate::train) fn new(second: Arc<dyn Communicator>, gradients: &Gradients, limit: usize) -> Self {
        let (jobs, waiting) = channel::<Job>();
        // What it computes needs none of Rayon's threads, which may all be waiting for it.
        std::thread::spawn(move || {
            for Job { bucket, weight, sum } in waiting {
                // A step that was given up does not wait for it.
                let _ = sum.send(sum_of_bucket(second.as_ref(), bucket, weight));
            }
        });
        let params: Vec<Param> = gradients.iter().map(|(param, _)| param.clone()).collect();
        let expected = Arc::new(vec![0; params.len()]);
        Overlap { lane: Arc::new(Lane { plan: Plan::new(&params, limit), params, jobs }), expected }
    }

    /// Begins a step, whose gradients are to be watched by what this returns.
    pub(in crate::train) fn begin(&self) -> Arc<Underway> {
        let state = State {
            slots: vec![Slot::default(); self.expected.len()],
            before: None,
            weight: None,
            waits: false,
            sums: Vec::new(),
            spoiled: false,
        };
        Arc::new(Underway { lane: self.lane.clone(), expected: self.expected.clone(), state: Mutex::new(state) })
    }

    /// Replaces `gradients` by means over the samples of all ranks, where the step is usable. All ranks call it.
    ///
    /// # Errors
    /// A rank that is gone.
    pub(in crate::train) fn finish(
        &mut self,
        step: &Underway,
        gradients: &mut Gradients,
        ending: Ending,
    ) -> Result<()> {
        let Ending { weight, total, spoiled, usable } = ending;
        let (sums, slots) = {
            let mut state = step.state();
            (std::mem::take(&mut state.sums), std::mem::take(&mut state.slots))
        };
        let most = self.expected.iter().zip(&slots).map(|(&most, slot)| most.max(slot.added));
        self.expected = Arc::new(most.collect());
        // All of them, so that nothing of this step is left on the channel.
        self.lane.plan.0.iter().zip(sums).try_for_each(|(members, sum)| {
            let sum = received(&sum)?;
            if usable && !spoiled { put_back(gradients, members, &sum, total) } else { Ok(()) }
        })?;
        if !(usable && spoiled) {
            return Ok(());
        }
        for members in &self.lane.plan.0 {
            let values: Vec<Option<Tensor>> = gradients.iter().map(|(_, value)| value.cloned()).collect();
            let sum = self.lane.send(members, |i| values.get(i).cloned().flatten(), weight);
            put_back(gradients, members, &received(&sum)?, total)?;
        }
        Ok(())
    }
}

fn received(sum: &Receiver<Result<Tensor>>) -> Result<Tensor> {
    sum.recv().map_err(|_| Error::config("ranks", "the thread that sums gradients has ended"))?
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::ParamStore;
    use crate::param::Init;
    use crate::testing::ThreadRanks;
    use crate::testing::numbers::values;

    /// Parameters of two numbers each, each a bucket of its own, gradients of them, and the overlap of a rank alone.
    fn beginning() -> (Vec<Param>, Gradients, Overlap) {
        let store = ParamStore::new(0, DType::F64, &Device::Cpu);
        let params = ["a", "b", "c"].map(|name| store.root().param(name, 2, Init::Const(0.0)).unwrap());
        let gradients = Gradients::new(&store);
        let second = ThreadRanks::group(1).remove(0).second().unwrap().unwrap();
        let overlap = Overlap::new(second, &gradients, 1);
        (params.into(), gradients, overlap)
    }

    /// One step of two of four samples, of which the others have nothing to say: whether it was spoiled, and the first number of
    /// each gradient.
    fn step(
        gradients: &mut Gradients,
        overlap: &mut Overlap,
        work: impl FnOnce(&mut Gradients, &dyn Fn() -> usize),
    ) -> (bool, Vec<f64>) {
        gradients.clear();
        let underway = overlap.begin();
        gradients.watch(Some(underway.clone()));
        work(gradients, &|| underway.state().sums.len());
        let spoiled = underway.close(gradients, 2.0);
        gradients.watch(None);
        let ending = Ending { weight: 2.0, total: 4.0, spoiled, usable: true };
        overlap.finish(&underway, gradients, ending).unwrap();
        (spoiled, gradients.iter().map(|(_, g)| values(g.unwrap())[0]).collect())
    }

    fn some(value: f64) -> Tensor {
        Tensor::new(&[value, -value], &Device::Cpu).unwrap()
    }

    /// Adds 3 to each, in two parts for `b`, from the last to the first.
    fn usual(g: &mut Gradients, params: &[Param]) {
        g.add(&params[2], &some(3.0)).unwrap();
        g.add(&params[1], &some(1.0)).unwrap();
        g.add(&params[1], &some(2.0)).unwrap();
        g.add(&params[0], &some(3.0)).unwrap();
    }

    const SUMS: [f64; 3] = [1.5; 3];

    #[test]
    fn gradients_go_when_they_and_those_before_them_are_done() {
        let (params, mut gradients, mut overlap) = beginning();
        let first = step(&mut gradients, &mut overlap, |g, gone| {
            g.weigh(2.0);
            usual(g, &params);
            assert_eq!(gone(), 0, "nobody knows yet when they are done");
        });
        assert_eq!(first, (false, SUMS.to_vec()));
        let second = step(&mut gradients, &mut overlap, |g, gone| {
            g.weigh(2.0);
            g.add(&params[0], &some(3.0)).unwrap();
            g.add(&params[1], &some(1.0)).unwrap();
            g.add(&params[2], &some(3.0)).unwrap();
            assert_eq!(gone(), 1);
            g.add(&params[1], &some(2.0)).unwrap();
            assert_eq!(gone(), 3);
        });
        assert_eq!(second, (false, SUMS.to_vec()));
        // Fewer than usual, and none at all.
        let third = step(&mut gradients, &mut overlap, |g, _| {
            g.weigh(2.0);
            g.add(&params[1], &some(3.0)).unwrap();
        });
        assert_eq!(third, (false, vec![0.0, 1.5, 0.0]));
    }

    #[test]
    fn without_a_word_of_their_weight_gradients_wait() {
        let (params, mut gradients, mut overlap) = beginning();
        for _ in 0..2 {
            let found = step(&mut gradients, &mut overlap, |g, gone| {
                usual(g, &params);
                assert_eq!(gone(), 0);
            });
            assert_eq!(found, (false, SUMS.to_vec()));
        }
    }

    #[test]
    fn attempts_count_if_they_succeed() {
        let (params, mut gradients, mut overlap) = beginning();
        step(&mut gradients, &mut overlap, |g, _| usual(g, &params));
        for (before, fails, spoils) in
            [(false, false, false), (true, false, false), (false, true, true), (true, true, true)]
        {
            let found = step(&mut gradients, &mut overlap, |g, gone| {
                g.weigh(2.0);
                if before {
                    g.add(&params[1], &some(1.0)).unwrap();
                }
                let mut attempt = g.attempt();
                attempt.add(&params[2], &some(3.0)).unwrap();
                attempt.add(&params[1], &some(if before { 2.0 } else { 1.0 })).unwrap();
                if !before {
                    attempt.add(&params[1], &some(2.0)).unwrap();
                }
                assert_eq!(gone(), 2);
                if fails {
                    attempt.give_up();
                    g.add(&params[2], &some(3.0)).unwrap();
                    g.add(&params[1], &some(if before { 2.0 } else { 3.0 })).unwrap();
                } else {
                    g.merge(&attempt).unwrap();
                }
                g.add(&params[0], &some(3.0)).unwrap();
            });
            assert_eq!(found, (spoils, SUMS.to_vec()), "before {before}, fails {fails}");
        }
        // An attempt that fails before anything has gone leaves what was there.
        let found = step(&mut gradients, &mut overlap, |g, gone| {
            g.weigh(2.0);
            g.add(&params[0], &some(3.0)).unwrap();
            let mut attempt = g.attempt();
            attempt.add(&params[1], &some(7.0)).unwrap();
            attempt.give_up();
            assert_eq!(gone(), 0);
            g.add(&params[1], &some(3.0)).unwrap();
            g.add(&params[2], &some(3.0)).unwrap();
        });
        assert_eq!(found, (false, SUMS.to_vec()));
    }

    /// Gradients that are scaled, replaced or weighed otherwise after some have gone, or before.
    #[test]
    fn what_changes_is_summed_as_it_is_in_the_end() {
        let (params, mut gradients, mut overlap) = beginning();
        step(&mut gradients, &mut overlap, |g, _| usual(g, &params));
        let scaled = step(&mut gradients, &mut overlap, |g, gone| {
            g.weigh(2.0);
            usual(g, &params);
            assert_eq!(gone(), 3);
            g.scale(0.5).unwrap();
        });
        assert_eq!(scaled, (true, vec![0.75; 3]));
        let early = step(&mut gradients, &mut overlap, |g, gone| {
            g.weigh(2.0);
            g.add(&params[0], &some(2.0)).unwrap();
            g.scale(0.5).unwrap();
            g.add(&params[1], &some(3.0)).unwrap();
            g.add(&params[2], &some(3.0)).unwrap();
            assert_eq!(gone(), 0);
        });
        assert_eq!(early, (false, vec![0.5, 1.5, 1.5]));
        let replaced = step(&mut gradients, &mut overlap, |g, _| {
            g.weigh(2.0);
            usual(g, &params);
            *g = Gradients::new(g.store());
            usual(g, &params);
            usual(g, &params);
        });
        assert_eq!(replaced, (true, vec![3.0; 3]));
        let miscounted = step(&mut gradients, &mut overlap, |g, _| {
            g.weigh(7.0);
            usual(g, &params);
        });
        assert_eq!(miscounted, (true, SUMS.to_vec()));
    }
}
