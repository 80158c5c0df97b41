//! The small part of a checkpoint: everything that a run remembers besides its tensors.

use serde::{Deserialize, Serialize};

use super::config::TrainConfig;
use super::guard::NonFiniteGuard;
use super::schedule::ScheduleState;
use crate::FlowRng;

/// `state.json`: with the tensors, all that the next step depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Finished steps.
    pub step: u64,
    /// The run's generator.
    pub rng: FlowRng,
    /// What the learning-rate schedule remembers.
    pub schedule: ScheduleState,
    /// Number of updates in the average of the weights.
    pub ema_updates: u64,
    /// The best objective of a validation so far; `inf` before the first.
    #[serde(with = "exact")]
    pub best: f64,
    /// The step of the best validation.
    pub best_step: u64,
    /// Validations in a row without a new best.
    pub stale_validations: u64,
    /// The best objective of a validation that the schedule asked for; absent where there was no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_scheduled: Option<Scheduled>,
    /// The step of the last validation.
    #[serde(default)]
    pub validated: u64,
    /// Counters of non-finite steps.
    pub non_finite: NonFiniteGuard,
    /// Seconds of training so far.
    #[serde(with = "exact")]
    pub seconds: f64,
    /// The task's own position in its data.
    pub data: serde_json::Value,
}

/// An objective, to the bit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scheduled(#[serde(with = "exact")] pub f64);

impl RunState {
    /// The objective that a scheduled validation has to beat.
    pub fn to_beat(&self) -> f64 {
        self.best_scheduled.map_or(self.best, |Scheduled(objective)| objective)
    }

    /// The best objective of a validation and its step.
    pub fn best_so_far(&self) -> Option<(f64, u64)> {
        self.best.is_finite().then_some((self.best, self.best_step))
    }

    /// Takes note of a validation with this objective, and returns whether it is the best so far.
    ///
    /// Patience counts scheduled validations only, against the best of their own kind: a validation out of turn (of a
    /// run that was stopped) may find the best weights, and must not change how a resumed run goes on.
    pub(super) fn judge(&mut self, objective: f64, scheduled: bool) -> bool {
        let to_beat = self.to_beat();
        if scheduled {
            self.stale_validations = if objective < to_beat { 0 } else { self.stale_validations + 1 };
        }
        let best_scheduled = if scheduled { objective.min(to_beat) } else { to_beat };
        let improved = objective < self.best;
        if improved {
            (self.best, self.best_step) = (objective, self.step);
        }
        // Kept only where it differs: most runs are never validated out of turn.
        self.best_scheduled = Some(Scheduled(best_scheduled)).filter(|Scheduled(best)| *best != self.best);
        self.validated = self.step;
        improved
    }

    /// The state before the first step.
    pub fn fresh(config: &TrainConfig, data: serde_json::Value) -> Self {
        RunState {
            step: 0,
            rng: FlowRng::named(config.seed, "training"),
            schedule: ScheduleState::default(),
            ema_updates: 0,
            best: f64::INFINITY,
            best_step: 0,
            stale_validations: 0,
            best_scheduled: None,
            validated: 0,
            non_finite: NonFiniteGuard::new(),
            seconds: 0.0,
            data,
        }
    }
}

/// Floats as decimal strings: JSON numbers cannot hold infinities and may lose the last bit when read.
pub(super) mod exact {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::train) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(in crate::train) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_json_to_the_bit() {
        let mut state = RunState::fresh(&TrainConfig::default(), serde_json::json!({"index": 7}));
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<RunState>(&text).unwrap(), state, "infinity");
        for i in 0..1000 {
            state.rng.next_uniform();
            state.best = (f64::from(i) - 500.3).exp() / 3.0;
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<RunState>(&text).unwrap(), state);
        }
    }
}
