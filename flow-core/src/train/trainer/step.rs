//! One step of the loop, and what is told of it.

use std::sync::Arc;
use std::time::Instant;

use super::Trainer;
use crate::param::Watcher;
use crate::train::clip::clip_global_norm;
use crate::train::communicator::{Agreed, Ending, Overlap, Underway, agree, failed_elsewhere, sum_weighed};
use crate::train::config::due;
use crate::train::ema::Ema;
use crate::train::events::{EventLog, RecordKind};
use crate::train::guard::Verdict;
use crate::train::metrics::{Metric, Metrics};
use crate::train::progress::{Progress, StepReport};
use crate::train::task::Task;
use crate::{Error, Result};

/// The outcome of one step, for the log and the progress display.
pub(super) struct Taken {
    pub(super) metrics: Metrics,
    pub(super) stop: bool,
    learning_rate: f64,
    norm: f64,
    verdict: Verdict,
    /// Seconds of exchange with the other ranks, waiting for them included.
    exchange: f64,
}

/// Nothing would ever be learned, and a run would end as if something had been.
fn no_gradient(step: u64) -> Error {
    let reason = "gave no parameter a gradient: the loss is detached from the parameters (computed from samples, from \
                  detached tensors or under `no_grad`), or they live in another store than the one that is trained";
    Error::config(format!("training step {step}"), reason)
}

impl<T: Task> Trainer<T> {
    /// One step: gradient, mean over ranks, clipping, guard, update.
    pub(super) fn advance(&mut self) -> Result<Taken> {
        let started = Instant::now();
        let step = self.state.step;
        let (own, underway) = self.own_part(step)?;
        let exchanging = Instant::now();
        let Agreed { metrics, weight, stop, moved, spoiled, fault } = agree(self.channel.as_ref(), own)?;
        let loss = metrics.objective.value;
        if loss.is_finite() && !moved {
            return Err(no_gradient(step));
        }
        let ending = Ending { weight, total: metrics.weight, spoiled, usable: loss.is_finite() };
        self.sum_over_ranks(underway, ending)?;
        let exchange = exchanging.elapsed().as_secs_f64();
        let norm = clip_global_norm(&mut self.gradients, self.config.clip_norm)?.norm;
        let limit = self.config.max_non_finite;
        let verdict = self.state.non_finite.judge(step, loss, norm, &self.gradients, fault.as_ref(), limit)?;
        let factor = self.schedule.factor(step);
        if verdict == Verdict::Update {
            self.optimizer.step(&self.gradients, factor)?;
            self.ema.as_mut().map_or(Ok(()), Ema::update)?;
        }
        self.state.step += 1;
        let seconds = started.elapsed().as_secs_f64();
        self.state.seconds += seconds;
        self.rate.add(self.task.samples_per_step(), seconds);
        let learning_rate = self.config.optimizer.learning_rate * factor;
        Ok(Taken { metrics, learning_rate, norm, verdict, stop, exchange })
    }

    /// The gradients of all ranks in place of this one's.
    fn sum_over_ranks(&mut self, underway: Option<Arc<Underway>>, ending: Ending) -> Result<()> {
        let (channel, limit) = (self.channel.as_ref(), self.config.bucket_bytes);
        match (&mut self.overlap, underway) {
            (Some(overlap), Some(underway)) => overlap.finish(&underway, &mut self.gradients, ending),
            _ if ending.usable && channel.world_size() > 1 => {
                sum_weighed(channel, &mut self.gradients, [ending.weight, ending.total], limit)
            }
            _ => Ok(()),
        }
    }

    /// What this rank makes of its part of a batch; its gradients are left in place, and may be on their way to the others.
    fn own_part(&mut self, step: u64) -> Result<(Agreed, Option<Arc<Underway>>)> {
        let mut rng = self.state.rng.fork();
        self.gradients.clear();
        let underway = self.overlap.as_ref().map(Overlap::begin);
        self.gradients.watch(underway.clone().map(|underway| -> Arc<dyn Watcher> { underway }));
        let together = self.task.store().together(self.peers.clone());
        let outcome = self.task.step(step, &mut rng, &mut self.gradients).map_err(Into::into);
        // However the task puts it.
        let outcome = if together.interrupted() { Err(failed_elsewhere()) } else { outcome };
        drop(together);
        let (metrics, fault) = match outcome {
            Ok(metrics) => (metrics, None),
            Err(error @ (Error::NonFinite { .. } | Error::Solver { .. })) => {
                (Metrics::new(Metric::new("loss", "", f64::NAN)), Some(error))
            }
            Err(error) => return Err(error),
        };
        let weight = if fault.is_none() { metrics.weight } else { 0.0 };
        let spoiled = underway.as_ref().is_some_and(|underway| underway.close(&self.gradients, weight));
        self.gradients.watch(None);
        let moved = !self.gradients.is_empty();
        Ok((Agreed { stop: self.stop.is_set(), moved, spoiled, fault, ..Agreed::of(metrics) }, underway))
    }

    /// Shows a step, and logs it where due.
    pub(super) fn report(&self, taken: &Taken, log: Option<&mut EventLog>, progress: &mut dyn Progress) -> Result<()> {
        let report = StepReport {
            step: self.state.step,
            metrics: &taken.metrics,
            learning_rate: taken.learning_rate,
            gradient_norm: taken.norm,
            samples_per_second: self.rate.per_second(),
            skipped: self.state.non_finite.total,
        };
        progress.step(&report);
        let skipped = taken.verdict == Verdict::Skip;
        if skipped && self.state.non_finite.consecutive == 1 {
            let loss = taken.metrics.objective.value;
            progress.note(&format!("step {} skipped: loss {loss}, gradient norm {}", report.step, taken.norm));
        }
        let Some(log) = log.filter(|_| due(Some(self.config.log_every), report.step) || skipped) else { return Ok(()) };
        let mut values = taken.metrics.named();
        values.push(("learning_rate".into(), report.learning_rate));
        values.push(("gradient_norm".into(), report.gradient_norm));
        values.push(("samples_per_second".into(), report.samples_per_second));
        values.push(("skipped_steps".into(), report.skipped as f64));
        if self.channel.world_size() > 1 {
            values.push(("exchange_seconds".into(), taken.exchange));
        }
        log.record(RecordKind::Train, report.step, values)
    }
}
