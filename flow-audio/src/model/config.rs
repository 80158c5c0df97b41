//! Hyper-parameters of WaveFlow.

use flow_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The order in which rows leave a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Permutation {
    /// All rows reversed after every flow (section 3.4, strategy a).
    Reverse,
    /// All rows reversed after the first half of the flows, each half of the rows reversed by itself after the others
    /// (strategy b, the paper's best).
    #[default]
    Bipartite,
}

/// WaveFlow (Ping et al. 2019, arXiv 1912.01219, section 3): a waveform is squeezed into `h` rows, of which each flow maps
/// all but the first by an affine function whose parameters a dilated convolutional network takes from the rows before and
/// from a mel spectrogram.
///
/// The default is the paper's small model: 8 flows of 8 layers, 16 rows, 64 channels, 80 mel bands, hop 256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct WaveFlowConfig {
    /// `h`, samples of a column: 8, 16, 32, 64 or 128.
    pub height: usize,
    /// `C`, channels of the networks.
    pub channels: usize,
    /// Flows.
    pub flows: usize,
    /// Residual layers of each network; layer `l` is dilated by `2^l` columns.
    pub layers: usize,
    /// The order in which rows leave a flow.
    pub permutation: Permutation,
    /// Bands of the mel spectrogram.
    pub mels: usize,
    /// Strides of the conditioner's transposed convolutions: even, and their product is the hop, samples per frame.
    pub upsample: Vec<usize>,
    /// Whether convolutions see no later column: not the paper's, but exact in a stream.
    pub causal_width: bool,
}

impl Default for WaveFlowConfig {
    fn default() -> Self {
        WaveFlowConfig {
            height: 16,
            channels: 64,
            flows: 8,
            layers: 8,
            permutation: Permutation::Bipartite,
            mels: 80,
            upsample: vec![16, 16],
            causal_width: false,
        }
    }
}

/// Sizes beyond which a description is taken for a mistake rather than for a model.
pub(super) const MOST: usize = 4096;

impl WaveFlowConfig {
    /// `height` rows, `channels` channels, `flows` flows of `layers` layers; the rest as in the paper.
    pub fn new(height: usize, channels: usize, flows: usize, layers: usize) -> Self {
        WaveFlowConfig { height, channels, flows, layers, ..WaveFlowConfig::default() }
    }

    /// The same for frames of `hop` samples: two strides as near to each other as can be, or one.
    ///
    /// # Errors
    /// [`Error::Config`] for a hop that is not even.
    pub fn with_hop(mut self, hop: usize) -> Result<Self> {
        if hop == 0 || !hop.is_multiple_of(2) || hop > 1 << 16 {
            return Err(Error::config("hop", format!("must be even and at most 65536 samples, not {hop}")));
        }
        let even = |n: usize| n.is_multiple_of(2);
        let pair =
            (2..).take_while(|s| s * s <= hop).filter(|&s| hop.is_multiple_of(s) && even(s) && even(hop / s)).last();
        self.upsample = pair.map_or(vec![hop], |small| vec![hop / small, small]);
        Ok(self)
    }

    /// Samples per frame of the spectrogram.
    pub fn hop(&self) -> usize {
        self.upsample.iter().product()
    }

    /// `d_h` of a layer: rows between the taps of its kernel, by the authors' table for each height (section 3.2).
    pub fn height_dilation(&self, layer: usize) -> usize {
        let table: [usize; 8] = match self.height {
            32 => [1, 2, 4, 1, 2, 4, 1, 2],
            64 => [1, 2, 4, 8, 16, 1, 2, 4],
            128 => [1, 2, 4, 8, 16, 32, 64, 1],
            _ => [1; 8],
        };
        table[layer % 8]
    }

    /// `d_w = 2^l`, columns between the taps of layer `l`.
    pub fn width_dilation(&self, layer: usize) -> usize {
        1 << layer
    }

    /// Trainable numbers with the weight normalization multiplied out, as they are published:
    /// `flows·(layers·(20 C² + 6 C + 2 M C) + 4 C + 2) + Σ (6 s + 1)`.
    pub fn parameter_count(&self) -> usize {
        let c = self.channels;
        let layer = 18 * c * c + 2 * c + 2 * self.mels * c + 2 * c + 2 * c * c + 2 * c;
        let conditioner: usize = self.upsample.iter().map(|stride| 6 * stride + 1).sum();
        self.flows * (self.layers * layer + 4 * c + 2) + conditioner
    }

    /// Where each row of a flow's input was before the first flow; entry `k` is for flow `k`, the last for the latent.
    pub(crate) fn row_orders(&self) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.height).collect();
        let mut orders = vec![order.clone()];
        for flow in 0..self.flows {
            order = self.permuted_rows(flow).into_iter().map(|row| order[row]).collect();
            orders.push(order.clone());
        }
        orders
    }

    /// The row that each row after flow `flow` was before its permutation, which is its own inverse.
    pub(crate) fn permuted_rows(&self, flow: usize) -> Vec<usize> {
        let half = self.height / 2;
        match self.permutation {
            Permutation::Bipartite if flow >= self.flows / 2 => {
                (0..half).rev().chain((half..self.height).rev()).collect()
            }
            _ => (0..self.height).rev().collect(),
        }
    }

    /// Checks every size.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first that is out of range.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str, reason: String| Err(Error::config(format!("waveflow {what}"), reason));
        if ![8, 16, 32, 64, 128].contains(&self.height) {
            return refuse("height", format!("must be 8, 16, 32, 64 or 128, not {}", self.height));
        }
        for (what, size, most) in [
            ("channels", self.channels, MOST),
            ("flows", self.flows, MOST),
            ("layers", self.layers, 16),
            ("mels", self.mels, MOST),
        ] {
            if size == 0 || size > most {
                return refuse(what, format!("must be 1 to {most}, not {size}"));
            }
        }
        let fits = |s: &usize| *s > 0 && s.is_multiple_of(2) && *s <= MOST;
        if self.upsample.is_empty() || self.upsample.len() > 4 || !self.upsample.iter().all(fits) {
            return refuse(
                "upsample",
                format!("must be one to four even strides of at most {MOST}, not {:?}", self.upsample),
            );
        }
        Ok(())
    }

    /// Checks that the strides make up the hop of the spectrograms that the model is for.
    ///
    /// # Errors
    /// [`Error::Config`] naming both.
    pub fn check_hop(&self, hop: usize) -> Result<()> {
        if self.hop() == hop {
            return Ok(());
        }
        let reason = format!(
            "strides {:?} make {} samples of a frame, the spectrogram has a hop of {hop}",
            self.upsample,
            self.hop()
        );
        Err(Error::config("waveflow upsample", reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_split_and_checked() {
        let split = |hop| WaveFlowConfig::default().with_hop(hop).unwrap().upsample;
        assert_eq!((split(256), split(200), split(2)), (vec![16, 16], vec![20, 10], vec![2]));
        assert!(WaveFlowConfig::default().with_hop(125).is_err());
        let message = WaveFlowConfig::default().check_hop(200).unwrap_err().to_string();
        assert!(message.contains("256") && message.contains("200"), "{message}");
    }

    #[test]
    fn misfits_are_named() {
        let refused = |change: fn(&mut WaveFlowConfig), word: &str| {
            let mut config = WaveFlowConfig::default();
            change(&mut config);
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        };
        refused(|c| c.height = 24, "height");
        refused(|c| c.channels = 0, "channels");
        refused(|c| c.layers = 40, "layers");
        refused(|c| c.upsample = vec![16, 15], "upsample");
        let unknown: std::result::Result<WaveFlowConfig, _> = serde_json::from_str(r#"{"heigth": 16}"#);
        assert!(unknown.is_err());
    }

    #[test]
    fn permutations_undo_themselves() {
        for permutation in [Permutation::Reverse, Permutation::Bipartite] {
            let config = WaveFlowConfig { permutation, ..WaveFlowConfig::default() };
            for flow in 0..8 {
                let rows = config.permuted_rows(flow);
                assert!((0..16).all(|row| rows[rows[row]] == row));
            }
            assert_eq!(config.permuted_rows(7)[0], if permutation == Permutation::Reverse { 15 } else { 7 });
        }
    }
}
