//! Mixtures of discretized logistics: the densities of the latents, as a differentiable graph.
//!
//! An integer `v` in a finite support `lo..=hi` has under one component the probability
//! `σ((v + ½ - μ)/s) - σ((v - ½ - μ)/s)`; the outermost integers take the tails, so that the sum is one
//! exactly (Salimans et al. 2017, PixelCNN++, section 2.1). The `C` channels of a pixel share one
//! mixture indicator, and the mean of channel `c` moves linearly with the channels before it (section
//! 2.2): `μ_kc = base_c + u·m_kc + Σ_{j<c} a_kcj (v_j - base_j)`.

use candle_core::Tensor;

use crate::Result;

/// The integers that a latent can be, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Support {
    pub(super) lo: i32,
    pub(super) hi: i32,
}

impl Support {
    /// The number of integers.
    pub(super) fn len(self) -> usize {
        (self.hi - self.lo) as usize + 1
    }

    /// The support after adding an integer of magnitude up to `reach`.
    pub(super) fn widened(self, reach: i32) -> Self {
        Support { lo: self.lo - reach, hi: self.hi + reach }
    }
}

/// How the numbers of a network become a mixture over the `channels` of one pixel.
///
/// A pixel has `K·(1 + 2C + C(C-1)/2)` parameters: `K` logits, `K·C` means, `K·C` log-scales and
/// `K·C(C-1)/2` coefficients, the component being the slower index in each.
#[derive(Debug, Clone, Copy)]
pub(super) struct MixtureLayout {
    pub(super) channels: usize,
    pub(super) components: usize,
    /// Number of grey levels of the image, the unit of length.
    pub(super) levels: usize,
}

/// Bounds on `ln s`, in units of one grey level: at the lower end an integer mean holds all but 1e-11
/// of the mass, at the upper end (added to `ln levels`) the density is flat.
pub(super) const LOG_SCALE_MIN: f64 = -4.0;
const LOG_SCALE_MAX_ABOVE_LEVELS: f64 = 1.0;

impl MixtureLayout {
    /// Parameters per pixel.
    pub(super) fn parameters(&self) -> usize {
        self.components * (1 + 2 * self.channels + self.coefficients())
    }

    /// Pairs of channels `j < c`.
    pub(super) fn coefficients(&self) -> usize {
        self.channels * (self.channels - 1) / 2
    }

    /// The factor `u` between a network's output and a mean.
    pub(super) fn unit(&self) -> f64 {
        self.levels as f64 / 8.0
    }

    /// `ln s` of component `k` where the network returns zero: the components start a factor apart
    /// around a typical prediction error, or they would all learn the same.
    pub(super) fn log_scale_offset(&self, k: usize) -> f64 {
        (self.levels as f64 / 64.0).max(1.0).ln() + k as f64 - (self.components as f64 - 1.0) / 2.0
    }

    /// The largest `ln s`.
    pub(super) fn log_scale_max(&self) -> f64 {
        (self.levels as f64).ln() + LOG_SCALE_MAX_ABOVE_LEVELS
    }

    /// `log p(v)` in nats for every pixel, the channels together.
    ///
    /// # Shapes
    /// - `v`, `base`: `(B, C, H, W)`; `params`: `(B, P, H, W)`; output `(B, H, W)`.
    pub(super) fn log_prob(&self, v: &Tensor, base: &Tensor, params: &Tensor, support: Support) -> Result<Tensor> {
        let (b, c, h, w) = v.dims4()?;
        let k = self.components;
        let part = |start: usize, per: usize| -> Result<Tensor> {
            Ok(params.narrow(1, k * start, k * per)?.reshape((b, k, per, h, w))?)
        };
        let logits = params.narrow(1, 0, k)?;
        let mut means = part(1, c)?.affine(self.unit(), 0.0)?.broadcast_add(&base.unsqueeze(1)?)?;
        if c > 1 {
            means = (means + self.channel_shift(&(v - base)?, &part(1 + 2 * c, self.coefficients())?)?)?;
        }
        let offsets: Vec<f32> = (0..k).map(|k| self.log_scale_offset(k) as f32).collect();
        let offsets = Tensor::from_vec(offsets, (1, k, 1, 1, 1), v.device())?.to_dtype(v.dtype())?;
        let log_scale = part(1 + c, c)?.broadcast_add(&offsets)?.clamp(LOG_SCALE_MIN, self.log_scale_max())?;
        let per_component = log_bin(v, &means, &log_scale, support)?.sum(2)?;
        Ok((log_sum_exp(&(per_component + &logits)?)? - log_sum_exp(&logits)?)?)
    }

    /// `Σ_{j<c} a_kcj (v_j - base_j)`: residuals `(B, C, H, W)`, coefficients `(B, K, Q, H, W)`.
    fn channel_shift(&self, residual: &Tensor, coefficients: &Tensor) -> Result<Tensor> {
        let mut shifts = vec![coefficients.narrow(2, 0, 1)?.zeros_like()?];
        let mut start = 0;
        for c in 1..self.channels {
            let before = residual.narrow(1, 0, c)?.unsqueeze(1)?;
            shifts.push(coefficients.narrow(2, start, c)?.broadcast_mul(&before)?.sum_keepdim(2)?);
            start += c;
        }
        Ok(Tensor::cat(&shifts, 2)?)
    }
}

/// `log P(v)` of each component and channel, `(B, K, C, H, W)`.
///
/// With `a = (v + ½ - μ)/s` and `b = (v - ½ - μ)/s`, `σ(a) - σ(b) = σ(a) σ(-b) (1 - e^{b-a})`, so the
/// logarithm is `-softplus(-a) - softplus(b) + ln(1 - e^{-1/s})`: no difference of near-equal numbers
/// anywhere. At the lower end only the first term is left, at the upper end only the second.
fn log_bin(v: &Tensor, means: &Tensor, log_scale: &Tensor, support: Support) -> Result<Tensor> {
    let inverse = log_scale.neg()?.exp()?;
    let centred = means.neg()?.broadcast_add(&v.unsqueeze(1)?)?;
    let a = (centred.affine(1.0, 0.5)? * &inverse)?;
    let b = (&a - &inverse)?;
    let width = inverse.neg()?.exp()?.affine(-1.0, 1.0)?.log()?;
    let not_lo = v.detach().gt(f64::from(support.lo))?.to_dtype(v.dtype())?.unsqueeze(1)?;
    let not_hi = v.detach().lt(f64::from(support.hi))?.to_dtype(v.dtype())?.unsqueeze(1)?;
    let inside = (&not_lo * &not_hi)?;
    let upper = softplus(&a.neg()?)?.broadcast_mul(&not_hi)?;
    let lower = softplus(&b)?.broadcast_mul(&not_lo)?;
    Ok(((width.broadcast_mul(&inside)? - upper)? - lower)?)
}

/// `ln(1 + e^x) = max(x, 0) + ln(1 + e^{-|x|})`.
fn softplus(x: &Tensor) -> Result<Tensor> {
    Ok((x.relu()? + x.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?)?)
}

/// `ln Σ_k e^{x_k}` over dimension 1; the maximum is a constant for differentiation.
fn log_sum_exp(x: &Tensor) -> Result<Tensor> {
    let max = x.detach().max_keepdim(1)?;
    Ok((x.broadcast_sub(&max)?.exp()?.sum_keepdim(1)?.log()? + max)?.squeeze(1)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use flow_core::FlowRng;

    use super::*;

    const SUPPORT: Support = Support { lo: -3, hi: 13 };

    fn grid(layout: &MixtureLayout) -> Tensor {
        let n = SUPPORT.len();
        let count = n.pow(layout.channels as u32);
        let value = |i: usize, c: usize| (i / n.pow(c as u32) % n) as f64 + f64::from(SUPPORT.lo);
        let values: Vec<f64> = (0..count).flat_map(|i| (0..layout.channels).map(move |c| value(i, c))).collect();
        Tensor::from_vec(values, (count, layout.channels, 1, 1), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_probabilities_of_all_values_sum_to_one() {
        for (channels, spread) in [(1, 1.0), (1, 60.0), (3, 1.0), (3, 8.0)] {
            let layout = MixtureLayout { channels, components: 3, levels: 17 };
            let values = grid(&layout);
            let mut rng = FlowRng::seed_from(channels as u64);
            let params = rng.normal((1, layout.parameters(), 1, 1), DType::F64, &Device::Cpu).unwrap();
            let params = (params * spread).unwrap().broadcast_as((values.dim(0).unwrap(), layout.parameters(), 1, 1));
            let base = values.affine(0.0, 5.0).unwrap();
            let log_prob = layout.log_prob(&values, &base, &params.unwrap(), SUPPORT).unwrap();
            let total = log_prob.exp().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
            assert!((total - 1.0).abs() < 1e-9, "{channels} channels, spread {spread}: {total}");
        }
    }

    #[test]
    fn far_tails_stay_finite_with_a_useful_gradient() {
        let layout = MixtureLayout { channels: 1, components: 2, levels: 256 };
        let values = Tensor::new(&[0f32, 128.0, 255.0], &Device::Cpu).unwrap().reshape((3, 1, 1, 1)).unwrap();
        for mean in [-1e4f32, 1e4] {
            let raw = vec![0.0, 0.0, mean, mean, -9.0, -9.0];
            let params = Tensor::from_vec(raw, (1, 6, 1, 1), &Device::Cpu).unwrap().repeat((3, 1, 1, 1)).unwrap();
            let params = Var::from_tensor(&params).unwrap();
            let base = values.zeros_like().unwrap();
            let support = Support { lo: 0, hi: 255 };
            let log_prob = layout.log_prob(&values, &base, params.as_tensor(), support).unwrap();
            assert!(log_prob.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|v| v.is_finite()));
            let gradient = log_prob.sum_all().unwrap().backward().unwrap();
            let gradient = gradient.get(&params).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(gradient.iter().all(|g| g.is_finite()));
            // The middle value pulls the means towards itself.
            assert!(gradient[6 + 2] * mean < 0.0);
        }
    }
}
