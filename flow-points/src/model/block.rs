//! A continuous flow between two moving batch normalizations: PointFlow's building block.

use std::sync::Arc;

use candle_core::Tensor;
use flow_core::cnf::ode::{SolveOptions, Statistics, solve};
use flow_core::cnf::{Cnf, CnfConfig, ConcatSquash, Preconditioned, VectorField};
use flow_core::distribution::StandardGaussian;
use flow_core::layers::{MovingBatchNorm, MovingStatistics};
use flow_core::numerics::host;
use flow_core::{Bijector, Chain, Flow, ParamPath};

use crate::Result;

/// The networks of both flows.
pub(super) type Field = Preconditioned<ConcatSquash>;

/// Which normalizations a [`Block`] has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Norms {
    /// Before and after the flow, as the paper.
    Both(MovingStatistics),
    /// Before it only: data of any scale reach the field whitened.
    Before,
    /// None: the data are normalized already.
    None,
}

/// `x → norm → flow → norm → N(0, I)`, with the parts at hand.
///
/// Likelihoods go through [`Block::flow`]; samples need no divergence and go through [`Block::decode`].
pub(super) struct Block {
    before: Option<Arc<MovingBatchNorm>>,
    pub field: Arc<Field>,
    pub cnf: Arc<Cnf<Arc<Field>>>,
    after: Option<Arc<MovingBatchNorm>>,
    pub flow: Flow<Chain, StandardGaussian>,
}

impl Block {
    pub fn new(path: &ParamPath, field: Field, config: CnfConfig, norms: Norms) -> Result<Self> {
        let dim = field.dim();
        let norm = |name: &str, axes| MovingBatchNorm::new(&path.pp(name), dim, axes).map(Arc::new);
        let (before, after) = match norms {
            Norms::None => (None, None),
            Norms::Before => (Some(norm("norm0", MovingStatistics::PerAxis)?), None),
            Norms::Both(axes) => (Some(norm("norm0", axes)?), Some(norm("norm1", axes)?)),
        };
        let field = Arc::new(field);
        let cnf = Arc::new(Cnf::new(path, field.clone(), config)?);
        let mut layers: Vec<Box<dyn Bijector>> = Vec::new();
        layers.extend(before.iter().map(|n| Box::new(n.clone()) as Box<dyn Bijector>));
        layers.push(Box::new(cnf.clone()));
        layers.extend(after.iter().map(|n| Box::new(n.clone()) as Box<dyn Bijector>));
        let (store, dim) = (path.store(), [dim]);
        let base = StandardGaussian::new(&dim, store.dtype(), store.device());
        Ok(Block { before, field, cnf, after, flow: Flow::new(store, Chain::new(layers)?, base)? })
    }

    /// The input of the field: `x` after the first normalization.
    pub fn whiten(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match &self.before {
            Some(norm) => norm.encode(x, None)?.0,
            None => x.clone(),
        })
    }

    /// Noise to data without log-determinants, by a solver of the caller's choice.
    pub fn decode(
        &self,
        noise: &Tensor,
        context: Option<&Tensor>,
        solver: &SolveOptions,
    ) -> Result<(Tensor, Statistics)> {
        let start = match &self.after {
            Some(norm) => norm.decode(noise, None)?.0,
            None => noise.clone(),
        };
        let (value, statistics) = self.integrate(&start, context, [self.cnf.end_time()?, 0.0], solver)?;
        let value = match &self.before {
            Some(norm) => norm.decode(&value, None)?.0,
            None => value,
        };
        Ok((value, statistics))
    }

    /// Data to noise without log-determinants.
    pub fn encode(&self, x: &Tensor, context: Option<&Tensor>, solver: &SolveOptions) -> Result<Tensor> {
        let start = self.whiten(x)?;
        let (value, _) = self.integrate(&start, context, [0.0, self.cnf.end_time()?], solver)?;
        Ok(match &self.after {
            Some(norm) => norm.encode(&value, None)?.0,
            None => value,
        })
    }

    fn integrate(
        &self,
        start: &Tensor,
        context: Option<&Tensor>,
        span: [f64; 2],
        solver: &SolveOptions,
    ) -> Result<(Tensor, Statistics)> {
        let mut field = |t: f64, x: &Tensor| {
            let t = host::full(t, 1, x.dtype(), x.device())?;
            self.field.value(&t, x, context)
        };
        let solution = solve(&mut field, start, span, solver)?;
        Ok((solution.y, solution.statistics))
    }
}
