//! Slaney's mel scale and the triangles on it.

use super::MelConfig;

/// Hz in a mel of the linear part.
const STEP: f64 = 200.0 / 3.0;
/// Where the logarithmic part begins, in Hz and in mels.
const BREAK_HZ: f64 = 1000.0;
const BREAK_MEL: f64 = BREAK_HZ / STEP;

/// Natural logarithm of the ratio of two neighbouring mels above the break: 27 of them reach 6.4 times the frequency.
fn log_step() -> f64 {
    6.4f64.ln() / 27.0
}

/// Mels of a frequency in Hz: linear below 1 kHz, logarithmic above (Slaney, Auditory Toolbox, 1998).
pub fn hz_to_mel(hz: f64) -> f64 {
    if hz < BREAK_HZ { hz / STEP } else { BREAK_MEL + (hz / BREAK_HZ).ln() / log_step() }
}

/// The inverse of [`hz_to_mel`].
pub fn mel_to_hz(mel: f64) -> f64 {
    if mel < BREAK_MEL { mel * STEP } else { BREAK_HZ * ((mel - BREAK_MEL) * log_step()).exp() }
}

/// The weights of the bins of a transform in every band: `mel = basis · magnitude`.
///
/// Band `i` is a triangle over frequency between points `i` and `i + 2` of `mels + 2` points that lie evenly on the mel
/// scale, of height `2 / (f_{i+2} − f_i)`, so that its area is one (Slaney's norm, the default of librosa).
#[derive(Debug, Clone, PartialEq)]
pub struct MelBasis {
    bins: usize,
    bands: Vec<Band>,
}

/// A band's first bin and the weights from there on.
#[derive(Debug, Clone, PartialEq)]
struct Band {
    first: usize,
    weights: Vec<f64>,
}

impl MelBasis {
    /// The basis of a configuration, computed in double precision.
    pub fn new(config: &MelConfig) -> Self {
        let bins = config.fft / 2 + 1;
        let hz_of_bin = f64::from(config.rate) / config.fft as f64;
        let (low, high) = (hz_to_mel(config.low), hz_to_mel(config.high));
        let point = |index: usize| mel_to_hz(low + (high - low) * index as f64 / (config.mels + 1) as f64);
        let band = |index: usize| {
            let (left, centre, right) = (point(index), point(index + 1), point(index + 2));
            let weight = |bin: usize| {
                let hz = bin as f64 * hz_of_bin;
                let triangle = ((hz - left) / (centre - left)).min((right - hz) / (right - centre)).max(0.0);
                triangle * 2.0 / (right - left)
            };
            let first = ((left / hz_of_bin).floor().max(0.0) as usize).min(bins);
            let last = ((right / hz_of_bin).ceil() as usize + 1).min(bins);
            Band { first, weights: (first..last).map(weight).collect() }
        };
        MelBasis { bins, bands: (0..config.mels).map(band).collect() }
    }

    /// Number of bins `N/2 + 1`.
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// Number of bands.
    pub fn mels(&self) -> usize {
        self.bands.len()
    }

    /// The first band that has no bin, and would be silent whatever it is told.
    pub(super) fn empty_band(&self) -> Option<usize> {
        self.bands.iter().position(|band| band.weights.iter().all(|&w| w <= 0.0))
    }

    /// All weights as a matrix `[mels, bins]`, row after row.
    pub fn matrix(&self) -> Vec<f64> {
        let mut matrix = vec![0.0; self.mels() * self.bins];
        for (row, band) in matrix.chunks_exact_mut(self.bins).zip(&self.bands) {
            let places = row.iter_mut().skip(band.first);
            places.zip(&band.weights).for_each(|(place, weight)| *place = *weight);
        }
        matrix
    }

    /// `basis · magnitudes`: `[bins]` to `[mels]`.
    pub fn apply(&self, magnitudes: &[f64]) -> Vec<f64> {
        let of = |band: &Band| {
            let bins = magnitudes.iter().skip(band.first);
            bins.zip(&band.weights).map(|(magnitude, weight)| magnitude * weight).sum()
        };
        self.bands.iter().map(of).collect()
    }

    /// `basisᵀ · values`: `[mels]` to `[bins]`.
    pub fn apply_transposed(&self, values: &[f64]) -> Vec<f64> {
        let mut bins = vec![0.0; self.bins];
        for (band, value) in self.bands.iter().zip(values) {
            let places = bins.iter_mut().skip(band.first);
            places.zip(&band.weights).for_each(|(place, weight)| *place += weight * value);
        }
        bins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_slaneys_and_inverts() {
        for (hz, mel) in [(0.0, 0.0), (200.0, 3.0), (1000.0, 15.0), (6400.0, 42.0)] {
            assert!((hz_to_mel(hz) - mel).abs() < 1e-12, "{hz}");
        }
        for hz in [0.0, 60.0, 999.9, 1000.0, 4321.0, 11_025.0] {
            assert!((mel_to_hz(hz_to_mel(hz)) - hz).abs() < 1e-9, "{hz}");
        }
    }

    /// Over frequency a triangle is one, so a wide band's weights sum to the bins in a hertz.
    #[test]
    fn bands_have_the_area_one_and_overlap_their_neighbours_only() {
        let config = MelConfig { fft: 16_384, window: 1024, ..MelConfig::tacotron2() };
        let basis = MelBasis::new(&config);
        let hz_of_bin = f64::from(config.rate) / config.fft as f64;
        for (index, band) in basis.bands.iter().enumerate() {
            let area: f64 = band.weights.iter().sum::<f64>() * hz_of_bin;
            assert!((area - 1.0).abs() < 2e-3, "band {index}: {area}");
        }
        let (first, third) = (&basis.bands[40], &basis.bands[42]);
        let end = first.first + first.weights.iter().rposition(|&w| w > 0.0).unwrap();
        assert!(end <= third.first + 1);
    }

    #[test]
    fn the_matrix_and_its_transpose_are_the_same_map() {
        let config = MelConfig { mels: 5, fft: 64, window: 64, hop: 16, ..MelConfig::tacotron2() };
        let basis = MelBasis::new(&config);
        let (matrix, bins) = (basis.matrix(), basis.bins());
        let x: Vec<f64> = (0..bins).map(|i| (i as f64 * 0.7).sin().abs()).collect();
        let y: Vec<f64> = (0..5).map(|i| i as f64 + 0.5).collect();
        for (row, value) in basis.apply(&x).iter().enumerate() {
            let wanted: f64 = (0..bins).map(|bin| matrix[row * bins + bin] * x[bin]).sum();
            assert!((value - wanted).abs() < 1e-15);
        }
        for (bin, value) in basis.apply_transposed(&y).iter().enumerate() {
            let wanted: f64 = (0..5).map(|row| matrix[row * bins + bin] * y[row]).sum();
            assert!((value - wanted).abs() < 1e-15);
        }
    }
}
