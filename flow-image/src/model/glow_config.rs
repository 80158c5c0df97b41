//! Hyper-parameters of Glow.

use flow_core::nn::HiddenActivation;
use serde::{Deserialize, Serialize};

use crate::data::is_default;

/// The coupling of a Glow step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GlowCoupling {
    /// `z₂ = x₂ + NN(x₁)`: cheaper, and its samples look better at few bits.
    Additive,
    /// `z₂ = (x₂ + t) · sigmoid(s + 2)`: better bits/dim.
    #[default]
    Affine,
}

/// How a Glow step mixes channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GlowPermutation {
    /// An invertible 1×1 convolution as `P L (U + diag s)`: the log-determinant is a sum.
    #[default]
    Plu,
    /// An invertible 1×1 convolution with a free matrix.
    Full,
    /// An orthogonal 1×1 convolution, a product of Householder reflections.
    Householder,
    /// Channels in reverse order (the paper's first ablation).
    Reverse,
    /// A fixed random order (the paper's second ablation).
    Shuffle,
}

/// Glow (Kingma & Dhariwal 2018): `levels × (squeeze, steps × (actnorm, permutation, coupling), split)`.
///
/// Needs an image whose sides can be halved `levels` times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GlowConfig {
    /// `L`, the number of scales.
    pub levels: usize,
    /// `K`, steps per level.
    pub steps: usize,
    /// Hidden channels of the coupling networks.
    pub width: usize,
    /// The coupling.
    pub coupling: GlowCoupling,
    /// The second hidden layer of the coupling networks; gates are VideoFlow's.
    #[serde(skip_serializing_if = "is_default")]
    pub activation: HiddenActivation,
    /// The mixing of channels.
    pub permutation: GlowPermutation,
    /// Whether the top prior's mean and scale are learned.
    pub learn_top: bool,
    /// Number of classes of a conditional model.
    pub class_condition: Option<usize>,
    /// Weight of the classification loss of a conditional model, relative to bits/dim.
    pub class_weight: f64,
}

impl GlowConfig {
    /// `levels` scales of `steps` steps with `width` hidden channels, everything else as in the paper's CIFAR-10 model.
    pub fn new(levels: usize, steps: usize, width: usize) -> Self {
        GlowConfig { levels, steps, width, ..GlowConfig::default() }
    }
}

impl Default for GlowConfig {
    /// The paper's CIFAR-10 model.
    fn default() -> Self {
        GlowConfig {
            levels: 3,
            steps: 32,
            width: 512,
            coupling: GlowCoupling::Affine,
            activation: HiddenActivation::Relu,
            permutation: GlowPermutation::Plu,
            learn_top: true,
            class_condition: None,
            class_weight: 0.01,
        }
    }
}
