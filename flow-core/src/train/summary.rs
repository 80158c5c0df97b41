//! How a run ended.

use super::metrics::Metrics;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Finished steps.
    pub step: u64,
    /// Whether it was asked to stop before its end; resume it to go on.
    pub interrupted: bool,
    /// Whether early stop ended it.
    pub stopped_early: bool,
    /// The best objective of a validation and its step.
    pub best: Option<(f64, u64)>,
    /// Metrics of the last step of this part of the run, if it took one.
    pub train: Option<Metrics>,
    /// Metrics of the last validation of this part of the run.
    pub validation: Option<Metrics>,
    /// Non-finite steps that were skipped.
    pub skipped: u64,
    /// Seconds spent in training steps, earlier parts of the run included.
    pub seconds: f64,
}
