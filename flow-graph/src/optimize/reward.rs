//! What a molecule is worth.

use serde::{Deserialize, Serialize};

use crate::molecule::Molecule;

/// A property to be raised.
///
/// A value that is not finite counts as the worst of its batch.
pub trait Reward: Send + Sync {
    /// The property's name, for logs.
    fn name(&self) -> &str;

    /// The property of a valid molecule.
    fn property(&self, molecule: &Molecule) -> f64;
}

/// How a property becomes a reward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Shaping {
    /// `property / scale`.
    Linear {
        /// What counts as one.
        scale: f64,
    },
    /// `exp(property / scale)`: what is already good is worth most to improve (section 4.3; scale 3 for
    /// penalised logP in the reference implementation).
    Exponential {
        /// What multiplies the reward by e.
        scale: f64,
    },
}

impl Shaping {
    /// The reward of a property; never more than `exp(20)`.
    pub fn apply(self, property: f64) -> f64 {
        match self {
            Shaping::Linear { scale } => property / scale,
            Shaping::Exponential { scale } => (property / scale).min(20.0).exp(),
        }
    }
}
