//! Molecules with better properties: fine-tuning by policy gradients, and constrained optimisation.

mod constrained;
mod ppo;
mod reward;
mod task;

pub use constrained::{ConstrainedOptions, Improvement, THRESHOLDS, improve};
pub use ppo::{PolicyReport, PpoConfig};
pub use reward::{Reward, Shaping};
pub use task::{PolicyTask, Ranked};
