//! Clips as targets with what precedes them, and the densities of their latents.

use candle_core::Tensor;
use flow_core::Result;
use flow_core::density::LatentPriors;
use flow_core::distribution::gaussian_log_prob;

use super::VideoFlow;
use super::encoder::MeanAndLogStd;
use super::following::Foreseen;

/// What a prior sees of the targets: what precedes them, what they predict of themselves, and what is told.
pub(super) struct Seen {
    pub(super) past: Tensor,
    pub(super) alone: MeanAndLogStd,
    pub(super) told: Option<Tensor>,
}

/// Dequantized frames `(B·T, C, H, W)` with the log-determinants of that.
pub(super) struct Frames {
    pub(super) y: Tensor,
    pub(super) log_det: Tensor,
    /// `ln q` of learned noise.
    pub(super) log_q: Option<Tensor>,
    /// What the priors see of the actions.
    pub(super) told: Option<Tensor>,
    /// What is known of the targets where motions are followed.
    pub(super) foreseen: Option<Foreseen>,
    pub(super) clips: usize,
    pub(super) steps: usize,
    /// The first frames of each clip, of which no past is seen.
    pub(super) alone: usize,
}

impl Frames {
    /// The frames from number `first` on, for a model that sees no past latents.
    pub(super) fn after(self, first: usize) -> Result<Self> {
        let Frames { clips, steps, alone, .. } = self;
        let part_of = |rows: &Tensor, each: usize, first: usize| -> Result<Tensor> {
            let mut shape = rows.dims().to_vec();
            shape.splice(..1, [clips, each]);
            let rest = rows.reshape(shape)?.narrow(1, first, each - first)?;
            Ok(rest.flatten(0, 1)?)
        };
        let part = |rows: &Tensor, first: usize| part_of(rows, steps, first);
        let of_targets = |rows: &Tensor| part_of(rows, steps - alone, first.saturating_sub(alone));
        let foreseen = self.foreseen.map(|foreseen| foreseen.map(of_targets));
        Ok(Frames {
            y: part(&self.y, first)?,
            log_det: part(&self.log_det, first)?,
            log_q: self.log_q.map(|rows| part(&rows, first)).transpose()?,
            told: self.told.map(|rows| part(&rows, first)).transpose()?,
            foreseen: foreseen.transpose()?,
            clips,
            steps: steps - first,
            alone: alone.saturating_sub(first),
        })
    }

    pub(super) fn windows(&self) -> Windows {
        Windows { clips: self.clips, steps: self.steps, alone: self.alone }
    }

    /// What the prior of a level sees of the targets, given the latents of all frames and what these predict of themselves.
    pub(super) fn seen_by(&self, level: usize, latent: &Tensor, alone: &MeanAndLogStd) -> Result<Seen> {
        let windows = self.windows();
        let past = match &self.foreseen {
            Some(foreseen) => foreseen.seen[level].clone(),
            None => windows.past(latent)?,
        };
        let told = self.told.as_ref().map(|told| windows.targets(told)).transpose()?;
        Ok(Seen { past, alone: windows.both(alone)?, told })
    }

    /// The bound of `ln P` of every frame from `ln p(y)`.
    pub(super) fn bound(&self, log_prob: Tensor) -> Result<Tensor> {
        let bound = (log_prob + &self.log_det)?;
        Ok(match &self.log_q {
            Some(log_q) => (bound - log_q)?,
            None => bound,
        })
    }
}

/// The frames of clips as those without a past, and targets with what precedes them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    pub(super) clips: usize,
    pub(super) steps: usize,
    /// `n`, or less where the first frames are left out.
    pub(super) alone: usize,
}

impl Windows {
    /// The windows of `n` frames, `(B·(T - n), n, C, H, W)`, before the targets of `(B·T, C, H, W)`.
    pub(super) fn past(&self, rows: &Tensor) -> Result<Tensor> {
        let (_, c, h, w) = rows.dims4()?;
        let Windows { clips, steps, alone } = *self;
        let targets = steps - alone;
        let rows = rows.reshape((clips, steps, c, h, w))?;
        let shifted = (0..alone).map(|j| Ok(rows.narrow(1, j, targets)?)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&shifted, 2)?.reshape((clips * targets, alone, c, h, w))?)
    }

    /// The rows of the targets of `(B·T, …)`.
    pub(super) fn targets(&self, rows: &Tensor) -> Result<Tensor> {
        self.part(rows, self.alone, self.steps - self.alone)
    }

    /// Numbers of the targets `(B·(T - n))` among those of all frames `(B·T)`, of which the others are zero.
    pub(super) fn at_targets(&self, targets: &Tensor) -> Result<Tensor> {
        let targets = targets.reshape((self.clips, self.steps - self.alone))?;
        Ok(targets.pad_with_zeros(1, self.alone, 0)?.flatten_all()?)
    }

    /// Mean and `ln σ` of the targets.
    pub(super) fn both(&self, (mean, log_std): &MeanAndLogStd) -> Result<MeanAndLogStd> {
        Ok((self.targets(mean)?, self.targets(log_std)?))
    }

    /// The rows of the frames without a past of `(B·T, …)`.
    fn first(&self, rows: &Tensor) -> Result<Tensor> {
        self.part(rows, 0, self.alone)
    }

    fn part(&self, rows: &Tensor, from: usize, count: usize) -> Result<Tensor> {
        let (_, c, h, w) = rows.dims4()?;
        let rows = rows.reshape((self.clips, self.steps, c, h, w))?.narrow(1, from, count)?;
        Ok(rows.reshape((self.clips * count, c, h, w))?)
    }

    /// The values of the first frames `(B·n)` and of the targets `(B·(T - n))` in the order of the clips, `(B·T)`.
    fn join(&self, first: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let first = first.reshape((self.clips, self.alone))?;
        let targets = targets.reshape((self.clips, self.steps - self.alone))?;
        Ok(Tensor::cat(&[first, targets], 1)?.flatten_all()?)
    }
}

/// The densities of the latents of clips, one clip after the other.
pub(super) struct ClipPriors<'a> {
    pub(super) model: &'a VideoFlow,
    pub(super) frames: &'a Frames,
}

impl LatentPriors for ClipPriors<'_> {
    fn log_prob(&self, level: usize, latent: &Tensor, kept: Option<&Tensor>) -> Result<Tensor> {
        let (prior, frames) = (&self.model.priors[level], self.frames);
        let (mean, log_std) = prior.alone(latent.dim(0)?, kept)?;
        if frames.steps <= frames.alone || frames.clips == 0 {
            return gaussian_log_prob(latent, &mean, &log_std);
        }
        let windows = frames.windows();
        let Seen { past, alone, told } = frames.seen_by(level, latent, &(mean.clone(), log_std.clone()))?;
        let (given, log_given) = prior.given(&past, &alone, told.as_ref())?;
        let targets = gaussian_log_prob(&windows.targets(latent)?, &given, &log_given)?;
        if frames.alone == 0 {
            return Ok(targets);
        }
        let first = gaussian_log_prob(&windows.first(latent)?, &windows.first(&mean)?, &windows.first(&log_std)?)?;
        windows.join(&first, &targets)
    }
}
