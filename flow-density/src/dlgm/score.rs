//! The numbers of the paper: bound, divergence and log-likelihood by importance sampling.

use std::fmt;

use flow_core::numerics::{mean_and_error, plus_minus};
use flow_core::{FlowRng, Share};

use super::images::BinaryImages;
use super::model::{Dlgm, host};
use crate::{Error, Result};

/// Draws that are decoded at once.
const AT_ONCE: usize = 4000;

/// How a model does on some images, in nats. Each number is a mean over images with its standard error.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Images.
    pub images: usize,
    /// Draws from the posterior of each image; all numbers are of the same ones.
    pub draws: usize,
    /// The free energy `E[ln q(z|x) - ln p(x|z) - ln p(z)]`, an upper bound of `-ln p(x)`.
    pub bound: (f64, f64),
    /// `E[ln q(z|x) - ln p(z)]`, the divergence from the prior.
    pub kl: (f64, f64),
    /// `-ln p(x)` by importance sampling: `-ln (1/S) Σ_s p(x|z_s) p(z_s) / q(z_s|x)`. On average it is above the truth, the
    /// less the more draws there are.
    pub nll: (f64, f64),
    /// The mean effective sample size of the weights, as a share of the draws. A small one says that the draws are too few
    /// for [`Report::nll`].
    pub effective: f64,
}

impl Report {
    /// The gap `bound - nll`: how far posteriors are from `p(z|x)`, as far as the draws can tell.
    pub fn gap(&self) -> f64 {
        self.bound.0 - self.nll.0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |(mean, error): (f64, f64)| format!("{mean:>9.3} {} nats", plus_minus(error, 3));
        writeln!(f, "{} images, {} draws from the posterior of each", self.images, self.draws)?;
        writeln!(f, "free energy (bound)    {}", line(self.bound))?;
        writeln!(f, "-ln p(x), importance   {}", line(self.nll))?;
        writeln!(f, "bound - (-ln p(x))     {:>9.3} nats", self.gap())?;
        writeln!(f, "KL from the prior      {}", line(self.kl))?;
        write!(f, "effective sample size  {:>9.1} % of the draws", 100.0 * self.effective)
    }
}

/// Scores the first `count` images, with `draws` draws from the posterior of each.
///
/// # Errors
/// [`flow_core::Error::Config`] without images or draws, and [`flow_core::Error::NonFinite`] naming an image whose weights
/// are not finite.
pub fn score(model: &Dlgm, images: &BinaryImages, count: usize, draws: usize, rng: &mut FlowRng) -> Result<Report> {
    score_share(model, images, Share::whole(count.min(images.len())), draws, rng)
}

/// As [`score`], of a share of the first images. Given a generator for rows ([`FlowRng::for_rows`]), an image has the draws
/// that it has in any other share.
///
/// # Errors
/// As [`score`].
pub(super) fn score_share(
    model: &Dlgm,
    images: &BinaryImages,
    share: Share,
    draws: usize,
    rng: &mut FlowRng,
) -> Result<Report> {
    let count = share.count;
    if count == 0 || draws == 0 {
        return Err(Error::config(
            "score",
            format!("{count} images and {draws} draws: at least one of each is needed"),
        ));
    }
    let _paused = model.store().no_grad();
    let (mut bounds, mut kls, mut nlls, mut effective) = (vec![], vec![], vec![], 0.0);
    let group = (AT_ONCE / draws).max(1);
    for part in share.parts(group) {
        let places: Vec<usize> = part.range().collect();
        let x = images.batch(&places, model.store().dtype(), model.store().device())?;
        let noise = rng.at_rows(part, |rng| model.noise(places.len() * draws, rng))?;
        let terms = model.terms(&x, &model.code(&x)?, &noise)?;
        let [log_q, log_x, log_z] = [&terms.log_q, &terms.log_x, &terms.log_z].map(host);
        let (log_q, log_x, log_z) = (log_q?, log_x?, log_z?);
        for (i, place) in places.iter().enumerate() {
            let of = |s: usize| i * draws + s;
            let weights: Vec<f64> = (0..draws).map(|s| log_x[of(s)] + log_z[of(s)] - log_q[of(s)]).collect();
            let kl = (0..draws).map(|s| log_q[of(s)] - log_z[of(s)]).sum::<f64>() / draws as f64;
            if weights.iter().any(|w| !w.is_finite()) {
                let what = format!("importance weight of image {place}");
                return Err(flow_core::Error::NonFinite { layer: "score".into(), what, step: None }.into());
            }
            let greatest = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = weights.iter().map(|w| (w - greatest).exp()).collect();
            let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|s| s * s).sum::<f64>());
            bounds.push(-weights.iter().sum::<f64>() / draws as f64);
            nlls.push(-(greatest + (sum / draws as f64).ln()));
            kls.push(kl);
            effective += sum * sum / squares / draws as f64;
        }
    }
    Ok(Report {
        images: count,
        draws,
        bound: mean_and_error(&bounds),
        kl: mean_and_error(&kls),
        nll: mean_and_error(&nlls),
        effective: effective / count as f64,
    })
}
