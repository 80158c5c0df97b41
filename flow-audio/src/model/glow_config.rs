//! Hyper-parameters of WaveGlow.

use flow_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::config::MOST;

/// WaveGlow (Prenger, Valle and Catanzaro 2018, arXiv 1811.00002): a waveform is squeezed into groups of samples, which each
/// flow mixes by an invertible matrix before it maps one half of them by an affine function of the other half and of a mel
/// spectrogram. Some of them become the latent early.
///
/// The default is the paper's model: 12 flows of 8 layers over groups of 8 samples, 256 channels, 2 samples of a group leaving
/// before every fourth flow, 80 mel bands, hop 256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct WaveGlowConfig {
    /// Adjacent samples of a group, an even number.
    pub group: usize,
    /// `C`, channels of the networks.
    pub channels: usize,
    /// Flows.
    pub flows: usize,
    /// Residual layers of each network; layer `l` is dilated by `2^l` groups.
    pub layers: usize,
    /// Flows between two early outputs.
    pub early_every: usize,
    /// Samples of a group that leave each time, an even number; zero for none.
    pub early_size: usize,
    /// Bands of the mel spectrogram.
    pub mels: usize,
    /// Samples per frame of the spectrogram.
    pub hop: usize,
    /// Frames that reach a sample: as many hops is the kernel of the conditioner's transposed convolution long.
    pub reach: usize,
}

impl Default for WaveGlowConfig {
    fn default() -> Self {
        WaveGlowConfig {
            group: 8,
            channels: 256,
            flows: 12,
            layers: 8,
            early_every: 4,
            early_size: 2,
            mels: 80,
            hop: 256,
            reach: 4,
        }
    }
}

impl WaveGlowConfig {
    /// `channels` channels, `flows` flows of `layers` layers; the rest as in the paper.
    pub fn new(channels: usize, flows: usize, layers: usize) -> Self {
        WaveGlowConfig { channels, flows, layers, ..WaveGlowConfig::default() }
    }

    /// Samples of a group that have left before a flow.
    pub fn left_before(&self, flow: usize) -> usize {
        (flow / self.early_every.max(1)).saturating_mul(self.early_size)
    }

    /// Trainable numbers, those of the weight normalization's magnitudes among them, as they are published (87.9 million).
    pub fn parameter_count(&self) -> usize {
        let (c, context) = (self.channels, self.mels * self.group);
        let normed = |outputs: usize, inputs: usize| outputs * inputs + 2 * outputs;
        let flow = |k: usize| {
            let size = self.group - self.left_before(k);
            let half = size / 2;
            let layers = self.layers * (normed(2 * c, 3 * c) + normed(2 * c, context));
            let outs = (self.layers - 1) * normed(2 * c, c) + normed(c, c);
            size * size + normed(c, half) + layers + outs + size * c + size
        };
        let upsampling = self.mels * self.mels * self.reach * self.hop + self.mels;
        (0..self.flows).map(flow).sum::<usize>() + upsampling
    }

    /// Checks every size.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first that is out of range.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str, reason: String| Err(Error::config(format!("waveglow {what}"), reason));
        if !(2..=256).contains(&self.group) || !self.group.is_multiple_of(2) {
            return refuse("group", format!("must be an even number of 2 to 256 samples, not {}", self.group));
        }
        for (what, size, most) in [
            ("channels", self.channels, MOST),
            ("flows", self.flows, MOST),
            ("layers", self.layers, 16),
            ("early_every", self.early_every, MOST),
            ("mels", self.mels, MOST),
            ("hop", self.hop, 1 << 16),
            ("reach", self.reach, 64),
        ] {
            if size == 0 || size > most {
                return refuse(what, format!("must be 1 to {most}, not {size}"));
            }
        }
        let left = self.left_before(self.flows - 1);
        if !self.early_size.is_multiple_of(2) || left.saturating_add(2) > self.group {
            let reason = format!(
                "must be even and leave two samples of the group of {} for the last flow, not {} every {} of {} flows",
                self.group, self.early_size, self.early_every, self.flows
            );
            return refuse("early_size", reason);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 87,731,816 weights and biases, and a magnitude for each output of a normalised convolution.
    #[test]
    fn the_size_is_the_published_one() {
        let published = WaveGlowConfig::default();
        assert_eq!(published.parameter_count(), 87_731_816 + 12 * (256 + 8 * 512 + 8 * 512 + 7 * 512 + 256));
        assert_eq!((published.parameter_count() as f64 / 1e5).round(), 879.0);
        assert_eq!((published.left_before(3), published.left_before(4), published.left_before(11)), (0, 2, 4));
    }

    #[test]
    fn misfits_are_named() {
        let refused = |change: fn(&mut WaveGlowConfig), word: &str| {
            let mut config = WaveGlowConfig::default();
            change(&mut config);
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        };
        refused(|c| c.group = 7, "group");
        refused(|c| c.flows = 0, "flows");
        refused(|c| c.flows = 17, "early_size");
        refused(|c| c.early_size = 1, "early_size");
        refused(|c| c.early_every = 0, "early_every");
        refused(|c| c.layers = 17, "layers");
        refused(|c| c.reach = 0, "reach");
        assert!(WaveGlowConfig { early_size: 0, flows: 40, ..WaveGlowConfig::default() }.check().is_ok());
    }
}
