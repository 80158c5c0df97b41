//! Integer frames as continuous ones that the flow sees, with what is known of them before.

use candle_core::Tensor;
use flow_core::{FlowRng, Result};

use super::VideoFlow;
use super::footage::Footage;
use super::windows::Frames;

/// Frames, the log-determinants of what made them continuous, and `ln q` of learned noise.
type Dequantized = (Tensor, Tensor, Option<Tensor>);

impl VideoFlow {
    pub(super) fn dequantize(&self, footage: Footage<'_>, rng: &mut FlowRng) -> Result<Frames> {
        self.frames(footage, |frames| self.drawn(frames, rng))
    }

    /// Frames with noise from `rng`, the log-determinants of that, and `ln q` of learned noise.
    pub(super) fn drawn(&self, frames: &Tensor, rng: &mut FlowRng) -> Result<Dequantized> {
        let Some(noise) = &self.noise else {
            let (y, log_det) = self.preprocess.dequantize(frames, rng)?;
            return Ok((y, log_det, None));
        };
        let frames = frames.to_device(self.store().device())?;
        let drawn = noise.dequantize(&frames, self.store().dtype(), rng)?;
        let (y, log_det) = self.preprocess.scale(&drawn.x)?;
        Ok((y, log_det, Some(drawn.log_q)))
    }

    /// Frames as the flow sees them, with what the priors see; `dequantize` makes them continuous.
    pub(super) fn frames(
        &self,
        footage: Footage<'_>,
        dequantize: impl FnOnce(&Tensor) -> Result<Dequantized>,
    ) -> Result<Frames> {
        let frames = self.unmapped(footage, false, dequantize)?;
        match &self.following {
            Some(following) => following.encode(frames),
            None => Ok(frames),
        }
    }

    /// As [`VideoFlow::frames`], as they are before guesses make normal numbers of them; `initialize` sets the prior of motions.
    pub(super) fn unmapped(
        &self,
        Footage { clips, actions }: Footage<'_>,
        initialize: bool,
        dequantize: impl FnOnce(&Tensor) -> Result<Dequantized>,
    ) -> Result<Frames> {
        let (count, steps, frames) = self.flat(clips)?;
        let told = self.told(actions, count, steps)?;
        let (y, log_det, log_q) = dequantize(&frames)?;
        let past = self.past();
        let mut made = Frames { y, log_det, log_q, told, foreseen: None, clips: count, steps, alone: past };
        if let Some(following) = self.following.as_ref().filter(|_| steps > past && count > 0) {
            let windows = made.windows();
            let before = following.before(&windows.past(&frames)?)?;
            let motions = following.found(&before, &windows.targets(&frames)?)?;
            if initialize {
                following.initialize_prior(&before)?;
            }
            let log_prob = following.log_prob(&before, &motions)?;
            made.log_det = (made.log_det + windows.at_targets(&log_prob)?)?;
            made.foreseen = Some(following.foresee(&before, &motions, self.priors.len())?);
        }
        Ok(made)
    }
}
