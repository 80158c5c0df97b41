//! Continuous flows.

use std::sync::Arc;

use flow_core::cnf::ode::Stepping;
use flow_core::cnf::{Cnf, CnfConfig, ConcatSquash, ConcatSquashConfig, Divergence};
use flow_core::{ParamPath, ParamStore};

use super::{ContinuousFlow, over_gaussian};
use crate::Result;

/// The continuous normalizing flow of FFJORD (Grathwohl et al. 2019, arXiv 1810.01367) over vectors of `features`
/// entries: the solution of a differential equation whose right-hand side is a network of three hidden layers of 64.
///
/// The divergence is exact, which takes as many directions as there are features, and the solver adaptive with a
/// tolerance of 1e-5: its numbers can be relied on. Training in many dimensions is cheaper with
/// [`Continuous::divergence`] an estimate and [`Continuous::tolerance`] of about 1e-3.
///
/// ```
/// use candle_core::{DType, Device};
/// use flow_core::{Density, FlowRng, ParamStore};
///
/// # fn main() -> flow_density::Result<()> {
/// let store = ParamStore::new(0, DType::F32, &Device::Cpu);
/// let flow = flow_density::model::cnf(2).hidden(&[16]).build(&store)?;
/// let x = flow.sample(7, None, 1.0, &mut FlowRng::seed_from(2))?;
/// assert_eq!(flow.log_prob(&x, None)?.dims(), &[7]);
/// # Ok(())
/// # }
/// ```
pub fn cnf(features: usize) -> Continuous {
    let net = ConcatSquashConfig::new(&[64, 64, 64]);
    Continuous { features, context: None, net, config: CnfConfig::default() }
}

/// As [`cnf`], with the field that suits training by flow matching (Lipman et al. 2023, arXiv 2210.02747): wider, and with
/// an [input gain](Continuous::input_gain) of four, since no solver is slowed by its fast variation in training.
///
/// What is trained is the field, [`Flow::bijector`](flow_core::Flow::bijector)`().field()`, by
/// [`FlowMatching::loss`](flow_core::cnf::matching::FlowMatching::loss); the density is that of the flow.
pub fn matching(features: usize) -> Continuous {
    cnf(features).hidden(&[128, 128, 128]).input_gain(4.0)
}

/// What [`cnf`] and [`matching`] start from.
#[derive(Debug, Clone, PartialEq)]
pub struct Continuous {
    features: usize,
    context: Option<usize>,
    net: ConcatSquashConfig,
    config: CnfConfig,
}

impl Continuous {
    /// The widths of the field's hidden layers.
    #[must_use]
    pub fn hidden(mut self, widths: &[usize]) -> Self {
        self.net.hidden = widths.to_vec();
        self
    }

    /// Makes it a conditional density `p(x | c)` with `c` of `size` entries; a size of zero is no context.
    #[must_use]
    pub fn context(mut self, size: usize) -> Self {
        self.context = (size > 0).then_some(size);
        self
    }

    /// The factor of the first layer's initial weights: more helps where structures are thin
    /// ([`ConcatSquashConfig::input_gain`]).
    #[must_use]
    pub fn input_gain(mut self, gain: f64) -> Self {
        self.net.input_gain = gain;
        self
    }

    /// Solves with adaptive steps of this relative and absolute tolerance.
    #[must_use]
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.config.solver.stepping = Stepping::adaptive(tolerance, tolerance);
        self
    }

    /// How the trace of the Jacobian is computed.
    #[must_use]
    pub fn divergence(mut self, divergence: Divergence) -> Self {
        self.config.divergence = divergence;
        self
    }

    /// All that can be said of solving and differentiating the equation, in place of what was said before.
    #[must_use]
    pub fn config(mut self, config: CnfConfig) -> Self {
        self.config = config;
        self
    }

    /// The bijector alone, with the parameters of its field under `field` of `path`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the number that makes no flow.
    pub fn bijector(&self, path: &ParamPath) -> Result<Cnf<Arc<ConcatSquash>>> {
        let field = Arc::new(ConcatSquash::new(&path.pp("field"), self.features, self.context, &self.net)?);
        Ok(Cnf::new(path, field, self.config.clone())?)
    }

    /// The flow over a standard Gaussian, with seed, precision and device of `store`.
    ///
    /// # Errors
    /// As [`Continuous::bijector`].
    pub fn build(&self, store: &ParamStore) -> Result<ContinuousFlow> {
        over_gaussian(store, self.bijector(&store.root())?)
    }
}
