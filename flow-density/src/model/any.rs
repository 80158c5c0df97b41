//! A flow of any family.

use std::sync::Arc;

use candle_core::Tensor;
use flow_core::cnf::VectorField;
use flow_core::cnf::matching::{FewSteps, sample_few_steps, trajectory};
use flow_core::cnf::ode::Method;
use flow_core::{Bijector, Chain, Density, FlowRng, ParamStore, Reparameterized};

use super::{ContinuousFlow, DiscreteFlow, END_TIME};
use crate::Result;

/// Stages of the path of a continuous flow.
const STAGES: usize = 48;

/// A flow of any family: what a [`ModelConfig`](super::ModelConfig) builds.
#[non_exhaustive]
pub enum Model {
    /// A chain of layers.
    Discrete(DiscreteFlow),
    /// The solution of a differential equation.
    Continuous(Box<ContinuousFlow>),
}

impl Model {
    /// The density.
    pub fn density(&self) -> &dyn Density {
        match self {
            Model::Discrete(flow) => flow,
            Model::Continuous(flow) => flow.as_ref(),
        }
    }

    /// The density with samples that can be differentiated, to be fitted to another density.
    pub fn reparameterized(&self) -> &dyn Reparameterized {
        match self {
            Model::Discrete(flow) => flow,
            Model::Continuous(flow) => flow.as_ref(),
        }
    }

    /// The parameters.
    pub fn store(&self) -> &ParamStore {
        self.density().store()
    }

    /// Entries of a vector.
    pub fn features(&self) -> usize {
        self.density().event_shape().iter().product()
    }

    /// The field of a continuous flow.
    pub fn field(&self) -> Option<Arc<dyn VectorField>> {
        match self {
            Model::Discrete(_) => None,
            Model::Continuous(flow) => Some(flow.bijector().field().clone()),
        }
    }

    /// `count` draws of the base density, `(count, D)`, wider or narrower by `temperature`.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn latents(&self, count: usize, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        let store = self.store();
        Ok((rng.normal((count, self.features()), store.dtype(), store.device())? * temperature)?)
    }

    /// What latents `(B, D)` become on their way to data, with a word for each stage: latents first, data last.
    ///
    /// # Errors
    /// [`flow_core::Error::Shape`] for latents of another shape.
    pub fn path(&self, latents: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let _paused = self.store().no_grad();
        match self {
            Model::Discrete(flow) => layer_by_layer(flow.bijector(), latents),
            Model::Continuous(flow) => {
                let states = trajectory(
                    flow.bijector().field(),
                    latents,
                    None,
                    FewSteps { steps: STAGES, method: Method::Rk4, end_time: END_TIME },
                )?;
                let time = |k: usize| format!("t = {:.2}", END_TIME * (STAGES - k) as f64 / STAGES as f64);
                Ok(states.into_iter().enumerate().map(|(k, x)| (time(k), x)).collect())
            }
        }
    }

    /// What a continuous flow makes of latents in some equal steps, given the context if it has one; `None` for a
    /// discrete flow.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for no steps, [`flow_core::Error::Shape`] for latents of another shape.
    pub fn in_steps(
        &self,
        latents: &Tensor,
        context: Option<&Tensor>,
        method: Method,
        steps: usize,
    ) -> Result<Option<Tensor>> {
        let _paused = self.store().no_grad();
        let made = |field: Arc<dyn VectorField>| {
            sample_few_steps(&*field, latents, context, FewSteps { steps, method, end_time: END_TIME })
        };
        Ok(self.field().map(made).transpose()?)
    }
}

fn layer_by_layer(chain: &Chain, latents: &Tensor) -> Result<Vec<(String, Tensor)>> {
    let mut stages = vec![("latent".to_string(), latents.clone())];
    let mut x = latents.clone();
    for (index, layer) in chain.layers().iter().enumerate().rev() {
        x = layer.decode(&x, None)?.0;
        let name = if index == 0 { "data".to_string() } else { format!("after layer {index}") };
        stages.push((name, x.clone()));
    }
    Ok(stages)
}
