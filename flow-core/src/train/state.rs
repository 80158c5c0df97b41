//! The small part of a checkpoint: everything that a run remembers besides its tensors.

use serde::{Deserialize, Serialize};

use super::exact;
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

    /// The state before the first step of a run with this seed.
    pub fn fresh(seed: u64, data: serde_json::Value) -> Self {
        RunState {
            step: 0,
            rng: FlowRng::named(seed, "training"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_json_to_the_bit() {
        let mut state = RunState::fresh(0, serde_json::json!({"index": 7}));
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<RunState>(&text).unwrap(), state, "infinity");
        for i in 0..1000 {
            state.rng.next_uniform();
            state.best = (f64::from(i) - 500.3).exp() / 3.0;
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<RunState>(&text).unwrap(), state);
        }
    }

    #[test]
    fn a_validation_out_of_turn_is_not_held_against_the_scheduled_ones() {
        let mut state = RunState::fresh(0, serde_json::Value::Null);
        assert!(state.judge(3.0, true));
        assert!(!state.judge(4.0, true));
        assert_eq!((state.best, state.stale_validations, state.best_scheduled), (3.0, 1, None));
        // Better, but by the way: it is the best, and what a scheduled one has to beat is still 3.
        assert!(state.judge(1.0, false));
        assert_eq!((state.best, state.stale_validations, state.to_beat()), (1.0, 1, 3.0));
        assert!(!state.judge(2.0, true), "not the best");
        assert_eq!((state.stale_validations, state.to_beat()), (0, 2.0), "but progress");
        assert!(!state.judge(f64::NAN, true));
        assert_eq!((state.best, state.stale_validations), (1.0, 1));
        assert!(state.judge(0.5, true));
        assert_eq!((state.best, state.best_scheduled), (0.5, None));
    }
}
