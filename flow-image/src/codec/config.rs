//! The hyper-parameters of an integer discrete flow, with named presets.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Hyper-parameters of an [`Idf`](super::Idf); what is serialised describes the architecture completely.
///
/// `Default` suits small grey images; [`IdfConfig::preset`] knows the data sets of the literature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct IdfConfig {
    /// Factor-out levels at most; a side that is odd or below four ends the pyramid earlier.
    pub scales: usize,
    /// Integer couplings per level: the first changes the kept quarter given the rest, the second the
    /// rest given the kept quarter, and so on. Zero leaves all the work to the priors.
    pub couplings: usize,
    /// Hidden channels of the coupling networks.
    pub coupling_width: usize,
    /// Hidden channels of the networks behind the priors.
    pub width: usize,
    /// Residual blocks of the networks behind the priors.
    pub blocks: usize,
    /// Hidden channels of the network behind the prior of the coarsest level.
    pub top_width: usize,
    /// Logistic components in every mixture.
    pub components: usize,
}

impl Default for IdfConfig {
    fn default() -> Self {
        IdfConfig { scales: 2, couplings: 1, coupling_width: 16, width: 32, blocks: 1, top_width: 32, components: 5 }
    }
}

/// The names that [`IdfConfig::preset`] knows.
pub const PRESETS: [&str; 4] = ["idf-mnist", "idf-fashion", "idf-cifar10", "idf-digits"];

impl IdfConfig {
    /// A configuration by name, one of [`PRESETS`].
    ///
    /// # Errors
    /// An unknown name, listing the known ones.
    pub fn preset(name: &str) -> Result<Self> {
        let base = IdfConfig::default();
        match name {
            // Measured: couplings lengthen these archives by 8 to 23 per cent at budgets of minutes (see the module).
            "idf-mnist" | "idf-fashion" => Ok(IdfConfig { couplings: 0, blocks: 2, top_width: 24, ..base }),
            "idf-cifar10" => Ok(IdfConfig { scales: 3, width: 48, ..base }),
            "idf-digits" => Ok(IdfConfig { scales: 1, ..base }),
            _ => Err(Error::config("preset", format!("'{name}' is none of {}", PRESETS.join(", ")))),
        }
    }

    /// Checks that every size is usable.
    ///
    /// # Errors
    /// A width or a number of components of zero or beyond what a network of this kind can use.
    pub fn validate(&self) -> Result<()> {
        let within = |what: &str, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Error::config(format!("idf {what}"), format!("must be {least} to {most}, got {value}")))
        };
        within("scales", self.scales, 0, 8)?;
        within("couplings", self.couplings, 0, 8)?;
        within("coupling_width", self.coupling_width, 1, 4096)?;
        within("width", self.width, 1, 4096)?;
        within("blocks", self.blocks, 0, 64)?;
        within("top_width", self.top_width, 1, 4096)?;
        within("components", self.components, 1, 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid_and_survives_json() {
        for name in PRESETS {
            let config = IdfConfig::preset(name).unwrap();
            config.validate().unwrap();
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<IdfConfig>(&json).unwrap(), config);
        }
        assert!(IdfConfig::preset("glow").unwrap_err().to_string().contains("idf-mnist"));
    }

    #[test]
    fn a_zero_width_is_refused_by_name() {
        let config = IdfConfig { width: 0, ..IdfConfig::default() };
        assert!(config.validate().unwrap_err().to_string().contains("idf width"));
        assert!(serde_json::from_str::<IdfConfig>(r#"{"widht": 3}"#).is_err());
    }
}
