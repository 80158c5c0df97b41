//! The hyper-parameters of a training run.

use serde::{Deserialize, Serialize};

use super::ema::EmaConfig;
use super::optimizer::OptimizerConfig;
use super::range::in_range;
use super::schedule::ScheduleConfig;
use crate::{Error, Result};

/// Everything that the engine can be told. Serialised into `config.json` of every checkpoint.
///
/// An interval of `None` means "never". Missing fields take their defaults, unknown ones are refused.
///
/// ```
/// use flow_core::train::{OptimizerConfig, TrainConfig};
///
/// # fn main() -> flow_core::Result<()> {
/// let config = TrainConfig { steps: 500, optimizer: OptimizerConfig::adam(1e-3), ..TrainConfig::default() };
/// config.check()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Number of steps of the whole run, resumed parts included.
    pub steps: u64,
    /// The update rule and its constants.
    pub optimizer: OptimizerConfig,
    /// How the learning rate changes over the run.
    pub schedule: ScheduleConfig,
    /// The largest global norm of the gradient; larger ones are scaled down to it.
    pub clip_norm: Option<f64>,
    /// The running average of the weights, used for validation and previews.
    pub ema: Option<EmaConfig>,
    /// Seed of the run's generator.
    pub seed: u64,
    /// Steps between validations.
    pub validate_every: Option<u64>,
    /// Steps between checkpoints; one is written at the end of the run in any case.
    pub checkpoint_every: Option<u64>,
    /// How many of the latest checkpoints are kept, besides the best.
    pub keep_last: usize,
    /// Stop after this many validations in a row without a new best.
    pub early_stop_patience: Option<u64>,
    /// Steps between previews.
    pub preview_every: Option<u64>,
    /// Give up after this many non-finite steps in a row.
    pub max_non_finite: u64,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Bytes of gradients that several ranks sum at a time, at most an eighth of them where that is not very little: a bucket is full
    /// with the parameter that reaches it.
    #[serde(skip_serializing_if = "is_default_bucket")]
    pub bucket_bytes: usize,
    /// Whether several ranks sum gradients while others are still being made, where their channel allows it.
    #[serde(skip_serializing_if = "is_true")]
    pub overlap: bool,
}

/// Large enough for the wires to be busy, small enough to be copied in the cache's neighbourhood.
const BUCKET: usize = 25_000_000;

fn is_true(on: &bool) -> bool {
    *on
}

fn is_default_bucket(bytes: &usize) -> bool {
    *bytes == BUCKET
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            steps: 10_000,
            optimizer: OptimizerConfig::default(),
            schedule: ScheduleConfig::default(),
            clip_norm: None,
            ema: None,
            seed: 0,
            validate_every: Some(1000),
            checkpoint_every: Some(1000),
            keep_last: 2,
            early_stop_patience: None,
            preview_every: None,
            max_non_finite: 10,
            log_every: 10,
            bucket_bytes: BUCKET,
            overlap: true,
        }
    }
}

impl TrainConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and the legal range.
    pub fn check(&self) -> Result<()> {
        at_least_one("steps", Some(self.steps))?;
        at_least_one("validate_every", self.validate_every)?;
        at_least_one("checkpoint_every", self.checkpoint_every)?;
        at_least_one("keep_last", Some(self.keep_last as u64))?;
        at_least_one("early_stop_patience", self.early_stop_patience)?;
        at_least_one("preview_every", self.preview_every)?;
        at_least_one("max_non_finite", Some(self.max_non_finite))?;
        at_least_one("log_every", Some(self.log_every))?;
        at_least_one("bucket_bytes", Some(self.bucket_bytes as u64))?;
        if let Some(norm) = self.clip_norm {
            in_range("clip_norm", norm, norm > 0.0 && norm.is_finite(), "a finite number > 0")?;
        }
        if self.validate_every.is_none() && (self.early_stop_patience.is_some() || self.schedule.is_plateau()) {
            let reason = "must be set: early stop and the plateau schedule look at validations";
            return Err(Error::config("validate_every", reason));
        }
        self.optimizer.check()?;
        self.schedule.check(self.steps)?;
        self.ema.as_ref().map_or(Ok(()), EmaConfig::check)
    }

    /// The fields that shape the path of the weights; a resumed run must agree on them.
    ///
    /// The rest (how long, how often to look, how much to keep) may change from one part of a run to the
    /// next.
    pub(super) fn binding(&self) -> serde_json::Result<serde_json::Value> {
        Ok(serde_json::json!({
            "optimizer": serde_json::to_value(&self.optimizer)?,
            "schedule": serde_json::to_value(&self.schedule)?,
            "clip_norm": self.clip_norm,
            "ema": serde_json::to_value(&self.ema)?,
            "seed": self.seed,
        }))
    }
}

/// Whether `step` is a multiple of an interval that is set.
pub(super) fn due(every: Option<u64>, step: u64) -> bool {
    every.is_some_and(|n| step.is_multiple_of(n))
}

fn at_least_one(field: &str, value: Option<u64>) -> Result<()> {
    match value {
        Some(0) => Err(Error::config(field, "is 0, must be at least 1")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_field_and_the_range() {
        let base = TrainConfig::default();
        let cases = [
            (TrainConfig { steps: 0, ..base.clone() }, "steps: is 0, must be at least 1"),
            (TrainConfig { clip_norm: Some(f64::NAN), ..base.clone() }, "clip_norm: is NaN"),
            (TrainConfig { optimizer: OptimizerConfig::adam(-1.0), ..base.clone() }, "optimizer.learning_rate: is -1"),
            (TrainConfig { ema: Some(EmaConfig { decay: 1.0 }), ..base.clone() }, "ema.decay: is 1, must be in [0, 1)"),
            (
                TrainConfig { validate_every: None, early_stop_patience: Some(3), ..base.clone() },
                "validate_every: must be set",
            ),
            (
                TrainConfig { schedule: ScheduleConfig::cosine(20_000, 0.1), ..base.clone() },
                "schedule.warmup_steps: is 20000",
            ),
        ];
        base.check().unwrap();
        for (config, expected) in cases {
            let message = config.check().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn survives_json_and_refuses_unknown_fields() {
        let config = TrainConfig {
            schedule: ScheduleConfig::cosine(100, 0.01),
            ema: Some(EmaConfig { decay: 0.999 }),
            clip_norm: Some(50.0),
            ..TrainConfig::default()
        };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TrainConfig>(&text).unwrap(), config);
        for text in
            [r#"{"stepz": 3}"#, r#"{"optimizer": {"lr": 3}}"#, r#"{"schedule": {"decay": {"kind": "cosinus"}}}"#]
        {
            assert!(serde_json::from_str::<TrainConfig>(text).is_err(), "{text}");
        }
    }
}
