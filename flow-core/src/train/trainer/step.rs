//! One step of the loop, and what is told of it.

use std::time::Instant;

use super::Trainer;
use crate::train::clip::clip_global_norm;
use crate::train::communicator::average;
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
        // Every rank draws the same child from the common generator and descends to its own.
        let mut rng = (0..self.channel.rank()).fold(self.state.rng.fork(), |mut rng, _| rng.fork());
        self.gradients.clear();
        let (mut metrics, source) = match self.task.step(step, &mut rng, &mut self.gradients).map_err(Into::into) {
            Ok(metrics) => (metrics, None),
            Err(error @ (Error::NonFinite { .. } | Error::Solver { .. })) => {
                (Metrics::new(Metric::new("loss", "", f64::NAN)), Some(error))
            }
            Err(error) => return Err(error),
        };
        let flag = |set: bool| f64::from(u8::from(set));
        let mut shared = [metrics.objective.value, flag(self.stop.is_set()), flag(!self.gradients.is_empty())];
        average(self.channel.as_ref(), &mut self.gradients, &mut shared)?;
        let [loss, stop, moved] = shared;
        if loss.is_finite() && moved == 0.0 {
            return Err(no_gradient(step));
        }
        metrics.objective.value = loss;
        let norm = clip_global_norm(&mut self.gradients, self.config.clip_norm)?.norm;
        let limit = self.config.max_non_finite;
        let verdict = self.state.non_finite.judge(step, loss, norm, &self.gradients, source.as_ref(), limit)?;
        let factor = self.schedule.factor(step);
        if verdict == Verdict::Update {
            self.optimizer.step(&self.gradients, factor)?;
            self.ema.as_mut().map_or(Ok(()), Ema::update)?;
        }
        self.state.step += 1;
        let seconds = started.elapsed().as_secs_f64();
        self.state.seconds += seconds;
        self.rate.add(self.task.samples_per_step() * self.channel.world_size(), seconds);
        let learning_rate = self.config.optimizer.learning_rate * factor;
        Ok(Taken { metrics, learning_rate, norm, verdict, stop: stop > 0.0 })
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
        log.record(RecordKind::Train, report.step, values)
    }
}
