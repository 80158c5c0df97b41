//! The flows of either model, as the vocoder sees them.

use std::sync::Arc;

use candle_core::Tensor;
use flow_core::kernels::accepts;
use flow_core::{Bijector, ParamPath, Result};

use super::ModelConfig;
use super::flow::{Packed, Past, Step};
use super::glow::GlowStep;

/// A flow.
#[derive(Debug, Clone)]
pub(super) enum AnyStep {
    /// WaveFlow's: over rows, inverted row by row.
    Rows(Arc<Step>),
    /// WaveGlow's: over groups, inverted at once.
    Groups(Arc<GlowStep>),
}

/// A flow's weights, made ready for many decodings.
pub(super) enum Prepared {
    Rows(Packed),
    Groups(Tensor),
}

impl AnyStep {
    /// The flows of a model, in encode order.
    pub fn all(path: &ParamPath, config: &ModelConfig) -> Result<Vec<Self>> {
        let at = |k: usize| path.pp(format!("flow{k}"));
        match config {
            ModelConfig::WaveFlow(config) => {
                let orders = config.row_orders();
                let step = |k: usize| Ok(AnyStep::Rows(Arc::new(Step::new(&at(k), config, k, &orders[k])?)));
                (0..config.flows).map(step).collect()
            }
            ModelConfig::WaveGlow(config) => {
                let step = |k: usize| Ok(AnyStep::Groups(Arc::new(GlowStep::new(&at(k), config, k)?)));
                (0..config.flows).map(step).collect()
            }
        }
    }

    /// The flow for waveforms of `width` columns.
    pub fn at(&self, width: usize) -> Result<Box<dyn Bijector>> {
        Ok(match self {
            AnyStep::Rows(step) => Box::new(step.at(width)),
            AnyStep::Groups(step) => Box::new(step.at(width)?),
        })
    }

    /// The latent, and the terms of the log-determinant at the places of the waveform's samples, `(B, column, W)` each.
    pub fn terms(&self, x: &Tensor, context: &Tensor) -> Result<(Tensor, Tensor)> {
        match self {
            AnyStep::Rows(step) => step.terms(x, context),
            AnyStep::Groups(step) => step.at(x.dim(2)?)?.terms(x, context),
        }
    }

    /// Folds and packs the weights. Call it with tracking paused.
    pub fn prepare(&self) -> Result<Prepared> {
        Ok(match self {
            AnyStep::Rows(step) => Prepared::Rows(step.prepare()?),
            AnyStep::Groups(step) => Prepared::Groups(step.network.packed()?),
        })
    }

    /// The inverse; `past` makes `z` the continuation of what was inverted before. Call it with tracking paused.
    pub fn decode_with(
        &self,
        prepared: &Prepared,
        z: &Tensor,
        context: &Tensor,
        past: Option<&mut Past>,
    ) -> Result<Tensor> {
        match (self, prepared) {
            // A continuation has no other form: the kernel takes it on every device.
            (AnyStep::Rows(step), Prepared::Rows(packed)) if (past.is_some() || accepts(z)) && z.elem_count() > 0 => {
                Ok(step.decode_with(packed, z, context, past)?.0)
            }
            (AnyStep::Rows(step), _) => Ok(step.decode_composed(&step.permute(z)?, context)?.0),
            (AnyStep::Groups(step), Prepared::Groups(packed)) => {
                Ok(step.at(z.dim(2)?)?.invert(z, context, Some(packed))?.0)
            }
            (AnyStep::Groups(step), _) => Ok(step.at(z.dim(2)?)?.invert(z, context, None)?.0),
        }
    }
}
