//! What an image is to a model: its size and how many values a pixel can take.

use flow_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The shape of one image and its number of intensity levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ImageSpec {
    /// Colour channels `C`; any number.
    pub channels: usize,
    /// Rows `H`.
    pub height: usize,
    /// Columns `W`.
    pub width: usize,
    /// Pixels take the values `0 … levels - 1`; `2..=256`, `2^bits` for images of that many bits.
    pub levels: usize,
}

impl ImageSpec {
    /// A checked specification.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty image or levels outside `2..=256`.
    pub fn new(channels: usize, height: usize, width: usize, levels: usize) -> Result<Self> {
        let spec = ImageSpec { channels, height, width, levels };
        spec.validate()?;
        Ok(spec)
    }

    /// Checks what [`ImageSpec::new`] checks, for a specification that was read from a file.
    ///
    /// # Errors
    /// As [`ImageSpec::new`].
    pub fn validate(&self) -> Result<()> {
        if self.dims() == 0 {
            return Err(Error::config("image size", format!("{self} has no pixels")));
        }
        if !(2..=256).contains(&self.levels) {
            return Err(Error::config("image levels", format!("must be in 2..=256, got {}", self.levels)));
        }
        Ok(())
    }

    /// `D = C · H · W`, the dimensions that bits/dim divides by.
    pub fn dims(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// `(C, H, W)`.
    pub fn event_shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// How many times both sides can be halved.
    pub fn halvings(&self) -> usize {
        self.height.trailing_zeros().min(self.width.trailing_zeros()) as usize
    }

    /// Checks that a model of `scales` scales, which halves the image `halvings` times, fits.
    ///
    /// # Errors
    /// [`Error::Config`] that says how many scales do fit and to which size padding would help.
    pub fn check_scales(&self, model: &str, scales: usize, halvings: usize) -> Result<()> {
        let fits = self.halvings();
        if halvings <= fits {
            return Ok(());
        }
        let (h, w) = (self.height, self.width);
        let unit = u32::try_from(halvings).ok().and_then(|n| 1usize.checked_shl(n)).unwrap_or(usize::MAX);
        let mut reason = format!("{h}x{w} pixels can be halved {fits} times, {scales} scales halve {halvings} times; ");
        reason += &match scales.saturating_sub(halvings - fits) {
            0 => String::new(),
            most => format!("use at most {most} scales or "),
        };
        let padded = |side: usize| side.checked_next_multiple_of(unit);
        match (padded(h), padded(w)) {
            (Some(h), Some(w)) => reason += &format!("pad the images to {h}x{w}"),
            _ => reason += "use fewer scales",
        }
        Err(Error::config(format!("{model} on {self}"), reason))
    }
}

impl std::fmt::Display for ImageSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{} images", self.channels, self.height, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_many_scales_fit_and_which_padding_helps() {
        let spec = ImageSpec::new(1, 28, 30, 256).unwrap();
        assert!(spec.check_scales("glow", 1, 1).is_ok());
        let message = spec.check_scales("glow", 3, 3).unwrap_err().to_string();
        assert!(message.contains("at most 1 scales") && message.contains("pad the images to 32x32"), "{message}");
        let odd = ImageSpec::new(3, 5, 8, 2).unwrap().check_scales("glow", 1, 1).unwrap_err().to_string();
        assert!(!odd.contains("at most") && odd.contains("6x8"), "{odd}");
        assert!(spec.check_scales("glow", 200, 200).is_err());
    }

    #[test]
    fn refuses_empty_images_and_impossible_levels() {
        assert!(ImageSpec::new(0, 8, 8, 256).is_err());
        assert!(ImageSpec::new(1, 8, 8, 1).is_err() && ImageSpec::new(1, 8, 8, 257).is_err());
    }
}
