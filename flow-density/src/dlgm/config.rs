//! The hyper-parameters of a deep latent Gaussian model.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The most values of any size: beyond it a mistake, and memory.
const LARGEST: usize = 1 << 16;

/// The family of maps of a posterior.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Family {
    /// Planar maps whose parameters the encoder makes for every image (the paper's NF).
    Planar,
    /// Radial maps, likewise.
    Radial,
    /// Sylvester maps of [`DlgmConfig::units`] units, likewise (van den Berg et al. 2018, arXiv 1803.05649).
    Sylvester,
    /// Additive couplings with random permutations between them, whose networks see features of the image (the paper's
    /// NICE-perm): they keep volumes.
    Nice,
    /// Affine autoregressive maps, the order turned round between them, whose networks see features of the image (the
    /// inverse autoregressive flow, Kingma et al. 2016, arXiv 1606.04934).
    Iaf,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 5] = [Family::Planar, Family::Radial, Family::Sylvester, Family::Nice, Family::Iaf];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Family::Planar => "planar",
            Family::Radial => "radial",
            Family::Sylvester => "sylvester",
            Family::Nice => "nice",
            Family::Iaf => "iaf",
        }
    }
}

/// What a [`Dlgm`](super::Dlgm) is built of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DlgmConfig {
    /// Height and width of the images.
    pub shape: [usize; 2],
    /// Length of `z`.
    pub latents: usize,
    /// Maxout units of the encoder, and of the decoder.
    pub hidden: usize,
    /// Affine functions of each unit.
    pub pieces: usize,
    /// The family of the posterior's maps.
    pub family: Family,
    /// How many maps; with none the posterior is a diagonal Gaussian.
    pub flows: usize,
    /// For [`Family::Nice`] and [`Family::Iaf`]: units of the hidden layer of a map's network, and features of the image
    /// that it sees.
    #[serde(default = "default_network")]
    pub network: usize,
    /// For [`Family::Sylvester`]: units of a map, at most as many as latents.
    #[serde(default = "default_units")]
    pub units: usize,
}

fn default_units() -> usize {
    8
}

fn default_network() -> usize {
    64
}

impl DlgmConfig {
    /// The paper's model of images of `[height, width]`: 40 latents, one hidden layer of 400 maxout units of 4 functions in
    /// the encoder and in the decoder.
    pub fn new(shape: [usize; 2], family: Family, flows: usize) -> Self {
        DlgmConfig {
            shape,
            latents: 40,
            hidden: 400,
            pieces: 4,
            family,
            flows,
            network: default_network(),
            units: default_units(),
        }
    }

    /// Pixels of an image.
    pub fn pixels(&self) -> usize {
        self.shape[0].saturating_mul(self.shape[1])
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the field, its value and the legal range.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("pixels", self.pixels(), 1, LARGEST),
            ("latents", self.latents, 1, LARGEST),
            ("hidden", self.hidden, 1, LARGEST),
            ("pieces", self.pieces, 1, 256),
            ("flows", self.flows, 0, 4096),
            ("network", self.network, 1, LARGEST),
            ("units", self.units, 1, LARGEST),
        ];
        for (name, value, least, most) in sizes {
            if !(least..=most).contains(&value) {
                return Err(Error::config(name, format!("is {value}, must be {least} to {most}")));
            }
        }
        if self.family == Family::Sylvester && self.flows > 0 && self.units > self.latents {
            let reason = format!("is {}, more than the {} latents", self.units, self.latents);
            return Err(Error::config("units", reason));
        }
        if self.family == Family::Nice && self.flows > 0 && self.latents < 2 {
            return Err(Error::config("latents", "is 1, a coupling (nice) needs two; take another family"));
        }
        Ok(())
    }

    /// In words.
    pub fn words(&self) -> String {
        let posterior = match self.flows {
            0 => "diagonal Gaussian".to_string(),
            k => format!("Gaussian and {k} {} maps", self.family.name()),
        };
        let ([height, width], Self { latents, hidden, pieces, .. }) = (self.shape, self);
        format!(
            "deep latent Gaussian model of {height}x{width} binary pixels, {latents} latents, {hidden} maxout units of \
             {pieces}; posterior: {posterior}"
        )
    }
}
