//! How a path becomes clips.

use serde::{Deserialize, Serialize};

use super::Voices;
use crate::{Error, Result};

/// How a path becomes clips, and clips three parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OpenOptions {
    /// The rate that clips must have, in Hz; that of the first one if `None`.
    pub rate: Option<u32>,
    /// Bring clips of other rates to [`OpenOptions::rate`] rather than refusing them.
    pub resample: bool,
    /// Leave out, and count, files that cannot be read, rather than refusing the folder.
    pub skip_broken: bool,
    /// The fewest samples that a clip must have; shorter ones are left out and named in the notes.
    pub samples: usize,
    /// How voices are synthesised, where the source is `voices`; the default if `None`.
    pub voices: Option<Voices>,
    /// Fraction of the training clips held out to validate on, where the source has no such part.
    pub validation: f64,
    /// Fraction of all clips held out to test on, where the source has no such part.
    pub test: f64,
    /// Seed of both choices and of the voices.
    pub seed: u64,
}

impl Default for OpenOptions {
    /// Clips as they are; five per cent to validate on, ten to test on.
    fn default() -> Self {
        OpenOptions {
            rate: None,
            resample: false,
            skip_broken: false,
            samples: 1,
            voices: None,
            validation: 0.05,
            test: 0.1,
            seed: 0,
        }
    }
}

impl OpenOptions {
    /// The same options with these fractions held out to validate and to test on.
    #[must_use]
    pub fn with_held_out(mut self, validation: f64, test: f64) -> Self {
        (self.validation, self.test) = (validation, test);
        self
    }

    /// The same options with this rate, to which clips are brought if `resample`.
    #[must_use]
    pub fn with_rate(mut self, rate: u32, resample: bool) -> Self {
        (self.rate, self.resample) = (Some(rate), resample);
        self
    }

    /// Whether every option is inside its domain.
    pub(super) fn check(&self) -> Result<()> {
        for (name, fraction) in [("validation", self.validation), ("test", self.test)] {
            if !(0.0..1.0).contains(&fraction) {
                let reason = format!("must be a fraction of at least 0 and below 1, got {fraction}");
                return Err(Error::config(name, reason));
            }
        }
        match self.rate {
            Some(rate) if !(1..=1_000_000).contains(&rate) => {
                Err(Error::config("rate", format!("must be 1 to 1000000 Hz, got {rate}")))
            }
            None if self.resample => Err(Error::config(
                "resample",
                "needs the rate to bring clips to: that of a spectrogram, named with --mel",
            )),
            _ => Ok(()),
        }
    }
}
