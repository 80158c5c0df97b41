//! What the gates and shifts of a concat-squash network see of time and context.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::nn::{Activation, Linear};
use crate::param::ParamPath;
use crate::{Error, Result};

/// A perceptron between `[t, context]` and the gates and shifts.
///
/// In the papers the gates are linear in time and context before their sigmoid. What depends on these alone is computed
/// once per group of rows, for a cloud and not for each of its points, so that a deep function of them costs next to
/// nothing; it lets few hidden units follow many shapes and sharp changes in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct EmbeddingConfig {
    /// Widths of the layers, `x · sigmoid x` after each of them; the last is what gates and shifts see.
    pub widths: Vec<usize>,
    /// `K`: the time enters as `t, sin πkt, cos πkt` for `k = 1 … K`. Times are taken to be of order one.
    #[serde(default)]
    pub frequencies: usize,
}

impl EmbeddingConfig {
    /// Layers of these widths that see the time itself.
    pub fn new(widths: &[usize]) -> Self {
        EmbeddingConfig { widths: widths.to_vec(), frequencies: 0 }
    }

    /// The same with this many frequencies of the time.
    #[must_use]
    pub fn frequencies(mut self, frequencies: usize) -> Self {
        self.frequencies = frequencies;
        self
    }
}

/// The perceptron of an [`EmbeddingConfig`].
#[derive(Debug)]
pub(super) struct Embedding {
    layers: Vec<Linear>,
    frequencies: usize,
    width: usize,
}

impl Embedding {
    pub(super) fn new(path: &ParamPath, context: usize, config: &EmbeddingConfig) -> Result<Self> {
        if config.widths.is_empty() || config.widths.contains(&0) {
            let reason = format!("needs at least one layer, none of width zero, got {:?}", config.widths);
            return Err(Error::config(format!("{} (embedding)", super::NAME), reason));
        }
        let (mut inputs, mut layers) = (1 + 2 * config.frequencies + context, Vec::new());
        for (i, &width) in config.widths.iter().enumerate() {
            let init = Activation::Silu.init(inputs);
            layers.push(Linear::new(&path.pp(format!("layer{i}")), inputs, width, init, true)?);
            inputs = width;
        }
        Ok(Embedding { layers, frequencies: config.frequencies, width: inputs })
    }

    /// `E`.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// `(G, E)` of the time `(G, 1)` and the context `(G, C)`.
    pub(super) fn forward(&self, time: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let mut parts = vec![time.clone()];
        for k in 1..=self.frequencies {
            let angle = time.affine(std::f64::consts::PI * k as f64, 0.0)?;
            parts.extend([angle.sin()?, angle.cos()?]);
        }
        parts.extend(context.cloned());
        let mut c = Tensor::cat(&parts, 1)?;
        for layer in &self.layers {
            c = Activation::Silu.apply(&layer.forward(&c)?)?;
        }
        Ok(c)
    }
}
