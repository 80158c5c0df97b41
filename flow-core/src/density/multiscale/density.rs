//! A multi-scale flow as a density.

use candle_core::Tensor;

use super::{MultiScale, NAME};
use crate::density::flow::{Density, Scored, all_or_nothing};
use crate::density::reversible::Backprop;
use crate::{FlowRng, Gradients, ParamStore, Result};

impl Density for MultiScale {
    fn store(&self) -> &ParamStore {
        &self.store
    }

    fn event_shape(&self) -> &[usize] {
        self.levels[0].flow.event_shape()
    }

    fn log_prob(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let context = self.door.admit(x, context)?;
        Ok(self.score(x, context.as_ref(), None, |_, _, _| Ok(()))?.0)
    }

    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<()> {
        let _paused = self.store.no_grad();
        let context = self.door.admit(x, context)?.map(|c| c.detach());
        let mut x = x.detach();
        all_or_nothing(&self.store, || {
            for level in &self.levels {
                let (h, log_det) = level.flow.initialize(&x, context.as_ref())?;
                self.store.check_untracked(NAME, &[&h, &log_det])?;
                x = level.halves(h)?.0;
            }
            Ok(())
        })
    }

    fn set_training(&self, training: bool) {
        self.levels.iter().for_each(|l| l.flow.set_training(training));
    }

    fn set_noise(&self, rng: &mut FlowRng) {
        self.levels.iter().for_each(|l| l.flow.set_noise(rng));
    }

    fn log_prob_backward(
        &self,
        x: &Tensor,
        context: Option<&Tensor>,
        weight: &Tensor,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<Scored> {
        Ok(self.backward_with(x, context, weight, None, mode, gradients)?.0)
    }

    fn sample(&self, n: usize, context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        self.sample_with(n, context, &vec![temperature; self.levels.len()], rng)
    }
}
