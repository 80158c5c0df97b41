//! What a person watching a run sees.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::metrics::{Metric, Metrics};
use super::summary::Summary;

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
    total: u64,
    began: Instant,
    limit: Option<Duration>,
    /// When the first step was over, and its number: it takes longer than the others, and says nothing of them.
    first: Option<(Instant, u64)>,
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
        Bar {
            bar: None,
            total: 0,
            began: Instant::now(),
            limit: None,
            first: None,
            loss: Smoothed::default(),
            best: None,
            shown: None,
        }
    }

    /// The run is going to be stopped after this time, of which the time left then takes account.
    #[must_use]
    pub fn with_limit(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }

    /// The time that is left after so many steps: at the pace so far, validations included, and within the limit.
    fn left(&self, step: u64, now: Instant) -> Option<Duration> {
        let (first, number) = self.first?;
        let taken = u32::try_from(step.saturating_sub(number)).ok().filter(|&n| n > 0)?;
        let pace = now.duration_since(first) / taken;
        let all = Duration::try_from_secs_f64(pace.as_secs_f64() * self.total.saturating_sub(step) as f64).ok()?;
        let limit = self.limit.map(|limit| limit.saturating_sub(now.duration_since(self.began)));
        Some(limit.map_or(all, |limit| limit.min(all)))
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
        if let Some(left) = self.left(report.step, Instant::now()) {
            text += &format!(", {} left", HumanDuration(left));
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
        (self.total, self.began, self.first, self.shown) = (total, Instant::now(), None, None);
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total).with_position(done);
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            self.bar = Some(bar);
        }
    }

    fn step(&mut self, report: &StepReport<'_>) {
        self.loss.add(report.metrics.objective.value);
        self.first.get_or_insert((Instant::now(), report.step));
        if let Some(bar) = self.bar.clone() {
            bar.set_position(report.step);
            if self.stale(TEXT_EVERY) {
                bar.set_message(self.text(report));
            }
        } else if self.stale(LINE_EVERY) {
            eprintln!("step {}/{}: {}", report.step, self.total, self.text(report));
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
    fn the_time_left_forgets_the_first_step_and_ends_with_the_limit() {
        let mut bar = Bar::new();
        bar.start(10, 110);
        assert_eq!(bar.left(11, bar.began), None, "nothing is known yet");
        let first = bar.began + Duration::from_secs(50);
        bar.first = Some((first, 11));
        let now = first + Duration::from_secs(20);
        assert_eq!(bar.left(31, now), Some(Duration::from_secs(79)), "79 steps of a second");
        bar = bar.with_limit(Some(Duration::from_secs(100)));
        assert_eq!(bar.left(31, now), Some(Duration::from_secs(30)));
        assert_eq!(bar.left(31, now + Duration::from_secs(60)), Some(Duration::ZERO));
    }

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
