//! Which flow: what `train`, `fit` and `posterior` let choose.

use anyhow::{Result, ensure};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use flow_density::model::{Kind, ModelConfig};

use crate::cli::at_least_one;

/// Variables up to which splines suit a density.
const MANY: usize = 16;

/// A family of flows and its sizes.
#[derive(Args, Debug, Clone)]
pub(super) struct FamilyArg {
    /// Family of flows [default: spline]
    #[arg(id = "model", long = "model", value_name = "MODEL", value_parser = kinds())]
    chosen: Option<Kind>,
    /// Layers of a discrete flow [default: depends on the model, see `density info --presets`]
    #[arg(long)]
    pub(super) layers: Option<usize>,
    /// Widths of the hidden layers, comma-separated [default: depends on the model]
    #[arg(long, value_delimiter = ',')]
    hidden: Option<Vec<usize>>,
    /// Number of bins of a spline
    #[arg(long)]
    bins: Option<usize>,
    /// Waves of their inputs that the networks of couplings see, for densities that bend often [default: none]
    #[arg(long, value_name = "N")]
    waves: Option<usize>,
}

impl FamilyArg {
    /// The family.
    pub(super) fn kind(&self) -> Kind {
        self.chosen.unwrap_or(Kind::Spline)
    }

    /// The same for so many variables, where none was chosen: splines of many variables are slow and gain little.
    pub(super) fn suited_to(&self, variables: usize) -> Self {
        let suited = if variables > MANY { Kind::Realnvp } else { Kind::Spline };
        FamilyArg { chosen: Some(self.chosen.unwrap_or(suited)), ..self.clone() }
    }

    /// The family's preset with what was chosen.
    pub(super) fn plan(&self) -> Result<ModelConfig> {
        let kind = self.kind();
        let mut model = ModelConfig::preset(kind);
        ensure!(!kind.is_continuous() || self.layers.is_none(), "--layers is for discrete flows, see --hidden");
        model.layers = self.layers.unwrap_or(model.layers);
        at_least_one("--layers", model.layers)?;
        ensure!(kind.has_bins() || self.bins.is_none(), "--bins is for --model spline");
        model.bins = self.bins.unwrap_or(model.bins);
        ensure!(kind.has_couplings() || self.waves.is_none(), "--waves is for couplings: --model spline or realnvp");
        model.waves = self.waves.unwrap_or(model.waves);
        if let Some(hidden) = &self.hidden {
            ensure!(kind.has_hidden_layers(), "--hidden: a {kind} flow has no hidden layers, see --layers");
            model.hidden.clone_from(hidden);
        }
        Ok(model)
    }

    /// The same where continuous flows serve nothing, for `reason`.
    pub(super) fn plan_discrete(&self, reason: &str) -> Result<ModelConfig> {
        ensure!(!self.kind().is_continuous(), "--model {}: {reason}; take a discrete one", self.kind());
        self.plan()
    }
}

/// Families by their names.
fn kinds() -> impl TypedValueParser<Value = Kind> {
    let named = |kind: Kind| PossibleValue::new(kind.name()).help(kind.description());
    PossibleValuesParser::new(Kind::ALL.map(named)).try_map(|name| Kind::named(&name).ok_or("no family of flows"))
}
