//! Concat-squash networks: the vector fields of FFJORD and PointFlow.

mod embedding;
mod op;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::activation::sigmoid;
use super::field::{pairing_of_products, squared_error_of_values};
use super::{FieldActivation, VectorField, groups};
use crate::bijector::check_batch_as;
use crate::kernels::accepts;
use crate::kernels::concat_squash::{Act, Shape};
use crate::nn::matmul;
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};
use embedding::Embedding;
pub use embedding::EmbeddingConfig;

const NAME: &str = "concat-squash network";

/// The hidden part of a [`ConcatSquash`] network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ConcatSquashConfig {
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// The nonlinearity after each of them.
    #[serde(default)]
    pub activation: FieldActivation,
    /// What a gate makes of time and context.
    #[serde(default)]
    pub gate: Gate,
    /// Factor of the initial weights and biases of the first layer, `1` in the papers. A network with bounded
    /// nonlinearities learns slow variation first (Rahaman et al. 2019, arXiv 1806.08734); a factor of some units lets the
    /// field vary on that much smaller a scale from the start, which thin structures need.
    #[serde(default = "one")]
    pub input_gain: f64,
    /// A perceptron between time and context and what depends on them; none in the papers.
    #[serde(default)]
    pub embedding: Option<EmbeddingConfig>,
}

fn one() -> f64 {
    1.0
}

/// The factor of a unit as a function of what depends on time and context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Gate {
    /// `σ(W_g c + b_g)`, between nought and one: the papers' choice.
    #[default]
    Sigmoid,
    /// `1 + W_g c + b_g`: unbounded and of either sign, and near one at the start, so that a deep network's signal is not
    /// halved by every layer (as in FiLM, Perez et al. 2018, arXiv 1709.07871).
    Linear,
}

impl Gate {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Gate::Sigmoid => sigmoid(x),
            Gate::Linear => Ok(x.affine(1.0, 1.0)?),
        }
    }
}

impl ConcatSquashConfig {
    /// The papers' network with these hidden layers: tanh, sigmoid gates, no gain, no embedding.
    pub fn new(hidden: &[usize]) -> Self {
        let activation = FieldActivation::Tanh;
        ConcatSquashConfig {
            hidden: hidden.to_vec(),
            activation,
            gate: Gate::Sigmoid,
            input_gain: one(),
            embedding: None,
        }
    }

    /// The same with another nonlinearity.
    #[must_use]
    pub fn activation(mut self, activation: FieldActivation) -> Self {
        self.activation = activation;
        self
    }

    /// The same with another gate.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// The same with another factor of the first layer.
    #[must_use]
    pub fn input_gain(mut self, input_gain: f64) -> Self {
        self.input_gain = input_gain;
        self
    }

    /// The same with a perceptron between time and context and the gates, or without one.
    #[must_use]
    pub fn embedding(mut self, embedding: impl Into<Option<EmbeddingConfig>>) -> Self {
        self.embedding = embedding.into();
        self
    }
}

/// Layers `(W x + b) ⊙ σ(W_g c + b_g) + W_b c` with `c = [t, context]`, a nonlinearity between them
/// (Grathwohl et al. 2019, arXiv 1810.01367, appendix B.1; Yang et al. 2019, arXiv 1906.12320, appendix A); `c` may be a
/// perceptron's function of these ([`EmbeddingConfig`]), and the sigmoid another [`Gate`].
///
/// What depends on `c` is computed once for each group of rows. On the CPU one fused kernel computes values, tangents
/// and the gradient of both without keeping activations; [`ConcatSquash::composed`] is its specification and the path of
/// other devices.
///
/// # Shapes
/// As for every [`VectorField`]; `x` and `f` `(B, D)`.
#[derive(Debug)]
pub struct ConcatSquash {
    widths: Vec<usize>,
    context: Option<usize>,
    activation: FieldActivation,
    gate: Gate,
    embedding: Option<Embedding>,
    layers: Vec<SquashLayer>,
}

/// Parameters of one layer from `I` to `O`.
#[derive(Debug)]
struct SquashLayer {
    /// `(O, I)`.
    weight: Param,
    bias: Param,
    /// `(O, 1 + C)`, the first column that of the time; or as many columns as the embedding is wide.
    gate: Param,
    gate_bias: Param,
    /// As `gate`.
    shift: Param,
}

impl SquashLayer {
    fn new(path: &ParamPath, inputs: usize, outputs: usize, conditions: usize, gain: f64) -> Result<Self> {
        let bound = |fan_in: usize| Init::Uniform(1.0 / (fan_in as f64).sqrt());
        let affine = Init::Uniform(gain / (inputs as f64).sqrt());
        let (gate, shift) = (path.pp("gate"), path.pp("shift"));
        Ok(SquashLayer {
            weight: path.param("weight", (outputs, inputs), affine)?,
            bias: path.param("bias", outputs, affine)?,
            gate: gate.param("weight", (outputs, conditions), bound(conditions))?,
            gate_bias: gate.param("bias", outputs, bound(conditions))?,
            shift: shift.param("weight", (outputs, conditions), bound(conditions))?,
        })
    }

    /// Gate and shift of every group, both `(G, O)`.
    fn conditions(&self, gate: Gate, c: &Tensor) -> Result<[Tensor; 2]> {
        let factor = matmul(c, &self.gate.tensor().t()?)?.broadcast_add(&self.gate_bias.tensor())?;
        Ok([gate.apply(&factor)?, matmul(c, &self.shift.tensor().t()?)?])
    }
}

impl ConcatSquash {
    /// A network on vectors of `dim` entries, with a context vector of `context` entries if given. Weights start uniform
    /// in `± 1/√inputs`, those of the first layer times the configured gain.
    ///
    /// # Errors
    /// [`Error::Config`] for a width of zero, an embedding without layers, or a gain that is not a positive number.
    pub fn new(path: &ParamPath, dim: usize, context: Option<usize>, config: &ConcatSquashConfig) -> Result<Self> {
        let widths: Vec<usize> = [dim].into_iter().chain(config.hidden.iter().copied()).chain([dim]).collect();
        if widths.contains(&0) || context == Some(0) {
            return Err(Error::config(NAME, format!("no width may be zero: {widths:?}, context {context:?}")));
        }
        let gain = config.input_gain;
        if !(gain > 0.0 && gain.is_finite()) {
            return Err(Error::config(NAME, format!("input_gain must be a positive number, got {gain}")));
        }
        let embed = |c| Embedding::new(&path.pp("embedding"), context.unwrap_or(0), c);
        let embedding = config.embedding.as_ref().map(embed).transpose()?;
        let conditions = embedding.as_ref().map_or(1 + context.unwrap_or(0), Embedding::width);
        let layer = |(i, w): (usize, &[usize])| {
            let gain = if i == 0 { gain } else { one() };
            SquashLayer::new(&path.pp(format!("layer{i}")), w[0], w[1], conditions, gain)
        };
        let layers = widths.windows(2).enumerate().map(layer).collect::<Result<_>>()?;
        let (activation, gate) = (config.activation, config.gate);
        Ok(ConcatSquash { widths, context, activation, gate, embedding, layers })
    }

    /// Value and tangents in Candle's operations, every argument differentiable.
    ///
    /// # Errors
    /// As for [`VectorField::jvp`].
    pub fn composed(
        &self,
        t: &Tensor,
        x: &Tensor,
        tangents: &[Tensor],
        context: Option<&Tensor>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let c = self.conditions(t, x, context)?;
        let per_group = groups(NAME, x.dim(0)?, c.dim(0)?)?;
        let grouped = |y: &Tensor, g: &Tensor| -> Result<Tensor> {
            let (rows, width) = y.dims2()?;
            let y = y.reshape((g.dim(0)?, per_group, width))?;
            Ok(y.broadcast_mul(&g.unsqueeze(1)?)?.reshape((rows, width))?)
        };
        let (mut h, mut dots) = (x.clone(), tangents.to_vec());
        for (i, layer) in self.layers.iter().enumerate() {
            let [gate, shift] = layer.conditions(self.gate, &c)?;
            let weight = layer.weight.tensor().t()?;
            let y = matmul(&h, &weight)?.broadcast_add(&layer.bias.tensor())?;
            let ones = y.ones_like()?;
            let u = (grouped(&y, &gate)? + grouped(&ones, &shift)?)?;
            let dot_u = dots.iter().map(|d| grouped(&matmul(d, &weight)?, &gate));
            let dot_u = dot_u.collect::<Result<Vec<_>>>()?;
            (h, dots) = if i + 1 == self.layers.len() {
                (u, dot_u)
            } else if dot_u.is_empty() {
                (self.activation.apply(&u)?, dot_u)
            } else {
                let (h, slope) = self.activation.apply_with_slope(&u)?;
                (h, dot_u.iter().map(|d| d * &slope).collect::<candle_core::Result<_>>()?)
            };
        }
        Ok((h, dots))
    }

    /// The element type of the parameters.
    fn dtype(&self) -> DType {
        self.layers[0].weight.dtype()
    }

    /// `c`, `(G, 1 + C)` or of the embedding's width, checked against the rows of `x`.
    fn conditions(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let rows = check_batch_as(NAME, x, &[self.widths[0]], self.dtype())?;
        if t.rank() != 1 {
            let (layer, expected) = (format!("{NAME} (time)"), "(1,) or (G,)".into());
            return Err(Error::Shape { layer, expected, actual: t.dims().to_vec() });
        }
        groups(NAME, rows, t.elem_count())?;
        let time = t.unsqueeze(1)?;
        let Some(width) = self.context else { return self.embed(&time, None) };
        let Some(context) = context else {
            let reason = format!("needs a context of shape (G, {width}), none was given");
            return Err(Error::Context { layer: NAME.into(), reason });
        };
        let count = check_batch_as(&format!("{NAME} (context)"), context, &[width], self.dtype())?;
        groups(NAME, rows, count)?;
        let time = match t.elem_count() {
            1 => time.broadcast_as((count, 1))?,
            n if n == count => time,
            n => {
                let reason = format!("the context has {count} rows, the time {n}");
                return Err(Error::Context { layer: NAME.into(), reason });
            }
        };
        self.embed(&time.contiguous()?, Some(&context.contiguous()?))
    }

    fn embed(&self, time: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        match (&self.embedding, context) {
            (Some(embedding), _) => embedding.forward(time, context),
            (None, Some(context)) => Ok(Tensor::cat(&[time, context], 1)?),
            (None, None) => Ok(time.clone()),
        }
    }

    /// Gates and shifts of every group in the kernel's order, `(G, hyper)`.
    fn hyper(&self, c: &Tensor) -> Result<Tensor> {
        let parts: Vec<[Tensor; 2]> = self.layers.iter().map(|l| l.conditions(self.gate, c)).collect::<Result<_>>()?;
        Ok(Tensor::cat(&parts.iter().flatten().collect::<Vec<_>>(), 1)?)
    }

    fn packed(&self) -> Result<Tensor> {
        let flat = self.layers.iter().flat_map(|l| [&l.weight, &l.bias]).map(|p| p.tensor().flatten_all());
        Ok(Tensor::cat(&flat.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
    }

    /// What the kernel works on; tangents lose their graphs.
    fn call(&self, t: &Tensor, x: &Tensor, tangents: &[Tensor], context: Option<&Tensor>) -> Result<op::Call> {
        let c = self.conditions(t, x, context)?;
        let shape = Shape {
            widths: self.widths.clone(),
            act: match self.activation {
                FieldActivation::Tanh => Act::Tanh,
                FieldActivation::Softplus => Act::Softplus,
                FieldActivation::Swish => Act::Swish,
            },
            rows: x.dim(0)?,
            groups: c.dim(0)?,
            tangents: tangents.len(),
        };
        let tangents = match tangents {
            [] => x.detach(),
            some => stack(some)?,
        };
        let arguments = [x.contiguous()?, self.packed()?, self.hyper(&c)?.contiguous()?];
        Ok(op::Call { shape, arguments, tangents: tangents.contiguous()? })
    }

    fn check_tangents(&self, x: &Tensor, tangents: &[Tensor]) -> Result<()> {
        match tangents.iter().find(|v| v.dims() != x.dims() || v.dtype() != x.dtype()) {
            None => Ok(()),
            Some(v) => Err(Error::Shape {
                layer: format!("{NAME} (tangent)"),
                expected: format!("the shape and type of x, {:?} {:?}", x.dims(), x.dtype()),
                actual: v.dims().to_vec(),
            }),
        }
    }
}

impl VectorField for ConcatSquash {
    fn name(&self) -> String {
        "concat-squash".into()
    }

    fn dim(&self) -> usize {
        self.widths[0]
    }

    fn context_dim(&self) -> Option<usize> {
        self.context
    }

    fn needs_no_pieces(&self, x: &Tensor) -> bool {
        accepts(x)
    }

    fn value(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        if !accepts(x) || x.elem_count() == 0 {
            return Ok(self.composed(t, x, &[], context)?.0);
        }
        Ok(self.call(t, x, &[], context)?.outputs()?.squeeze(0)?)
    }

    fn jvp(&self, t: &Tensor, x: &Tensor, v: &[Tensor], context: Option<&Tensor>) -> Result<(Tensor, Vec<Tensor>)> {
        check_batch_as(NAME, x, &[self.widths[0]], self.dtype())?;
        self.check_tangents(x, v)?;
        // The kernel has no gradient with respect to tangents.
        if !accepts(x) || x.elem_count() == 0 || v.iter().any(Tensor::track_op) {
            return self.composed(t, x, v, context);
        }
        let all = self.call(t, x, v, context)?.outputs()?;
        let copy = |k: usize| -> Result<Tensor> { Ok(all.narrow(0, k, 1)?.squeeze(0)?) };
        Ok((copy(0)?, (1..=v.len()).map(copy).collect::<Result<_>>()?))
    }

    fn pairing(
        &self,
        t: &Tensor,
        x: &Tensor,
        v: &[Tensor],
        context: Option<&Tensor>,
        cotangents: &[Tensor],
    ) -> Result<(Tensor, Tensor)> {
        check_batch_as(NAME, x, &[self.widths[0]], self.dtype())?;
        self.check_tangents(x, v)?;
        if accepts(x) && x.elem_count() > 0 && !v.iter().any(Tensor::track_op) && cotangents.len() == 1 + v.len() {
            self.check_tangents(x, cotangents)?;
            let call = self.call(t, x, v, context)?;
            if call.is_tracked() {
                return call.pairing(&stack(cotangents)?);
            }
        }
        pairing_of_products(self, t, x, v, context, cotangents)
    }

    fn squared_error(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>, target: &Tensor) -> Result<Tensor> {
        check_batch_as(NAME, x, &[self.widths[0]], self.dtype())?;
        if accepts(x) && x.elem_count() > 0 && !target.track_op() {
            self.check_tangents(x, std::slice::from_ref(target))?;
            let call = self.call(t, x, &[], context)?;
            if call.is_tracked() {
                return call.squared_error(target);
            }
        }
        squared_error_of_values(self, t, x, context, target)
    }
}

/// `(len, B, D)`, without graphs.
fn stack(parts: &[Tensor]) -> Result<Tensor> {
    let parts = parts.iter().map(|v| v.detach().unsqueeze(0)).collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}

#[cfg(test)]
mod tests;
