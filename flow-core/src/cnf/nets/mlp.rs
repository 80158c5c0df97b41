//! A plain multi-layer perceptron as a vector field.

use std::f64::consts::TAU;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::dense::{Stack, check_sizes};
use super::shared_inputs;
use crate::Result;
use crate::cnf::{FieldActivation, VectorField};
use crate::param::ParamPath;

/// The shape of an [`MlpField`]: what a configuration file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MlpFieldConfig {
    /// The widths of the hidden layers, input side first.
    pub hidden: Vec<usize>,
    /// The nonlinearity after each hidden layer.
    #[serde(default)]
    pub activation: FieldActivation,
    /// The length of the context vector, `None` without context.
    #[serde(default)]
    pub context: Option<usize>,
    /// The number `K` of frequencies of the time features `sin 2πkt, cos 2πkt`, `k = 1..=K`; none by default.
    #[serde(default)]
    pub time_frequencies: usize,
}

impl MlpFieldConfig {
    /// Swish, the time itself as its only feature, no context.
    pub fn new(hidden: &[usize]) -> Self {
        let activation = FieldActivation::Swish;
        MlpFieldConfig { hidden: hidden.to_vec(), activation, context: None, time_frequencies: 0 }
    }

    /// The same with another nonlinearity.
    #[must_use]
    pub fn activation(mut self, activation: FieldActivation) -> Self {
        self.activation = activation;
        self
    }

    /// The same with a context vector of this length, or none.
    #[must_use]
    pub fn context(mut self, context: impl Into<Option<usize>>) -> Self {
        self.context = context.into();
        self
    }

    /// The same with this many frequencies of the time.
    #[must_use]
    pub fn time_frequencies(mut self, time_frequencies: usize) -> Self {
        self.time_frequencies = time_frequencies;
        self
    }
}

/// `h_1 = a([x, φ(t), c] W_0 + b_0)`, `h_{i+1} = a(h_i W_i + b_i)`: time and context enter the first layer alone.
///
/// `φ(t) = [t, sin 2πt, cos 2πt, …, sin 2πKt, cos 2πKt]`; with `K = 0` this is the network that the toy experiments
/// of flow matching use (Tong et al. 2024, arXiv 2302.00482).
///
/// # Shapes
/// - those of [`VectorField`]; layer `i` has parameters `i.weight` `(I, O)` and `i.bias` `(O,)`, the first also
///   `0.shared` `(1 + 2K + C, O)`.
#[derive(Debug)]
pub struct MlpField {
    dim: usize,
    context: Option<usize>,
    time_frequencies: usize,
    stack: Stack,
}

impl MlpField {
    /// A field over vectors of `dim` entries with its parameters under `path`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a dimension, width or context of zero.
    pub fn new(path: &ParamPath, dim: usize, config: &MlpFieldConfig) -> Result<Self> {
        check_sizes("mlp field", dim, &config.hidden, config.context)?;
        let time_frequencies = config.time_frequencies;
        let shared = 1 + 2 * time_frequencies + config.context.unwrap_or(0);
        let stack = Stack::new(path, dim, &config.hidden, config.activation, shared, false)?;
        Ok(MlpField { dim, context: config.context, time_frequencies, stack })
    }

    fn shared(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let t = t.unsqueeze(1)?;
        let mut features = vec![t.clone()];
        for k in 1..=self.time_frequencies {
            let angle = t.affine(TAU * k as f64, 0.0)?;
            features.extend([angle.sin()?, angle.cos()?]);
        }
        let (time, dtype) = (Tensor::cat(&features, 1)?, self.stack.dtype());
        shared_inputs("mlp field", dtype, x, self.dim, &time, context, self.context)
    }
}

impl VectorField for MlpField {
    fn name(&self) -> String {
        "mlp".into()
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn context_dim(&self) -> Option<usize> {
        self.context
    }

    fn value(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        self.stack.value(x, &self.shared(t, x, context)?)
    }

    fn jvp(&self, t: &Tensor, x: &Tensor, v: &[Tensor], context: Option<&Tensor>) -> Result<(Tensor, Vec<Tensor>)> {
        self.stack.jvp(x, v, &self.shared(t, x, context)?)
    }
}
