//! Molecules with better properties: fine-tuning by policy gradients, and constrained optimisation.

mod constrained;
mod ppo;
#[cfg(feature = "chem")]
mod properties;
mod reward;
mod shared;
mod task;

pub use constrained::{ConstrainedOptions, Improvement, THRESHOLDS, improve};
pub use ppo::{PolicyReport, PpoConfig};
#[cfg(feature = "chem")]
pub use properties::{PenalizedLogP, Qed};
pub use reward::{Reward, Shaping};
pub use task::{PolicyTask, Ranked};

#[cfg(test)]
mod tests;
