//! Numbers about image models: bits/dim of held-out images, and how well likelihoods tell sets apart.

use flow_core::numerics::host;
pub use flow_core::numerics::mean_and_error;
use flow_core::{FlowRng, Share};

use crate::Result;
use crate::data::Dataset;
use crate::model::ImageModel;

/// Images per evaluation batch.
const BATCH: usize = 64;

/// Bits/dim of the first `count` images.
///
/// With `draws = 1` each is a lower bound of the likelihood from one draw of the noise. With `k` draws it
/// is the importance-weighted bound `log 1/k Σ p(x + u_i)` (Burda et al. 2016), which grows with `k`
/// towards the exact `log P(x)`; the proposal is the uniform noise itself.
///
/// `progress` is called with the number of images done.
///
/// # Errors
/// Images of another size or number of levels; a conditional model and images without labels.
pub fn bits_per_image(
    model: &ImageModel,
    set: &Dataset,
    count: usize,
    draws: usize,
    rng: &mut FlowRng,
    progress: impl FnMut(usize),
) -> Result<Vec<f64>> {
    bits_of_share(model, set, Share::whole(count.min(set.len())), draws, rng, progress)
}

/// As [`bits_per_image`], of a share of the first images. Given a generator for rows ([`FlowRng::for_rows`]), an image has
/// the noise that it has in any other share.
///
/// # Errors
/// As [`bits_per_image`].
pub fn bits_of_share(
    model: &ImageModel,
    set: &Dataset,
    share: Share,
    draws: usize,
    rng: &mut FlowRng,
    mut progress: impl FnMut(usize),
) -> Result<Vec<f64>> {
    model.set_training(false);
    let mut bits = Vec::with_capacity(share.count);
    for part in share.parts(BATCH) {
        let indices: Vec<usize> = part.range().collect();
        let images = set.batch(&indices, model.store().device())?;
        let labels = set.labels_of(&indices);
        let mut scores = vec![Vec::with_capacity(draws.max(1)); indices.len()];
        rng.at_rows(part, |rng| -> Result<()> {
            for _ in 0..draws.max(1) {
                let b = model.bits_per_dim(&images, labels.as_deref(), rng)?;
                let b = host::numbers(&b)?;
                scores.iter_mut().zip(b).for_each(|(s, b)| s.push(b));
            }
            Ok(())
        })?;
        let scale = model.spec().dims() as f64 * std::f64::consts::LN_2;
        bits.extend(scores.iter().map(|s| importance_weighted(s, scale)));
        progress(bits.len());
    }
    Ok(bits)
}

/// `-log₂ mean 2^(-b·D) / D` over the draws, where `scale = D ln 2`.
fn importance_weighted(bits: &[f64], scale: f64) -> f64 {
    let best = bits.iter().copied().fold(f64::INFINITY, f64::min);
    let mean = bits.iter().map(|b| (-(b - best) * scale).exp()).sum::<f64>() / bits.len() as f64;
    best - mean.ln() / scale
}

/// The probability that a random member of `high` exceeds a random member of `low`, ties counting half:
/// the area under the ROC curve of telling them apart by a threshold.
///
/// Computed from ranks (Mann & Whitney 1947) in `O(n log n)`.
pub fn auroc(low: &[f64], high: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = low.iter().map(|&v| (v, false)).chain(high.iter().map(|&v| (v, true))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rank_sum, mut i) = (0.0, 0);
    while i < all.len() {
        let ties = all[i..].iter().take_while(|x| x.0 == all[i].0).count();
        // Ranks i+1 … i+ties share their mean.
        let rank = i as f64 + (ties as f64 + 1.0) / 2.0;
        rank_sum += rank * all[i..i + ties].iter().filter(|x| x.1).count() as f64;
        i += ties;
    }
    let (n, m) = (low.len() as f64, high.len() as f64);
    (rank_sum - m * (m + 1.0) / 2.0) / (n * m)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auroc_counts_pairs() {
        let (low, high) = ([1.0, 2.0, 3.0, 3.0], [3.0, 4.0, 0.0]);
        let wins: f64 = low
            .iter()
            .flat_map(|l| high.iter().map(move |h| if h > l { 1.0 } else { f64::from(u8::from(h == l)) / 2.0 }))
            .sum();
        assert!((auroc(&low, &high) - wins / 12.0).abs() < 1e-12);
        assert_eq!(auroc(&[0.0, 1.0], &[2.0]), 1.0);
    }

    #[test]
    fn the_importance_weighted_bound_is_the_log_of_the_mean_likelihood() {
        // Two draws with likelihoods 2^-10 and 2^-12 over 2 dimensions.
        let scale = 2.0 * std::f64::consts::LN_2;
        let expected = -((2f64.powi(-10) + 2f64.powi(-12)) / 2.0).log2() / 2.0;
        assert!((importance_weighted(&[5.0, 6.0], scale) - expected).abs() < 1e-12);
        assert_eq!(importance_weighted(&[5.0], scale), 5.0);
    }

    #[test]
    fn standard_error_of_a_known_sample() {
        let (mean, error) = mean_and_error(&[1.0, 2.0, 3.0, 4.0]);
        assert!((mean - 2.5).abs() < 1e-12 && (error - (5.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
    }
}
