//! The learning curve of a fit.

use serde::Serialize;

use crate::train::metrics::Metrics;
use crate::train::progress::{Progress, StepReport};
use crate::train::summary::Summary;

/// A point of a learning curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CurvePoint {
    /// Finished steps.
    pub step: u64,
    /// Mean loss of the steps since the last point, in nats.
    pub loss: f64,
    /// The loss of the held-out rows in nats, where they were scored at this step.
    pub validation: Option<f64>,
}

/// Draws the learning curve of a run, and passes on what it sees.
pub struct CurveRecorder<'a> {
    every: u64,
    shown: Option<Box<dyn Progress + 'a>>,
    curve: Vec<CurvePoint>,
    /// Losses since the last point and their number.
    sum: (f64, u64),
}

impl<'a> CurveRecorder<'a> {
    /// A point after every so many steps, and one for each validation; `shown` sees the run as well.
    pub fn new(every: u64, shown: Option<Box<dyn Progress + 'a>>) -> Self {
        CurveRecorder { every: every.max(1), shown, curve: Vec::new(), sum: (0.0, 0) }
    }

    /// The curve, the steps since its last point being those up to `step`.
    pub fn finish(mut self, step: u64) -> Vec<CurvePoint> {
        self.close(step);
        self.curve
    }

    /// Ends the point of the steps since the last one.
    fn close(&mut self, step: u64) {
        let (sum, count) = std::mem::take(&mut self.sum);
        if count > 0 {
            self.curve.push(CurvePoint { step, loss: sum / count as f64, validation: None });
        }
    }
}

impl Progress for CurveRecorder<'_> {
    fn start(&mut self, done: u64, total: u64) {
        if let Some(shown) = &mut self.shown {
            shown.start(done, total);
        }
    }

    fn step(&mut self, report: &StepReport<'_>) {
        let loss = report.metrics.objective.value;
        if loss.is_finite() {
            self.sum = (self.sum.0 + loss, self.sum.1 + 1);
        }
        if report.step.is_multiple_of(self.every) {
            self.close(report.step);
        }
        if let Some(shown) = &mut self.shown {
            shown.step(report);
        }
    }

    fn validation(&mut self, step: u64, metrics: &Metrics, best: f64) {
        self.close(step);
        if let Some(last) = self.curve.last_mut().filter(|point| point.step == step) {
            last.validation = Some(metrics.objective.value);
        }
        if let Some(shown) = &mut self.shown {
            shown.validation(step, metrics, best);
        }
    }

    fn note(&mut self, message: &str) {
        if let Some(shown) = &mut self.shown {
            shown.note(message);
        }
    }

    fn finish(&mut self, summary: &Summary) {
        if let Some(shown) = &mut self.shown {
            shown.finish(summary);
        }
    }
}
