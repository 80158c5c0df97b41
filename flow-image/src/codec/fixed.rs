//! The same mixtures as [`mixture`](super::mixture), one pixel at a time in fixed point, for the coder.
//!
//! A range coder needs integers: the cumulative count `F(v)` of all symbols below `v`, out of `2²⁴`. It
//! is `F(v) = ⌊(2²⁴ - 2n) · P(< v)⌋ + 2 (v - lo)` for a support of `n` integers. The second term gives
//! every symbol a probability above zero, so that no value costs more than 23 bits, whatever the network
//! believes; and it keeps `F` increasing even where the last bit of `P` does not. `P` is computed in f64 with an exponential of our own: that of the
//! system's library may change with its version, and a coder that disagrees with itself about one count
//! decodes garbage.

use std::borrow::Borrow;
use std::num::NonZeroU32;

use constriction::stream::model::{DecoderModel, EncoderModel, EntropyModel};

use super::mixture::{LOG_SCALE_MIN, MixtureLayout, Support};

/// Bits of a probability.
pub(super) const PRECISION: usize = 24;
const ONE: u32 = 1 << PRECISION;

/// `e^x` from additions, multiplications and a power of two alone; relative error below 1e-15.
fn exp(x: f64) -> f64 {
    // ln 2 in two parts, the first with trailing zeros, so that k·LN2_HI is exact.
    const LN2_HI: f64 = 0.693_147_180_369_123_8;
    const LN2_LO: f64 = 1.908_214_929_270_587_7e-10;
    let x = x.clamp(-700.0, 700.0);
    let k = (x * std::f64::consts::LOG2_E).round();
    let r = x - k * LN2_HI - k * LN2_LO;
    // Taylor's series to r¹³/13!, |r| ≤ 0.35: the first omitted term is below 5e-18.
    let series = (1..=13).rev().fold(1.0, |sum, n| 1.0 + sum * r / f64::from(n));
    series * f64::from_bits(((1023 + k as i64) as u64) << 52)
}

/// `σ(x) = 1/(1 + e^{-x})`.
fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        return 1.0 / (1.0 + exp(-x));
    }
    let e = exp(x);
    e / (1.0 + e)
}

/// The mixture of one pixel, narrowed channel by channel.
///
/// Channel `c` is coded by [`PixelMixture::channel`]; [`PixelMixture::observe`] then tells its value, which
/// shifts the means of the channels after it and weighs the components anew.
pub(super) struct PixelMixture<'a> {
    layout: MixtureLayout,
    params: &'a [f32],
    base: &'a [i32],
    support: Support,
    weights: Vec<f64>,
    residuals: Vec<f64>,
}

impl<'a> PixelMixture<'a> {
    /// `params` are the [`MixtureLayout::parameters`] of the pixel, `base` one integer per channel.
    pub(super) fn new(layout: MixtureLayout, params: &'a [f32], base: &'a [i32], support: Support) -> Self {
        let logits = &params[..layout.components];
        let max = logits.iter().copied().fold(f32::MIN, f32::max);
        let mut weights: Vec<f64> = logits.iter().map(|&l| exp(f64::from(l) - f64::from(max))).collect();
        normalise(&mut weights);
        PixelMixture { layout, params, base, support, weights, residuals: Vec::with_capacity(layout.channels) }
    }

    /// The distribution of the next channel given those observed.
    pub(super) fn channel(&self) -> FixedMixture {
        let (layout, c) = (&self.layout, self.residuals.len());
        let (k_total, channels) = (layout.components, layout.channels);
        let (means, scales) = (k_total, k_total * (1 + channels));
        let coefficients = k_total * (1 + 2 * channels) + c * c.saturating_sub(1) / 2;
        let component = |k: usize| {
            let own = k * channels + c;
            let shift: f64 = self.residuals.iter().enumerate().fold(0.0, |sum, (j, &r)| {
                sum + f64::from(self.params[coefficients + k * layout.coefficients() + j]) * r
            });
            let mean = f64::from(self.base[c]) + layout.unit() * f64::from(self.params[means + own]) + shift;
            let log_scale = f64::from(self.params[scales + own]) + layout.log_scale_offset(k);
            let inverse = exp(-log_scale.clamp(LOG_SCALE_MIN, layout.log_scale_max()));
            Logistic { weight: self.weights[k], mean, inverse }
        };
        FixedMixture { components: (0..k_total).map(component).collect(), support: self.support }
    }

    /// Conditions on the value of the channel that `model` described.
    pub(super) fn observe(&mut self, model: &FixedMixture, value: i32) {
        let c = self.residuals.len();
        self.residuals.push(f64::from(value) - f64::from(self.base[c]));
        if self.residuals.len() == self.layout.channels {
            return;
        }
        let posterior: Vec<f64> =
            model.components.iter().map(|part| part.weight * part.bin(value, self.support)).collect();
        // Where every component rules the value out, the prior weights are as good as any.
        if posterior.iter().sum::<f64>() > f64::MIN_POSITIVE {
            self.weights = posterior;
            normalise(&mut self.weights);
        }
    }
}

fn normalise(weights: &mut [f64]) {
    let total: f64 = weights.iter().fold(0.0, |sum, w| sum + w);
    weights.iter_mut().for_each(|w| *w /= total);
}

/// One weighted logistic component.
#[derive(Debug, Clone, Copy)]
struct Logistic {
    weight: f64,
    mean: f64,
    inverse: f64,
}

impl Logistic {
    /// Probability of everything below `v`, the support's tails not yet folded in.
    fn below(&self, v: i32) -> f64 {
        sigmoid((f64::from(v) - 0.5 - self.mean) * self.inverse)
    }

    /// Probability of `v`, without the difference of near-equal numbers (see `mixture::log_bin`).
    fn bin(&self, v: i32, support: Support) -> f64 {
        let a = (f64::from(v) + 0.5 - self.mean) * self.inverse;
        let left = if v < support.hi { sigmoid(a) } else { 1.0 };
        let right = if v > support.lo { sigmoid(self.inverse - a) } else { 1.0 };
        let width = if v > support.lo && v < support.hi { 1.0 - exp(-self.inverse) } else { 1.0 };
        left * right * width
    }
}

/// The distribution of one integer in fixed point.
pub(super) struct FixedMixture {
    components: Vec<Logistic>,
    support: Support,
}

impl FixedMixture {
    /// `F(v)` for `lo ≤ v ≤ hi + 1`, strictly increasing from 0 to `2²⁴`.
    fn cumulative(&self, v: i32) -> u32 {
        let Support { lo, hi } = self.support;
        if v <= lo {
            return 0;
        }
        if v > hi {
            return ONE;
        }
        let free = ONE - 2 * self.support.len() as u32;
        let below = self.components.iter().fold(0.0, |sum, part| sum + part.weight * part.below(v));
        // The cast saturates, and the sum of rounded weights may exceed one by its last bit.
        ((f64::from(free) * below) as u32).min(free) + 2 * (v - lo) as u32
    }

    /// `F(v)` and `F(v + 1) - F(v)`.
    fn interval(&self, v: i32) -> Option<(u32, NonZeroU32)> {
        let left = self.cumulative(v);
        let mass = self.cumulative(v + 1).checked_sub(left).and_then(NonZeroU32::new)?;
        Some((left, mass))
    }

    /// `log₂` of what coding `v` costs, negated: the ideal code length in bits.
    #[cfg(test)]
    pub(super) fn cost(&self, v: i32) -> f64 {
        let mass = self.interval(v).map_or(0, |(_, mass)| mass.get());
        PRECISION as f64 - f64::from(mass).log2()
    }
}

impl EntropyModel<PRECISION> for &FixedMixture {
    type Symbol = i32;
    type Probability = u32;
}

impl EncoderModel<PRECISION> for &FixedMixture {
    fn left_cumulative_and_probability(&self, symbol: impl Borrow<i32>) -> Option<(u32, NonZeroU32)> {
        let v = *symbol.borrow();
        if v < self.support.lo || v > self.support.hi {
            return None;
        }
        self.interval(v)
    }
}

impl DecoderModel<PRECISION> for &FixedMixture {
    fn quantile_function(&self, quantile: u32) -> (i32, u32, NonZeroU32) {
        // Invariant of the bisection: F(low) ≤ quantile < F(high).
        let (mut low, mut high) = (self.support.lo, self.support.hi + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.cumulative(middle) <= quantile { low = middle } else { high = middle }
        }
        let (left, mass) = self.interval(low).unwrap_or((quantile, NonZeroU32::MIN));
        (low, left, mass)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use flow_core::FlowRng;

    use super::*;

    #[test]
    fn the_exponential_is_that_of_the_standard_library() {
        for i in -7000..=7000 {
            let x = f64::from(i) * 0.1 + 1e-3;
            let expected = x.clamp(-700.0, 700.0).exp();
            assert!((exp(x) / expected - 1.0).abs() < 1e-15, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f64::NEG_INFINITY) > 0.0 && exp(f64::INFINITY).is_finite());
    }

    fn params(layout: MixtureLayout, seed: u64, spread: f64) -> Vec<f32> {
        let drawn = FlowRng::seed_from(seed).normal(layout.parameters(), DType::F32, &Device::Cpu).unwrap();
        (drawn * spread).unwrap().to_vec1().unwrap()
    }

    #[test]
    fn counts_increase_and_the_quantile_inverts_them() {
        let layout = MixtureLayout { channels: 1, components: 4, levels: 256 };
        let support = Support { lo: -64, hi: 319 };
        for (seed, spread) in [(0, 0.0), (1, 1.0), (2, 10.0), (3, 1e4), (4, 1e30)] {
            let params = params(layout, seed, spread);
            let model = PixelMixture::new(layout, &params, &[128], support).channel();
            let counts: Vec<u32> = (support.lo..=support.hi + 1).map(|v| model.cumulative(v)).collect();
            assert_eq!((counts[0], counts[support.len()]), (0, ONE));
            assert!(counts.windows(2).all(|pair| pair[0] < pair[1]), "spread {spread}");
            for v in support.lo..=support.hi {
                let (left, mass) = (&model).left_cumulative_and_probability(v).unwrap();
                for quantile in [left, left + mass.get() / 2, left + mass.get() - 1] {
                    assert_eq!((&model).quantile_function(quantile), (v, left, mass));
                }
            }
            assert!((&model).left_cumulative_and_probability(support.hi + 1).is_none());
        }
    }

    /// The coder's ideal length and the graph's `-log₂ p` are two computations of one number, as long as
    /// the floor under every probability, 2⁻²³, does not show.
    #[test]
    fn fixed_point_costs_agree_with_the_graph() {
        let layout = MixtureLayout { channels: 3, components: 5, levels: 256 };
        let support = Support { lo: 0, hi: 255 };
        let near = [([128, 120, 110], [120, 100, 140]), ([2, 250, 1], [0, 255, 0]), ([250, 255, 3], [255, 255, 0])];
        for (seed, (base, value)) in near.into_iter().enumerate() {
            let params = params(layout, seed as u64, 0.5);
            let mut pixel = PixelMixture::new(layout, &params, &base, support);
            let mut cost = 0.0;
            for v in value {
                let model = pixel.channel();
                cost += model.cost(v);
                pixel.observe(&model, v);
            }
            let as_tensor = |v: [i32; 3]| Tensor::from_slice(&v.map(f64::from), (1, 3, 1, 1), &Device::Cpu).unwrap();
            let raw: Vec<f64> = params.iter().map(|&p| f64::from(p)).collect();
            let raw = Tensor::from_vec(raw, (1, (), 1, 1), &Device::Cpu).unwrap();
            let log_prob = layout.log_prob(&as_tensor(value), &as_tensor(base), &raw, support).unwrap();
            let bits = -log_prob.flatten_all().unwrap().to_vec1::<f64>().unwrap()[0] / std::f64::consts::LN_2;
            assert!((bits - cost).abs() < 1e-3 * bits, "{value:?}: {bits} {cost}");
        }
    }
}
