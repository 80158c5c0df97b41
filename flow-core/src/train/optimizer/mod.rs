//! Adam, AdamW and Adamax.
//!
//! The step is a function of parameters, gradients and a state that is plain data: two moments per
//! parameter, under the parameter's name, and the number of steps.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::fused::{self, FusedStep, HostMoments, StepConstants};
use super::range::in_range;
use crate::kernels::accepts;
use crate::param::{Param, ParamStore};
use crate::{Error, Gradients, Result};

/// An update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Kingma & Ba 2015, algorithm 1. Weight decay is added to the gradient's update as in AdamW.
    #[default]
    Adam,
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2), which spares tensors of rank 0 and
    /// 1: biases, scales, log-scales.
    AdamW,
    /// Kingma & Ba 2015, algorithm 2: the second moment is a decaying maximum. The choice of Glow's authors.
    Adamax,
}

/// A rule and its constants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The update rule.
    pub rule: Rule,
    /// The learning rate that the schedule's factors multiply.
    pub learning_rate: f64,
    /// Decay of the first moment, in `[0, 1)`.
    pub beta1: f64,
    /// Decay of the second moment, in `[0, 1)`.
    pub beta2: f64,
    /// Keeps the division finite.
    pub epsilon: f64,
    /// Decoupled weight decay `λ` of AdamW; the other rules want 0.
    pub weight_decay: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        OptimizerConfig {
            rule: Rule::Adam,
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        }
    }
}

impl OptimizerConfig {
    /// Adam with the authors' constants.
    pub fn adam(learning_rate: f64) -> Self {
        OptimizerConfig { learning_rate, ..Self::default() }
    }

    /// AdamW with the given decoupled weight decay.
    pub fn adamw(learning_rate: f64, weight_decay: f64) -> Self {
        OptimizerConfig { rule: Rule::AdamW, learning_rate, weight_decay, ..Self::default() }
    }

    /// Adamax with the authors' constants.
    pub fn adamax(learning_rate: f64) -> Self {
        OptimizerConfig { rule: Rule::Adamax, learning_rate, ..Self::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field and the legal range.
    pub fn check(&self) -> Result<()> {
        let lr = self.learning_rate;
        in_range("optimizer.learning_rate", lr, lr >= 0.0 && lr.is_finite(), "a finite number >= 0")?;
        in_range("optimizer.beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "in [0, 1)")?;
        in_range("optimizer.beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "in [0, 1)")?;
        let eps = self.epsilon;
        in_range("optimizer.epsilon", eps, eps > 0.0 && eps.is_finite(), "a finite number > 0")?;
        let decay = self.weight_decay;
        match self.rule {
            Rule::AdamW => {
                in_range("optimizer.weight_decay", decay, decay >= 0.0 && decay.is_finite(), "a finite number >= 0")
            }
            _ => in_range("optimizer.weight_decay", decay, decay == 0.0, "0 unless the rule is adamw"),
        }
    }

    /// The constants of step `t` (from 1) for a tensor of rank `rank`.
    fn constants(&self, learning_rate: f64, t: u64, rank: usize) -> StepConstants {
        let correction = |beta: f64| 1.0 - beta.powf(t as f64);
        let decay = if rank >= 2 { self.weight_decay } else { 0.0 };
        StepConstants {
            beta1: self.beta1,
            beta2: self.beta2,
            rate: learning_rate / correction(self.beta1),
            root_correction: correction(self.beta2).sqrt().recip(),
            epsilon: self.epsilon,
            keep: 1.0 - learning_rate * decay,
            maximum: self.rule == Rule::Adamax,
        }
    }
}

/// The two moments of one parameter.
#[derive(Debug, Clone)]
enum Moments {
    Host(HostMoments),
    Device(Tensor, Tensor),
}

impl Moments {
    fn from_tensors(m: &Tensor, v: &Tensor, fused: bool) -> Result<Self> {
        let flat = |t: &Tensor| t.flatten_all();
        Ok(match (m.dtype(), fused) {
            (DType::F32, true) => Moments::Host(HostMoments::F32(flat(m)?.to_vec1()?, flat(v)?.to_vec1()?)),
            (DType::F64, true) => Moments::Host(HostMoments::F64(flat(m)?.to_vec1()?, flat(v)?.to_vec1()?)),
            _ => Moments::Device(m.detach(), v.detach()),
        })
    }

    fn to_tensors(&self, shape: &[usize]) -> Result<(Tensor, Tensor)> {
        let cpu = &Device::Cpu;
        Ok(match self {
            Moments::Host(HostMoments::F32(m, v)) => {
                (Tensor::from_slice(m, shape, cpu)?, Tensor::from_slice(v, shape, cpu)?)
            }
            Moments::Host(HostMoments::F64(m, v)) => {
                (Tensor::from_slice(m, shape, cpu)?, Tensor::from_slice(v, shape, cpu)?)
            }
            Moments::Device(m, v) => (m.clone(), v.clone()),
        })
    }
}

/// An update rule together with its state.
///
/// With gradient `g`, bias corrections `c₁ = 1 - β₁ᵗ`, `c₂ = 1 - β₂ᵗ` and learning rate `η`:
///
/// - Adam, AdamW: `m ← β₁ m + (1-β₁) g`, `v ← β₂ v + (1-β₂) g²`, `p ← (1 - ηλ) p - η/c₁ · m / (√(v/c₂) + ε)`
/// - Adamax: `m` likewise, `v ← max(β₂ v, |g|)`, `p ← p - η/c₁ · m / (v + ε)`
///
/// A parameter that received no gradient is treated as having the gradient zero, so that single-process
/// and data-parallel training agree.
#[derive(Debug, Clone)]
pub struct Optimizer {
    config: OptimizerConfig,
    params: Vec<Param>,
    moments: Vec<Moments>,
    steps: u64,
}

/// Name of the step counter in `optimizer.safetensors`.
const STEPS: &str = "steps";

impl Optimizer {
    /// Zero moments for all trainable parameters that `store` holds now.
    ///
    /// On the CPU, f32 and f64 parameters are updated by a fused kernel, elsewhere by Candle operations. The kernel counts a
    /// first moment below 1e-30 in f32 (1e-250 in f64) as zero, and with it a second one below 1e-36 (1e-300), before they
    /// become subnormal numbers, which are slow.
    pub fn new(config: OptimizerConfig, store: &ParamStore) -> Result<Self> {
        Self::with_kernel(config, store, true)
    }

    /// As [`Optimizer::new`], but in composed Candle operations on every device: the specification.
    pub fn composed(config: OptimizerConfig, store: &ParamStore) -> Result<Self> {
        Self::with_kernel(config, store, false)
    }

    fn with_kernel(config: OptimizerConfig, store: &ParamStore, fused: bool) -> Result<Self> {
        config.check()?;
        let params = store.trainable();
        let zeros = |p: &Param| {
            let zero = p.var().zeros_like()?.detach();
            Moments::from_tensors(&zero, &zero.copy()?, fused && accepts(p.var()))
        };
        let moments = params.iter().map(zeros).collect::<Result<_>>()?;
        Ok(Optimizer { config, params, moments, steps: 0 })
    }

    /// Number of updates so far, `t`.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One update of all parameters; `factor` multiplies the configured learning rate.
    ///
    /// # Errors
    /// [`Error::Config`] when `gradients` belong to a store with other parameters.
    pub fn step(&mut self, gradients: &Gradients, factor: f64) -> Result<()> {
        if gradients.iter().count() != self.params.len() {
            return Err(Error::config("optimizer", "the gradients belong to another model"));
        }
        self.steps += 1;
        let learning_rate = self.config.learning_rate * factor;
        for ((param, moments), (_, gradient)) in self.params.iter().zip(&mut self.moments).zip(gradients.iter()) {
            let constants = self.config.constants(learning_rate, self.steps, param.var().rank());
            let gradient = match gradient {
                Some(g) => g.clone(),
                None => param.var().zeros_like()?.detach(),
            };
            match moments {
                Moments::Host(host) => {
                    let op = FusedStep { constants, moments: RefCell::new(host) };
                    fused::apply(param.var().as_tensor(), &gradient, &op)?;
                }
                Moments::Device(m, v) => step_composed(param, &gradient, m, v, &constants)?,
            }
        }
        Ok(())
    }

    /// The state by name: `first/NAME`, `second/NAME` and `steps`.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (param, moments) in self.params.iter().zip(&self.moments) {
            let (first, second) = moments.to_tensors(param.var().dims())?;
            state.insert(format!("first/{}", param.name()), first);
            state.insert(format!("second/{}", param.name()), second);
        }
        state.insert(STEPS.into(), Tensor::new(&[self.steps as i64], &Device::Cpu)?);
        Ok(state)
    }

    /// Continues from a state returned by [`Optimizer::state`].
    ///
    /// # Errors
    /// [`Error::Config`] naming the first missing, misshapen or unexpected entry; nothing is changed then.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let expected = 2 * self.params.len() + 1;
        if state.len() != expected {
            let reason = format!("has {} tensors, the model's has {expected}", state.len());
            return Err(Error::config("optimizer state", reason));
        }
        let entry = |kind: &str, param: &Param| {
            let name = format!("{kind}/{}", param.name());
            let found =
                state.get(&name).ok_or_else(|| Error::config("optimizer state", format!("'{name}' is missing")))?;
            if found.dims() != param.var().dims() || found.dtype() != param.var().dtype() {
                let (dims, dtype) = (found.dims(), found.dtype());
                let wanted = format!("{:?} {:?}", param.var().dims(), param.var().dtype());
                let reason = format!("'{name}' is {dims:?} {dtype:?}, the model wants {wanted}");
                return Err(Error::config("optimizer state", reason));
            }
            Ok(found.to_device(param.var().device())?)
        };
        let restored = self.params.iter().zip(&self.moments).map(|(param, old)| {
            let fused = matches!(old, Moments::Host(_));
            Moments::from_tensors(&entry("first", param)?, &entry("second", param)?, fused)
        });
        let restored = restored.collect::<Result<_>>()?;
        let steps = state.get(STEPS).and_then(|t| t.to_vec1::<i64>().ok()).and_then(|t| t.first().copied());
        let steps = steps.and_then(|t| u64::try_from(t).ok());
        self.steps = steps.ok_or_else(|| Error::config("optimizer state", "'steps' is not one i64 >= 0"))?;
        self.moments = restored;
        Ok(())
    }
}

/// The update in Candle's own operations: the specification of the fused kernel, and the path for GPUs.
fn step_composed(param: &Param, g: &Tensor, m: &mut Tensor, v: &mut Tensor, c: &StepConstants) -> Result<()> {
    *m = (m.affine(c.beta1, 0.0)? + g.affine(1.0 - c.beta1, 0.0)?)?.detach();
    let root = if c.maximum {
        *v = v.affine(c.beta2, 0.0)?.maximum(&g.abs()?)?.detach();
        v.clone()
    } else {
        *v = (v.affine(c.beta2, 0.0)? + g.sqr()?.affine(1.0 - c.beta2, 0.0)?)?.detach();
        v.sqrt()?.affine(c.root_correction, 0.0)?
    };
    let update = (m.affine(c.rate, 0.0)? / (root + c.epsilon)?)?;
    param.set(&(param.var().as_detached_tensor().affine(c.keep, 0.0)? - update)?)
}

#[cfg(test)]
mod tests;
