//! Clips as targets with what precedes them, and the densities of their latents.

use candle_core::Tensor;
use flow_core::Result;
use flow_core::density::LatentPriors;
use flow_core::distribution::gaussian_log_prob;

use super::VideoFlow;
use super::encoder::MeanAndLogStd;

/// Dequantized frames `(B·T, C, H, W)` with the log-determinants of that.
pub(super) struct Frames {
    pub(super) y: Tensor,
    pub(super) log_det: Tensor,
    /// `ln q` of learned noise.
    pub(super) log_q: Option<Tensor>,
    /// What the priors see of the actions.
    pub(super) told: Option<Tensor>,
    pub(super) clips: usize,
    pub(super) steps: usize,
}

impl Frames {
    /// The bound of `ln P` of every frame from `ln p(y)`.
    pub(super) fn bound(&self, log_prob: Tensor) -> Result<Tensor> {
        let bound = (log_prob + &self.log_det)?;
        Ok(match &self.log_q {
            Some(log_q) => (bound - log_q)?,
            None => bound,
        })
    }
}

/// The latents of clips as targets with what precedes them.
pub(super) struct Windows {
    pub(super) clips: usize,
    pub(super) steps: usize,
    pub(super) past_steps: usize,
    /// `(B·(T - n), n, C, H, W)`.
    pub(super) past: Tensor,
}

impl Windows {
    pub(super) fn new(latent: &Tensor, clips: usize, steps: usize, past_steps: usize) -> Result<Self> {
        let (_, c, h, w) = latent.dims4()?;
        let targets = steps - past_steps;
        let latent = latent.reshape((clips, steps, c, h, w))?;
        let shifted = (0..past_steps).map(|j| Ok(latent.narrow(1, j, targets)?)).collect::<Result<Vec<_>>>()?;
        let past = Tensor::stack(&shifted, 2)?.reshape((clips * targets, past_steps, c, h, w))?;
        Ok(Windows { clips, steps, past_steps, past })
    }

    /// The rows of frames `n … T - 1` of `(B·T, …)`.
    pub(super) fn targets(&self, rows: &Tensor) -> Result<Tensor> {
        self.part(rows, self.past_steps, self.steps - self.past_steps)
    }

    /// Mean and `ln σ` of frames `n … T - 1`.
    pub(super) fn both(&self, (mean, log_std): &MeanAndLogStd) -> Result<MeanAndLogStd> {
        Ok((self.targets(mean)?, self.targets(log_std)?))
    }

    /// The rows of frames `0 … n - 1` of `(B·T, …)`.
    fn first(&self, rows: &Tensor) -> Result<Tensor> {
        self.part(rows, 0, self.past_steps)
    }

    fn part(&self, rows: &Tensor, from: usize, count: usize) -> Result<Tensor> {
        let (_, c, h, w) = rows.dims4()?;
        let rows = rows.reshape((self.clips, self.steps, c, h, w))?.narrow(1, from, count)?;
        Ok(rows.reshape((self.clips * count, c, h, w))?)
    }

    /// The values of the first frames `(B·n)` and of the targets `(B·(T - n))` in the order of the clips, `(B·T)`.
    fn join(&self, first: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let first = first.reshape((self.clips, self.past_steps))?;
        let targets = targets.reshape((self.clips, self.steps - self.past_steps))?;
        Ok(Tensor::cat(&[first, targets], 1)?.flatten_all()?)
    }
}

/// The densities of the latents of clips of `steps` frames, one clip after the other.
pub(super) struct ClipPriors<'a> {
    pub(super) model: &'a VideoFlow,
    pub(super) steps: usize,
    pub(super) told: Option<Tensor>,
}

impl LatentPriors for ClipPriors<'_> {
    fn log_prob(&self, level: usize, latent: &Tensor, kept: Option<&Tensor>) -> Result<Tensor> {
        let (prior, past) = (&self.model.priors[level], self.model.past());
        let rows = latent.dim(0)?;
        let (mean, log_std) = prior.alone(rows, kept)?;
        if self.steps <= past || rows == 0 {
            return gaussian_log_prob(latent, &mean, &log_std);
        }
        let windows = Windows::new(latent, rows / self.steps, self.steps, past)?;
        let first = gaussian_log_prob(&windows.first(latent)?, &windows.first(&mean)?, &windows.first(&log_std)?)?;
        let told = self.told.as_ref().map(|told| windows.targets(told)).transpose()?;
        let (mean, log_std) = prior.given(&windows.past, &windows.both(&(mean, log_std))?, told.as_ref())?;
        windows.join(&first, &gaussian_log_prob(&windows.targets(latent)?, &mean, &log_std)?)
    }
}
