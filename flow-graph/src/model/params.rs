//! The parameters of a model, as the store keeps them and as flat arrays for the fused passes.

use candle_core::Tensor;
use flow_core::kernels::Real;
use flow_core::{Gradients, Init, Param, ParamPath};

use super::config::{BOND_CLASSES, Features, Geometry, GraphAfConfig, Head};
use super::matrix::Matrix;
use super::prefix::{DISTANCES, NodeState, OFFSETS};
use crate::Result;

/// Bond kinds, one weight of the graph network each.
pub(crate) const KINDS: usize = 3;

/// One value per parameter of a model: handles, flat arrays, or gradients.
#[derive(Debug, Clone)]
pub(crate) struct Net<P> {
    /// `(F, I)`: the input vectors of the features.
    pub embed: P,
    /// Per layer `(I, 3·W)`: the transforms of the three bond kinds side by side.
    pub gnn: Vec<P>,
    /// `(W)`: scale of the embeddings.
    pub scale: P,
    /// `(W)`: shift of the embeddings.
    pub shift: P,
    /// The network of atom decisions.
    pub atom: HeadNet<P>,
    /// The network of bond decisions.
    pub bond: HeadNet<P>,
}

/// The network of one kind of decision.
#[derive(Debug, Clone)]
pub(crate) struct HeadNet<P> {
    /// `(G, H)` or, for bonds, `(3·G, H)`: earlier atom, new atom, graph.
    pub input: P,
    /// `(H)`.
    pub input_bias: P,
    /// `(DISTANCES, H)` and `(OFFSETS, H)`.
    pub geometry: Option<(P, P)>,
    /// Weights `(H, H′)` and biases of further hidden layers.
    pub hidden: Vec<(P, P)>,
    /// Categorical: `(H, K)`. Gaussian: `(L·H, 2·K)`, shifts before scales.
    pub output: P,
    /// Categorical: `(K)`. Gaussian: `(L, 2·K)`.
    pub output_bias: P,
    /// Gaussian: `(L)`, the logarithms of the largest log-scales.
    pub log_range: Option<P>,
}

impl<P> Net<P> {
    /// All parameters in a fixed order.
    pub fn list(&self) -> Vec<&P> {
        let mut all = vec![&self.embed];
        all.extend(&self.gnn);
        all.extend([&self.scale, &self.shift]);
        for head in [&self.atom, &self.bond] {
            all.extend([&head.input, &head.input_bias]);
            all.extend(head.geometry.iter().flat_map(|(a, b)| [a, b]));
            all.extend(head.hidden.iter().flat_map(|(a, b)| [a, b]));
            all.extend([&head.output, &head.output_bias]);
            all.extend(&head.log_range);
        }
        all
    }

    /// The same structure with every parameter mapped.
    pub fn try_map<Q>(&self, mut f: impl FnMut(&P) -> Result<Q>) -> Result<Net<Q>> {
        Ok(Net {
            embed: f(&self.embed)?,
            gnn: self.gnn.iter().map(&mut f).collect::<Result<_>>()?,
            scale: f(&self.scale)?,
            shift: f(&self.shift)?,
            atom: self.atom.try_map(&mut f)?,
            bond: self.bond.try_map(&mut f)?,
        })
    }
}

impl<P> HeadNet<P> {
    fn try_map<Q>(&self, f: &mut impl FnMut(&P) -> Result<Q>) -> Result<HeadNet<Q>> {
        Ok(HeadNet {
            input: f(&self.input)?,
            input_bias: f(&self.input_bias)?,
            geometry: self.geometry.as_ref().map(|(a, b)| Ok::<_, crate::Error>((f(a)?, f(b)?))).transpose()?,
            hidden: self.hidden.iter().map(|(a, b)| Ok((f(a)?, f(b)?))).collect::<Result<_>>()?,
            output: f(&self.output)?,
            output_bias: f(&self.output_bias)?,
            log_range: self.log_range.as_ref().map(f).transpose()?,
        })
    }
}

impl<P> Net<P> {
    /// All parameters in the order of [`Net::list`], to be changed.
    pub fn list_mut(&mut self) -> Vec<&mut P> {
        let mut all = vec![&mut self.embed];
        all.extend(&mut self.gnn);
        all.extend([&mut self.scale, &mut self.shift]);
        for head in [&mut self.atom, &mut self.bond] {
            all.extend([&mut head.input, &mut head.input_bias]);
            all.extend(head.geometry.iter_mut().flat_map(|(a, b)| [a, b]));
            all.extend(head.hidden.iter_mut().flat_map(|(a, b)| [a, b]));
            all.extend([&mut head.output, &mut head.output_bias]);
            all.extend(&mut head.log_range);
        }
        all
    }
}

impl<T: Real> Net<Matrix<T>> {
    /// Adds `other`, parameter by parameter.
    pub fn add(&mut self, other: &Self) {
        for (into, from) in self.list_mut().into_iter().zip(other.list()) {
            into.data.iter_mut().zip(&from.data).for_each(|(a, &b)| *a += b);
        }
    }
}

impl Net<Param> {
    /// Fresh parameters under `path`.
    ///
    /// Hidden layers start uniform with the variance that their activation keeps; output layers start at zero,
    /// so that a fresh model is the identity (Gaussian) or the uniform choice (categorical).
    pub fn new(config: &GraphAfConfig, path: &ParamPath) -> Result<Self> {
        config.check()?;
        let width = config.width;
        // The paper's embedding is square in the number of types; a state has more features than it needs.
        let features = NodeState::feature_count(config);
        let inputs = match config.features {
            Features::Type => features,
            Features::State => width,
        };
        let embed = path.param("embed", (features, inputs), uniform(3))?;
        let gnn = (0..config.layers).map(|l| {
            let inputs = if l == 0 { inputs } else { width };
            path.pp("gnn").pp(l).param("weight", (inputs, KINDS * width), uniform(KINDS * inputs)).map_err(Into::into)
        });
        Ok(Net {
            embed,
            gnn: gnn.collect::<Result<_>>()?,
            scale: path.pp("norm").param("scale", width, Init::Const(1.0))?,
            shift: path.pp("norm").param("shift", width, Init::Const(0.0))?,
            atom: HeadNet::new(config, &path.pp("atom"), 1, config.atom_classes())?,
            bond: HeadNet::new(config, &path.pp("bond"), 3, BOND_CLASSES)?,
        })
    }

    /// The values as flat arrays.
    pub fn values<T: Real>(&self) -> Result<Net<Matrix<T>>> {
        self.try_map(|p| {
            let (dims, tensor) = (p.var().dims(), p.var().as_detached_tensor().flatten_all()?);
            let columns = dims.last().copied().unwrap_or(1);
            Ok(Matrix { rows: p.var().elem_count() / columns.max(1), columns, data: tensor.to_vec1::<T>()? })
        })
    }

    /// Adds flat gradients to `gradients`.
    pub fn accumulate<T: Real>(&self, flat: Net<Matrix<T>>, gradients: &mut Gradients) -> Result<()> {
        for (param, values) in self.list().into_iter().zip(flat.list()) {
            let shape = param.var().shape().clone();
            gradients.add(param, &Tensor::from_slice(&values.data, shape, param.var().device())?)?;
        }
        Ok(())
    }
}

/// Uniform entries of variance `2/inputs`: what a rectifier halves.
fn uniform(inputs: usize) -> Init {
    Init::Uniform((6.0 / inputs.max(1) as f64).sqrt())
}

impl HeadNet<Param> {
    fn new(config: &GraphAfConfig, path: &ParamPath, parts: usize, classes: usize) -> Result<Self> {
        let inputs = parts * config.width;
        let widths = match &config.head {
            Head::Gaussian { layers, hidden, .. } => vec![layers * hidden],
            Head::Categorical { hidden } => hidden.clone(),
        };
        let first = widths.first().copied().unwrap_or_default();
        // A hyperbolic tangent keeps the variance of small inputs, a rectifier halves it.
        let input = match &config.head {
            Head::Gaussian { .. } => uniform(2 * inputs),
            Head::Categorical { .. } => uniform(inputs),
        };
        let geometry = (parts == 3 && config.geometry == Geometry::Distances).then(|| {
            let table = |name, rows| path.param(name, (rows, first), Init::Const(0.0));
            Ok::<_, crate::Error>((table("distance", DISTANCES)?, table("offset", OFFSETS)?))
        });
        let hidden = widths.windows(2).enumerate().map(|(i, pair)| {
            let path = path.pp("hidden").pp(i);
            Ok((
                path.param("weight", (pair[0], pair[1]), uniform(pair[0]))?,
                path.param("bias", pair[1], Init::Const(0.0))?,
            ))
        });
        let output = path.pp("output");
        let zero = Init::Const(0.0);
        let (weight, bias, log_range) = match &config.head {
            Head::Gaussian { layers, .. } => (
                output.param("weight", (first, 2 * classes), zero)?,
                output.param("bias", (*layers, 2 * classes), zero)?,
                Some(output.param("log_range", *layers, zero)?),
            ),
            Head::Categorical { .. } => {
                let last = widths.last().copied().unwrap_or_default();
                (output.param("weight", (last, classes), zero)?, output.param("bias", classes, zero)?, None)
            }
        };
        Ok(HeadNet {
            input: path.param("weight", (inputs, first), input)?,
            input_bias: path.param("bias", first, zero)?,
            geometry: geometry.transpose()?,
            hidden: hidden.collect::<Result<_>>()?,
            output: weight,
            output_bias: bias,
            log_range,
        })
    }
}
