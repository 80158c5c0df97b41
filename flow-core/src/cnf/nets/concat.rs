//! The concat network of FFJORD.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::dense::{Stack, check_sizes};
use super::shared_inputs;
use crate::Result;
use crate::cnf::{FieldActivation, VectorField};
use crate::param::ParamPath;

/// The shape of a [`Concat`] network: what a configuration file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ConcatConfig {
    /// The widths of the hidden layers, input side first.
    pub hidden: Vec<usize>,
    /// The nonlinearity after each hidden layer.
    #[serde(default)]
    pub activation: FieldActivation,
    /// The length of the context vector, `None` without context.
    #[serde(default)]
    pub context: Option<usize>,
}

impl ConcatConfig {
    /// Hyperbolic tangents, no context.
    pub fn new(hidden: &[usize]) -> Self {
        ConcatConfig { hidden: hidden.to_vec(), activation: FieldActivation::Tanh, context: None }
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
}

/// `h_{i+1} = a([h_i, t, c] W_i + b_i)`: time and context enter every layer, the last layer is linear.
///
/// Grathwohl et al. 2019 (FFJORD, arXiv 1810.01367), "concat" layers of the authors' code. Weights and biases start
/// uniform in `±1/√inputs`, as theirs do.
///
/// # Shapes
/// - those of [`VectorField`]; layer `i` has parameters `i.weight` `(I, O)`, `i.shared` `(1 + C, O)` for `[t, c]`,
///   and `i.bias` `(O,)`.
#[derive(Debug)]
pub struct Concat {
    dim: usize,
    context: Option<usize>,
    stack: Stack,
}

impl Concat {
    /// A field over vectors of `dim` entries with its parameters under `path`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a dimension, width or context of zero.
    pub fn new(path: &ParamPath, dim: usize, config: &ConcatConfig) -> Result<Self> {
        check_sizes("concat", dim, &config.hidden, config.context)?;
        let shared = 1 + config.context.unwrap_or(0);
        let stack = Stack::new(path, dim, &config.hidden, config.activation, shared, true)?;
        Ok(Concat { dim, context: config.context, stack })
    }

    fn shared(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        shared_inputs("concat", self.stack.dtype(), x, self.dim, &t.unsqueeze(1)?, context, self.context)
    }
}

impl VectorField for Concat {
    fn name(&self) -> String {
        "concat".into()
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
