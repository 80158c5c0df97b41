//! Multi-scale flows under other priors than their own.
//!
//! A flow of frames, say, whose latents follow from those of the frames before: the flow stays what it is, and the density of
//! its latents is given by whoever knows the past.

use candle_core::Tensor;

use super::{MultiScale, NAME};
use crate::density::flow::{Scored, plain_backward, refuse_non_finite_rows, reversible_or};
use crate::density::reversible::Backprop;
use crate::{Gradients, Result};

/// Densities of the latents of a [`MultiScale`] in the place of its own priors.
///
/// The rows of a batch may depend on one another (a row may be given the latents of those before it): only the sum over all
/// rows, with their weights, is differentiated.
pub trait LatentPriors {
    /// `ln p(z)` of the latents of one level in nats, `(B,)`, given what is kept of the level; `None` at the top.
    ///
    /// # Errors
    /// For latents that do not fit.
    fn log_prob(&self, level: usize, latent: &Tensor, kept: Option<&Tensor>) -> Result<Tensor>;
}

/// What a flow makes of a batch before any prior sees it.
#[derive(Debug, Clone)]
pub struct Factors {
    /// The latents as they are, not whitened: finest level first, the top last.
    pub latents: Vec<Tensor>,
    /// What each level but the last passes on.
    pub kept: Vec<Tensor>,
    /// `ln |det|` of the whole map, `(B,)`.
    pub log_det: Tensor,
}

impl MultiScale {
    /// `ln |det ∂f/∂x| + Σ_levels ln p(z)`, `(B,)`, with the latents' densities from `priors`.
    ///
    /// # Errors
    /// As [`crate::Density::log_prob`].
    pub fn log_prob_under(&self, x: &Tensor, priors: &dyn LatentPriors) -> Result<Tensor> {
        let context = self.door.admit(x, None)?;
        Ok(self.score(x, context.as_ref(), Some(priors), |_, _, _| Ok(()))?.0)
    }

    /// Gradients of `Σ_b weight_b · log p(x_b)` with the latents' densities from `priors`, added to `gradients`.
    ///
    /// # Errors
    /// As [`crate::Density::log_prob_backward`].
    pub fn log_prob_backward_under(
        &self,
        x: &Tensor,
        priors: &dyn LatentPriors,
        weight: &Tensor,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<Scored> {
        let x = &x.detach();
        self.door.admit(x, None)?;
        let plain = |gradients: &mut Gradients| {
            plain_backward(|x, _| self.log_prob_under(x, priors), x, None, weight, gradients)
        };
        let top = self.levels.len() - 1;
        let top_head = |latent: &Tensor, _: Option<&Tensor>| priors.log_prob(top, latent, None);
        let scored = match mode {
            Backprop::Plain => plain(gradients)?,
            Backprop::Reversible => {
                let walk = |g: &mut Gradients| self.reversible(x, None, weight, Some(priors), &top_head, g);
                reversible_or(x, gradients, walk, plain)?
            }
        };
        refuse_non_finite_rows(x, &scored)?;
        Ok(scored)
    }

    /// The latents and what each level keeps, untracked.
    ///
    /// # Errors
    /// As [`crate::Density::log_prob`].
    pub fn factors(&self, x: &Tensor) -> Result<Factors> {
        let _paused = self.store.no_grad();
        self.door.admit(x, None)?;
        let (mut h, mut latents, mut kept) = (x.detach(), Vec::new(), Vec::new());
        let mut log_det: Option<Tensor> = None;
        for level in &self.levels {
            let (out, term) = level.flow.encode(&h, None)?;
            log_det = crate::autodiff::add_optional(log_det, Some(term))?;
            let (rest, factored) = level.halves(out)?;
            if let Some((_, latent)) = factored {
                latents.push(latent);
                kept.push(rest.clone());
            }
            h = rest;
        }
        latents.push(h);
        let log_det = log_det.ok_or_else(|| crate::Error::config(NAME, "has no level"))?;
        self.store.check_untracked(NAME, &[&log_det])?;
        Ok(Factors { latents, kept, log_det })
    }

    /// The data of latents that `draw` gives level by level, the top first: it is told the level and what that level
    /// keeps (`None` at the top), and returns the latents as they are, not whitened.
    ///
    /// # Errors
    /// Those of `draw`, and of a flow that cannot decode what it is given.
    pub fn decode_with(&self, mut draw: impl FnMut(usize, Option<&Tensor>) -> Result<Tensor>) -> Result<Tensor> {
        let _paused = self.store.no_grad();
        let top = self.levels.len() - 1;
        self.generate(None, |_, kept, level| draw(level, kept.filter(|_| level < top)))
    }
}
