//! What a person watching a run sees.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::metrics::{Metric, Metrics};
use super::trainer::Summary;

/// What is known after a step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport<'a> {
    /// Finished steps.
    pub step: u64,
    /// The step's metrics; the objective is the loss.
    pub metrics: &'a Metrics,
    /// The learning rate used.
    pub learning_rate: f64,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Samples per second over all ranks, since the run began or was resumed.
    pub samples_per_second: f64,
    /// Non-finite steps that were skipped so far.
    pub skipped: u64,
}

/// An observer of a run. All methods do nothing by default; `()` observes nothing.
pub trait Progress {
    /// The run begins, or goes on, after `done` of `total` steps.
    fn start(&mut self, _done: u64, _total: u64) {}
    /// A step is finished.
    fn step(&mut self, _report: &StepReport<'_>) {}
    /// A validation is finished; `best` is the best objective so far, this one included.
    fn validation(&mut self, _step: u64, _metrics: &Metrics, _best: f64) {}
    /// Something worth a line.
    fn note(&mut self, _message: &str) {}
    /// The run is over.
    fn finish(&mut self, _summary: &Summary) {}
}

impl Progress for () {}

/// How often a plain line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How often the bar's text is rebuilt: more often than that nobody can read.
const TEXT_EVERY: Duration = Duration::from_millis(100);
/// Smoothing of the displayed loss.
const SMOOTHING: f64 = 0.97;

/// A progress bar on stderr; one plain line every ten seconds where stderr is not a terminal.
#[derive(Debug)]
pub struct Bar {
    bar: Option<ProgressBar>,
    done: u64,
    total: u64,
    began: Instant,
    loss: Smoothed,
    best: Option<f64>,
    shown: Option<Instant>,
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Bar {
    /// A bar that appears when the run starts.
    pub fn new() -> Self {
        Bar { bar: None, done: 0, total: 0, began: Instant::now(), loss: Smoothed::default(), best: None, shown: None }
    }

    fn text(&self, report: &StepReport<'_>) -> String {
        let smoothed = Metric { value: self.loss.value(), ..report.metrics.objective.clone() };
        let mut text = smoothed.to_string();
        if let Some(best) = self.best {
            text += &format!(", best validation {best:.4}");
        }
        text += &format!(", {:.1} samples/s", report.samples_per_second);
        if report.skipped > 0 {
            text += &format!(", {} skipped", report.skipped);
        }
        text
    }

    fn line(&self, message: &str) {
        match &self.bar {
            Some(bar) => bar.println(message),
            None => eprintln!("{message}"),
        }
    }

    /// Whether the text shown is older than `age`; it counts as new from now on.
    fn stale(&mut self, age: Duration) -> bool {
        let stale = self.shown.is_none_or(|at| at.elapsed() >= age);
        if stale {
            self.shown = Some(Instant::now());
        }
        stale
    }
}

impl Progress for Bar {
    fn start(&mut self, done: u64, total: u64) {
        (self.done, self.total, self.began, self.shown) = (done, total, Instant::now(), None);
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total).with_position(done);
            bar.reset_eta();
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}, {eta} left") {
                bar.set_style(style);
            }
            self.bar = Some(bar);
        }
    }

    fn step(&mut self, report: &StepReport<'_>) {
        self.loss.add(report.metrics.objective.value);
        if let Some(bar) = self.bar.clone() {
            bar.set_position(report.step);
            if self.stale(TEXT_EVERY) {
                bar.set_message(self.text(report));
            }
        } else if self.stale(LINE_EVERY) {
            let per_step = self.began.elapsed().as_secs_f64() / report.step.saturating_sub(self.done).max(1) as f64;
            let left = self.total.saturating_sub(report.step) as f64 * per_step;
            eprintln!("step {}/{}: {}, {left:.0} s left", report.step, self.total, self.text(report));
        }
    }

    fn validation(&mut self, step: u64, metrics: &Metrics, best: f64) {
        self.best = Some(best);
        self.line(&format!("validation at step {step}: {metrics}"));
    }

    fn note(&mut self, message: &str) {
        self.line(message);
    }

    fn finish(&mut self, _summary: &Summary) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}

/// A zero-debiased exponential average that ignores what is not finite.
#[derive(Debug, Default)]
struct Smoothed {
    sum: f64,
    weight: f64,
}

impl Smoothed {
    fn add(&mut self, value: f64) {
        if value.is_finite() {
            self.sum = SMOOTHING * self.sum + (1.0 - SMOOTHING) * value;
            self.weight = SMOOTHING * self.weight + (1.0 - SMOOTHING);
        }
    }

    fn value(&self) -> f64 {
        self.sum / self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_is_unbiased_and_deaf_to_nan() {
        let mut s = Smoothed::default();
        s.add(3.0);
        assert!((s.value() - 3.0).abs() < 1e-12);
        s.add(f64::NAN);
        s.add(3.0);
        assert!((s.value() - 3.0).abs() < 1e-12);
        s.add(1.0);
        assert!(s.value() < 3.0 && s.value() > 1.0);
    }
}
