//! What a checkpoint says of a model.

use flow_core::cnf::matching::{FlowMatching, Pairing, TimeSampling};
use flow_core::cnf::{Divergence, Probe};
use flow_core::{Chain, ParamPath, ParamStore};
use serde::{Deserialize, Serialize};

use super::{
    Autoregressive, Bumps, Couplings, END_TIME, Model, TransformerConfig, cnf, maf, nsf_autoregressive, nsf_coupling,
    over_gaussian, planar, radial, realnvp, sylvester,
};
use crate::{Error, Result};

/// The tolerance at which trained continuous flows are solved.
const TIGHT: f64 = 1e-5;
/// Dimensions in which an exact divergence is cheap enough to train with.
const EXACT_IN_TRAINING: usize = 3;

/// A family of flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// Affine couplings (Dinh et al. 2017).
    Realnvp,
    /// Masked autoregressive flow (Papamakarios et al. 2017).
    Maf,
    /// Couplings of rational-quadratic splines (Durkan et al. 2019).
    Spline,
    /// Autoregressive rational-quadratic splines (Durkan et al. 2019).
    SplineAutoregressive,
    /// Planar flows (Rezende & Mohamed 2015).
    Planar,
    /// Radial flows (Rezende & Mohamed 2015).
    Radial,
    /// Sylvester flows (van den Berg et al. 2018).
    Sylvester,
    /// Continuous flow trained by maximum likelihood (Grathwohl et al. 2019).
    Ffjord,
    /// Continuous flow trained by flow matching with transport (Lipman et al. 2023, Tong et al. 2024).
    Matching,
}

impl Kind {
    /// Every family.
    pub const ALL: [Kind; 9] = [
        Kind::Realnvp,
        Kind::Maf,
        Kind::Spline,
        Kind::SplineAutoregressive,
        Kind::Planar,
        Kind::Radial,
        Kind::Sylvester,
        Kind::Ffjord,
        Kind::Matching,
    ];

    /// The family of this name; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Realnvp => "realnvp",
            Kind::Maf => "maf",
            Kind::Spline => "spline",
            Kind::SplineAutoregressive => "spline-autoregressive",
            Kind::Planar => "planar",
            Kind::Radial => "radial",
            Kind::Sylvester => "sylvester",
            Kind::Ffjord => "ffjord",
            Kind::Matching => "matching",
        }
    }

    /// What it is, in a line.
    pub fn description(self) -> &'static str {
        match self {
            Kind::Realnvp => "Affine couplings (Dinh et al. 2017)",
            Kind::Maf => "Masked autoregressive flow (Papamakarios et al. 2017)",
            Kind::Spline => "Couplings of rational-quadratic splines (Durkan et al. 2019)",
            Kind::SplineAutoregressive => "Autoregressive rational-quadratic splines (Durkan et al. 2019)",
            Kind::Planar => "Planar flows (Rezende & Mohamed 2015)",
            Kind::Radial => "Radial flows (Rezende & Mohamed 2015)",
            Kind::Sylvester => "Sylvester flows (van den Berg et al. 2018)",
            Kind::Ffjord => "Continuous flow trained by maximum likelihood (Grathwohl et al. 2019)",
            Kind::Matching => {
                "Continuous flow trained by flow matching with transport (Lipman et al. 2023, Tong et al. 2024)"
            }
        }
    }

    /// Whether it is the solution of a differential equation.
    pub fn is_continuous(self) -> bool {
        matches!(self, Kind::Ffjord | Kind::Matching)
    }

    /// Whether its maps are splines, which have bins.
    pub fn has_bins(self) -> bool {
        matches!(self, Kind::Spline | Kind::SplineAutoregressive)
    }

    /// Whether it has couplings, whose networks may see waves of their inputs.
    pub fn has_couplings(self) -> bool {
        matches!(self, Kind::Realnvp | Kind::Spline)
    }

    /// Whether samples cost much more than densities, unless the flow is turned round.
    pub fn has_slow_direction(self) -> bool {
        matches!(self, Kind::Maf | Kind::SplineAutoregressive | Kind::Planar | Kind::Radial | Kind::Sylvester)
    }

    /// Whether it has networks, which have hidden layers.
    pub fn has_hidden_layers(self) -> bool {
        !matches!(self, Kind::Planar | Kind::Radial | Kind::Sylvester)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The hyper-parameters of a model: what `config.json` holds of it. Fields that a family has no use for are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The family.
    pub kind: Kind,
    /// Layers of a discrete flow.
    pub layers: usize,
    /// Widths of the hidden layers of conditioners and fields.
    pub hidden: Vec<usize>,
    /// Factor of the first layer's initial weights of a continuous flow.
    #[serde(default = "one")]
    pub input_gain: f64,
    /// Whether the flow is turned round, so that samples are cheap and the density is not: only of families with a slow
    /// direction ([`Kind::has_slow_direction`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inverse: bool,
    /// Waves of each input that the networks of couplings see ([`Couplings::waves`](super::Couplings)).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waves: usize,
    /// Bins of a spline.
    pub bins: usize,
    /// Relative and absolute tolerance of the solver of a continuous flow in training.
    pub tolerance: f64,
    /// How a matched field is trained.
    pub matching: FlowMatching,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What a checkpoint without a gain has.
fn one() -> f64 {
    1.0
}

/// What a model is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Gradients matter, and what they cost: the solver's tolerance is the configured one, in many dimensions the
    /// divergence an estimate. Gradients are those of the steps that were taken, so a loose tolerance does not bias them.
    Training,
    /// Numbers matter: the trace is no estimate, the tolerance tight.
    Use,
}

impl ModelConfig {
    /// What the families are with nothing said.
    pub fn preset(kind: Kind) -> Self {
        let (layers, hidden) = match kind {
            Kind::Realnvp => (12, vec![64, 64]),
            Kind::Maf => (8, vec![64, 64]),
            Kind::Spline => (6, vec![64, 64]),
            Kind::SplineAutoregressive => (4, vec![64, 64]),
            Kind::Planar | Kind::Radial => (64, Vec::new()),
            Kind::Sylvester => (32, Vec::new()),
            Kind::Ffjord => (1, vec![64, 64, 64]),
            Kind::Matching => (1, vec![128, 128, 128]),
        };
        let matching = FlowMatching::new(Pairing::MinibatchOt { block: 128 })
            .times(TimeSampling::Stratified)
            .end_time(END_TIME)
            .sigma_min(0.0);
        // A matched field learns thin structures late, and no solver's stiffness punishes fast variation in training.
        let input_gain = if kind == Kind::Matching { 4.0 } else { one() };
        ModelConfig { kind, layers, hidden, input_gain, inverse: false, waves: 0, bins: 16, tolerance: 1e-3, matching }
    }

    /// The same with cheap samples: turned round if the family has a slow direction.
    #[must_use]
    pub fn sampled(mut self) -> Self {
        self.inverse = self.kind.has_slow_direction();
        self
    }

    /// The model over vectors of `features` entries, with fresh parameters of the store's seed.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the number that makes no model.
    pub fn build(&self, features: usize, store: &ParamStore, purpose: Purpose) -> Result<Model> {
        self.build_given(features, 0, store, purpose)
    }

    /// As [`ModelConfig::build`], a density given a context of so many entries, `p(x | c)`; none if that is zero.
    ///
    /// # Errors
    /// As [`ModelConfig::build`].
    pub fn build_given(&self, features: usize, context: usize, store: &ParamStore, purpose: Purpose) -> Result<Model> {
        if self.kind.is_continuous() {
            return self.continuous(features, context, store, purpose);
        }
        Ok(Model::Discrete(over_gaussian(store, self.chain(features, context, &store.root())?)?))
    }

    /// The layers of a discrete flow over vectors of `features` entries given a context of `context` numbers, none for zero,
    /// with their parameters under `path`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the number that makes no model, and for a continuous one.
    pub fn chain(&self, features: usize, context: usize, path: &ParamPath) -> Result<Chain> {
        let (layers, hidden) = (self.layers, self.hidden.as_slice());
        let spline = TransformerConfig::spline(self.bins);
        if self.inverse && !self.kind.has_slow_direction() {
            let reason = format!("a {} flow has no slow direction to turn round", self.kind);
            return Err(Error::config("inverse", reason));
        }
        let coupling = |flow: Couplings| flow.transforms(layers).hidden(hidden).waves(self.waves).context(context);
        let autoregressive = |flow: Autoregressive| {
            let flow = flow.transforms(layers).hidden(hidden).context(context);
            if self.inverse { flow.inverse() } else { flow }
        };
        let bumps = |flow: Bumps| {
            let flow = flow.transforms(layers).context(context);
            if self.inverse { flow.inverse() } else { flow }
        };
        match self.kind {
            Kind::Realnvp => coupling(realnvp(features)).bijector(path),
            Kind::Maf => autoregressive(maf(features)).bijector(path),
            Kind::Spline => coupling(nsf_coupling(features)).transformer(spline).bijector(path),
            Kind::SplineAutoregressive => {
                autoregressive(nsf_autoregressive(features)).transformer(spline).bijector(path)
            }
            Kind::Planar => bumps(planar(features)).bijector(path),
            Kind::Radial => bumps(radial(features)).bijector(path),
            Kind::Sylvester => bumps(sylvester(features)).bijector(path),
            Kind::Ffjord | Kind::Matching => {
                Err(Error::config("model", format!("a {} flow has no layers; take a discrete one", self.kind)))
            }
        }
    }

    fn continuous(&self, features: usize, context: usize, store: &ParamStore, purpose: Purpose) -> Result<Model> {
        let (tolerance, exact) = match purpose {
            Purpose::Training => (self.tolerance, features <= EXACT_IN_TRAINING),
            Purpose::Use => (self.tolerance.min(TIGHT), true),
        };
        let divergence = if exact { Divergence::Exact } else { Divergence::Hutchinson(Probe::Rademacher) };
        let flow = cnf(features).hidden(&self.hidden).input_gain(self.input_gain).context(context);
        Ok(Model::Continuous(Box::new(flow.tolerance(tolerance).divergence(divergence).build(store)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_configuration() {
        for kind in Kind::ALL {
            let written = serde_json::to_value(kind).unwrap();
            assert_eq!(written, kind.name());
            assert_eq!(
                (serde_json::from_value::<Kind>(written).unwrap(), Kind::named(kind.name())),
                (kind, Some(kind))
            );
        }
    }
}
