//! The multi-layer perceptron, conditioner of couplings over vectors.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{Conditioner, Linear};
use crate::bijector::{check_batch_as, check_context};
use crate::param::{Init, ParamPath};
use crate::{Error, Result};

/// A nonlinearity, applied entry by entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Activation {
    /// `max(x, 0)`.
    #[default]
    Relu,
    /// `tanh x`.
    Tanh,
    /// `x · sigmoid(x)`.
    Silu,
}

impl Activation {
    /// The activation of every entry of `x`.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            // Candle's `relu` turns NaN into zero, so that a diverged network looks healthy.
            Activation::Relu => x.maximum(0.0)?,
            Activation::Tanh => x.tanh()?,
            Activation::Silu => x.silu()?,
        })
    }

    /// The start of a layer of `inputs` inputs before this activation: uniform entries of variance
    /// `2/I`, half of a rectifier's signal being lost (He et al. 2015), or `1/I` for the hyperbolic tangent.
    pub(crate) fn init(self, inputs: usize) -> Init {
        let variance = match self {
            Activation::Relu | Activation::Silu => 2.0,
            Activation::Tanh => 1.0,
        } / inputs.max(1) as f64;
        Init::Uniform((3.0 * variance).sqrt())
    }
}

/// The hidden part of an [`Mlp`] or of a [`Made`](super::Made): what a configuration file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MlpConfig {
    /// The widths of the hidden layers, input side first.
    pub hidden: Vec<usize>,
    /// The nonlinearity after each hidden layer.
    #[serde(default)]
    pub activation: Activation,
    /// The length of the context vector, `None` without context.
    #[serde(default)]
    pub context: Option<usize>,
    /// Weights of the last layer start uniform in `± output_bound`. At zero, the default, a fresh
    /// network returns zero and a fresh flow layer is the one that its transformer makes of zeros.
    #[serde(default)]
    pub output_bound: f64,
    /// How many waves of each input an [`Mlp`] sees beside it, none at zero: see there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waves: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl MlpConfig {
    /// Rectified hidden layers of these widths, without context, the last layer starting at zero.
    pub fn new(hidden: &[usize]) -> Self {
        MlpConfig { hidden: hidden.to_vec(), activation: Activation::Relu, context: None, output_bound: 0.0, waves: 0 }
    }

    /// The same with another nonlinearity.
    #[must_use]
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The same with a context vector of this length, or none.
    #[must_use]
    pub fn context(mut self, context: impl Into<Option<usize>>) -> Self {
        self.context = context.into();
        self
    }

    /// The same with a last layer that starts uniform in `± bound`.
    #[must_use]
    pub fn output_bound(mut self, bound: f64) -> Self {
        self.output_bound = bound;
        self
    }

    /// The same with so many waves of each input.
    #[must_use]
    pub fn waves(mut self, waves: usize) -> Self {
        self.waves = waves;
        self
    }

    /// The length of the context as a shape.
    pub(super) fn context_shape(&self) -> Option<&[usize]> {
        self.context.as_ref().map(std::slice::from_ref)
    }

    /// How the last layer starts.
    pub(super) fn output_init(&self) -> Init {
        if self.output_bound == 0.0 { Init::Const(0.0) } else { Init::Uniform(self.output_bound) }
    }

    pub(super) fn check(&self, name: &str) -> Result<()> {
        if self.hidden.contains(&0) {
            return Err(Error::config(format!("{name} hidden widths"), format!("{:?} contains zero", self.hidden)));
        }
        if self.context == Some(0) {
            return Err(Error::config(format!("{name} context"), "has no entries; leave it out instead"));
        }
        if !(self.output_bound.is_finite() && self.output_bound >= 0.0) {
            let reason = format!("is {}, a finite number of at least 0 is needed", self.output_bound);
            return Err(Error::config(format!("{name} output bound"), reason));
        }
        Ok(())
    }
}

/// `h_{i+1} = a(h_i W_i + b_i)` from the input with the context appended; the last layer is linear and
/// starts as [`MlpConfig::output_bound`] says.
///
/// With [`MlpConfig::waves`] the input is joined by `sin(jπx/8)` and `cos(jπx/8)` of each of its entries, `j = 1, 2, …`, before
/// the context: Fourier features (Tancik et al. 2020, arXiv 2006.10739), with which a network of few units learns functions
/// that bend often, as it does not without.
///
/// # Shapes
/// - `x`: `(B, I)`; `context`: `(B, K)`; output `(B, O)`.
#[derive(Debug)]
pub struct Mlp {
    inputs: usize,
    config: MlpConfig,
    /// The frequencies of the waves, `(1, 1, waves)`.
    frequencies: Option<Tensor>,
    layers: Vec<Linear>,
}

/// The longest wave of an input.
const LONGEST: f64 = 16.0;

impl Mlp {
    /// A network from `inputs` to `outputs` numbers with parameters `0.weight`, `0.bias`, … under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] for a hidden layer without units, or with neither inputs nor context.
    pub fn new(path: &ParamPath, inputs: usize, outputs: usize, config: &MlpConfig) -> Result<Self> {
        config.check("mlp")?;
        let mut width = inputs * (1 + 2 * config.waves) + config.context.unwrap_or(0);
        if width == 0 {
            return Err(Error::config("mlp", "needs at least one input or context entry"));
        }
        let mut layers = Vec::with_capacity(config.hidden.len() + 1);
        for (i, &hidden) in config.hidden.iter().enumerate() {
            layers.push(Linear::new(&path.pp(i), width, hidden, config.activation.init(width), true)?);
            width = hidden;
        }
        layers.push(Linear::new(&path.pp(config.hidden.len()), width, outputs, config.output_init(), true)?);
        let frequencies = match config.waves {
            0 => None,
            waves => {
                let all: Vec<f64> = (1..=waves).map(|j| std::f64::consts::TAU * j as f64 / LONGEST).collect();
                let all = Tensor::from_vec(all, (1, 1, waves), &Device::Cpu)?;
                Some(all.to_dtype(path.store().dtype())?.to_device(path.store().device())?)
            }
        };
        Ok(Mlp { inputs, config: config.clone(), frequencies, layers })
    }

    /// The input with its waves.
    fn with_waves(&self, x: &Tensor) -> Result<Tensor> {
        let Some(frequencies) = &self.frequencies else { return Ok(x.clone()) };
        let phases = x.unsqueeze(2)?.broadcast_mul(frequencies)?.flatten_from(1)?;
        Ok(Tensor::cat(&[x, &phases.sin()?, &phases.cos()?], 1)?)
    }
}

impl Conditioner for Mlp {
    fn context_shape(&self) -> Option<&[usize]> {
        self.config.context_shape()
    }

    fn forward(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let dtype = self.layers[0].dtype();
        let batch = check_batch_as("mlp", x, &[self.inputs], dtype)?;
        let mut h = match self.config.context {
            None => self.with_waves(x)?,
            Some(k) => Tensor::cat(&[&self.with_waves(x)?, check_context("mlp", context, batch, &[k], dtype)?], 1)?,
        };
        for (i, layer) in self.layers.iter().enumerate() {
            let hidden = i + 1 < self.layers.len();
            h = layer.activated(&h, hidden.then_some(self.config.activation))?;
        }
        Ok(h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlowRng;
    use crate::testing::numbers::{normal, store64, values};
    use crate::testing::randomise;

    #[test]
    fn starts_at_zero_and_then_depends_on_input_and_context() {
        let store = store64(2);
        let net = Mlp::new(&store.root(), 3, 4, &MlpConfig::new(&[8, 8]).context(2)).unwrap();
        let (x, c) = (normal(1, &[5, 3]), normal(2, &[5, 2]));
        assert!(values(&net.forward(&x, Some(&c)).unwrap()).iter().all(|&v| v == 0.0));
        randomise(&store, 0.5, &mut FlowRng::seed_from(1)).unwrap();
        let y = net.forward(&x, Some(&c)).unwrap();
        assert_eq!(y.dims(), [5, 4]);
        assert!(values(&(&y - net.forward(&normal(3, &[5, 3]), Some(&c)).unwrap()).unwrap()).iter().all(|&v| v != 0.0));
        assert!(values(&(&y - net.forward(&x, Some(&normal(4, &[5, 2]))).unwrap()).unwrap()).iter().all(|&v| v != 0.0));
    }

    #[test]
    fn waves_of_the_input_are_seen() {
        let store = store64(5);
        let config = MlpConfig::new(&[3]).activation(Activation::Tanh).context(1).waves(2);
        let net = Mlp::new(&store.root(), 2, 1, &config).unwrap();
        randomise(&store, 0.5, &mut FlowRng::seed_from(1)).unwrap();
        let (x, c) = (normal(1, &[4, 2]), normal(2, &[4, 1]));
        let joined = |x: &[f64], c: f64| -> Vec<f64> {
            let phases = x.iter().flat_map(|x| [1.0, 2.0].map(|j| j * std::f64::consts::PI / 8.0 * x));
            let phases: Vec<f64> = phases.collect();
            let waves = phases.iter().map(|p| p.sin()).chain(phases.iter().map(|p| p.cos()));
            x.iter().copied().chain(waves).chain([c]).collect()
        };
        let rows: Vec<f64> = values(&x).chunks(2).zip(values(&c)).flat_map(|(x, c)| joined(x, c)).collect();
        let rows = Tensor::from_vec(rows, (4, 11), &Device::Cpu).unwrap();
        let mut h = rows;
        for (i, layer) in net.layers.iter().enumerate() {
            h = layer.activated(&h, (i == 0).then_some(Activation::Tanh)).unwrap();
        }
        let difference = (net.forward(&x, Some(&c)).unwrap() - h).unwrap().abs().unwrap();
        assert!(values(&difference).iter().all(|d| *d < 1e-12));
        // A configuration without waves is written as before there were any.
        assert!(!serde_json::to_string(&MlpConfig::new(&[3])).unwrap().contains("waves"));
    }

    #[test]
    fn nan_is_not_hidden_and_bad_arguments_are_refused() {
        let nan = Tensor::new(&[f64::NAN, -1.0, 2.0], &candle_core::Device::Cpu).unwrap();
        let out = values(&Activation::Relu.apply(&nan).unwrap());
        assert!(out[0].is_nan() && out[1..] == [0.0, 2.0]);
        let path = store64(1).root();
        assert!(Mlp::new(&path, 2, 2, &MlpConfig::new(&[4, 0])).is_err());
        assert!(Mlp::new(&path, 2, 2, &MlpConfig::new(&[4]).context(0)).is_err());
        assert!(Mlp::new(&path, 2, 2, &MlpConfig::new(&[4]).output_bound(f64::NAN)).is_err());
        assert!(Mlp::new(&path, 0, 2, &MlpConfig::new(&[4])).is_err());
        let net = Mlp::new(&path, 2, 2, &MlpConfig::new(&[4]).context(3)).unwrap();
        assert!(matches!(net.forward(&normal(1, &[5, 2]), None), Err(Error::Context { .. })));
        assert!(matches!(net.forward(&normal(1, &[5, 3]), Some(&normal(1, &[5, 3]))), Err(Error::Shape { .. })));
    }
}
