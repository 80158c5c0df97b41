//! The learning rate over a run: linear warm-up, then constant, cosine or plateau.

use serde::{Deserialize, Serialize};

use super::exact;
use super::range::in_range;
use crate::{Error, Result};

/// What happens after the warm-up. Factors are relative to the optimizer's learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Decay {
    /// Nothing.
    #[default]
    Constant,
    /// `floor + (1 - floor) · ½ (1 + cos π t)`, with `t` running from 0 to 1 until the last step
    /// (Loshchilov & Hutter 2017, equation 5, without restarts).
    Cosine {
        /// The factor at the end, in `[0, 1]`.
        floor: f64,
    },
    /// One until the step `start · steps`, then a straight line down to zero at the last step (PointFlow).
    Linear {
        /// Where the descent begins, as a share of the run in `[0, 1)`.
        start: f64,
    },
    /// Multiplies by `factor` whenever `patience` validations in a row were no better than the best.
    Plateau {
        /// In `(0, 1)`.
        factor: f64,
        /// At least 1.
        patience: u64,
        /// The smallest factor, in `[0, 1]`.
        floor: f64,
    },
}

/// A linear warm-up followed by a [`Decay`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Step `k` of the warm-up has the factor `(k + 1) / warmup_steps`.
    pub warmup_steps: u64,
    /// What comes after.
    pub decay: Decay,
}

impl ScheduleConfig {
    /// Warm-up, then constant.
    pub fn constant(warmup_steps: u64) -> Self {
        ScheduleConfig { warmup_steps, decay: Decay::Constant }
    }

    /// Warm-up, then a cosine down to `floor` times the learning rate at the last step.
    pub fn cosine(warmup_steps: u64, floor: f64) -> Self {
        ScheduleConfig { warmup_steps, decay: Decay::Cosine { floor } }
    }

    /// Warm-up, then constant for a share `start` of the run, then linearly to zero.
    pub fn linear(warmup_steps: u64, start: f64) -> Self {
        ScheduleConfig { warmup_steps, decay: Decay::Linear { start } }
    }

    /// Warm-up, then a cut by `factor` after every `patience` validations without progress.
    pub fn plateau(warmup_steps: u64, factor: f64, patience: u64) -> Self {
        ScheduleConfig { warmup_steps, decay: Decay::Plateau { factor, patience, floor: 0.0 } }
    }

    pub(super) fn is_plateau(&self) -> bool {
        matches!(self.decay, Decay::Plateau { .. })
    }

    /// Checks every field for a run of `steps`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field and the legal range.
    pub fn check(&self, steps: u64) -> Result<()> {
        let floor_is = |floor: f64| in_range("schedule.decay.floor", floor, (0.0..=1.0).contains(&floor), "in [0, 1]");
        match self.decay {
            Decay::Constant => Ok(()),
            Decay::Cosine { floor } if self.warmup_steps < steps => floor_is(floor),
            Decay::Cosine { .. } => {
                let reason = format!("is {}, must be less than steps ({steps})", self.warmup_steps);
                Err(Error::config("schedule.warmup_steps", reason))
            }
            Decay::Linear { start } => {
                in_range("schedule.decay.start", start, (0.0..1.0).contains(&start), "in [0, 1)")
            }
            Decay::Plateau { patience: 0, .. } => {
                Err(Error::config("schedule.decay.patience", "is 0, must be at least 1"))
            }
            Decay::Plateau { factor, floor, .. } => {
                in_range("schedule.decay.factor", factor, factor > 0.0 && factor < 1.0, "in (0, 1)")?;
                floor_is(floor)
            }
        }
    }
}

/// What a plateau schedule remembers between validations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleState {
    /// The product of all cuts so far.
    #[serde(with = "exact")]
    pub factor: f64,
    /// The best objective seen; `inf` before the first validation.
    #[serde(with = "exact")]
    pub best: f64,
    /// Validations since the best one or since the last cut.
    pub stale: u64,
}

impl Default for ScheduleState {
    fn default() -> Self {
        ScheduleState { factor: 1.0, best: f64::INFINITY, stale: 0 }
    }
}

/// The learning-rate factor of every step. A pure function of the step, but for plateaus.
#[derive(Debug, Clone)]
pub struct Schedule {
    config: ScheduleConfig,
    steps: u64,
    state: ScheduleState,
}

impl Schedule {
    /// A schedule over `steps` steps that continues from `state`.
    pub fn new(config: ScheduleConfig, steps: u64, state: ScheduleState) -> Self {
        Schedule { config, steps, state }
    }

    /// What must be saved.
    pub fn state(&self) -> &ScheduleState {
        &self.state
    }

    /// The factor of step `step`, counted from zero.
    pub fn factor(&self, step: u64) -> f64 {
        let warmup = self.config.warmup_steps;
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        match self.config.decay {
            Decay::Constant => 1.0,
            Decay::Cosine { floor } => {
                let last = self.steps.saturating_sub(1).saturating_sub(warmup).max(1);
                let t = ((step - warmup) as f64 / last as f64).min(1.0);
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
            }
            Decay::Linear { start } => {
                let last = self.steps.saturating_sub(1) as f64;
                let begin = start * self.steps as f64;
                ((last - step as f64) / (last - begin).max(1.0)).clamp(0.0, 1.0)
            }
            Decay::Plateau { .. } => self.state.factor,
        }
    }

    /// Tells the schedule the objective of a validation.
    pub fn observe(&mut self, objective: f64) {
        let Decay::Plateau { factor, patience, floor } = self.config.decay else { return };
        if objective < self.state.best {
            self.state.best = objective;
            self.state.stale = 0;
            return;
        }
        self.state.stale += 1;
        if self.state.stale >= patience {
            self.state.factor = (self.state.factor * factor).max(floor);
            self.state.stale = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(config: ScheduleConfig, steps: u64) -> Schedule {
        config.check(steps).unwrap();
        Schedule::new(config, steps, ScheduleState::default())
    }

    #[test]
    fn warms_up_linearly_then_stays() {
        let s = schedule(ScheduleConfig::constant(4), 10);
        let factors: Vec<f64> = (0..6).map(|k| s.factor(k)).collect();
        assert_eq!(factors, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
        assert_eq!(schedule(ScheduleConfig::default(), 10).factor(0), 1.0);
    }

    #[test]
    fn cosine_passes_through_known_points() {
        let s = schedule(ScheduleConfig::cosine(10, 0.2), 111);
        assert!((s.factor(10) - 1.0).abs() < 1e-12);
        assert!((s.factor(60) - 0.6).abs() < 1e-12, "half way");
        assert!((s.factor(110) - 0.2).abs() < 1e-12, "the last step is at the floor");
        assert!((s.factor(5000) - 0.2).abs() < 1e-12, "and stays there");
    }

    #[test]
    fn linear_is_flat_then_falls_to_zero() {
        let s = schedule(ScheduleConfig::linear(2, 0.5), 101);
        let factors: Vec<f64> = [0, 1, 2, 50, 75, 100, 900].iter().map(|&k| s.factor(k)).collect();
        let expected = [0.5, 1.0, 1.0, 1.0, 25.0 / 49.5, 0.0, 0.0];
        assert!(factors.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-12), "{factors:?}");
        assert!(ScheduleConfig::linear(0, 1.0).check(10).is_err());
    }

    #[test]
    fn plateau_cuts_after_patience_and_respects_the_floor() {
        let config = ScheduleConfig { warmup_steps: 0, decay: Decay::Plateau { factor: 0.5, patience: 2, floor: 0.2 } };
        let mut s = schedule(config, 100);
        let mut seen = Vec::new();
        for objective in [3.0, 2.0, 2.0, 2.5, 1.0, 1.5, f64::NAN, 1.0, 1.0, 1.0, 1.0] {
            s.observe(objective);
            seen.push(s.factor(7));
        }
        assert_eq!(seen, [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]);
        let text = serde_json::to_string(s.state()).unwrap();
        assert_eq!(&serde_json::from_str::<ScheduleState>(&text).unwrap(), s.state());
    }
}
