//! Straight paths of points, and clouds in one step.
//!
//! A trained model draws noise and latents, and makes clouds of them; a copy whose flow of points is matched with these
//! pairs has paths that do not cross (rectified flow, Liu et al. 2023, arXiv 2209.03003, algorithm 1), so that few steps
//! follow them. The copy of the copy that answers the pairs in one step is that of "Fast Point Cloud Generation with
//! Straight Flows" (Wu et al. 2023, arXiv 2212.01747, section 3). The flow of latents and the encoder stay as they are.

use std::collections::BTreeMap;

use candle_core::Tensor;
use flow_core::cnf::matching::{FlowMatching, TimeSampling, distillation_loss};
use flow_core::cnf::ode::SolveOptions;
use flow_core::train::{Metrics, Task};
use flow_core::{FlowRng, Gradients, ParamStore};

use crate::model::{Draw, MatchingConfig, Objective, PointFlow, repeat, times_per_cloud};
use crate::trainer::{PointRun, core};
use crate::{Error, Result};

/// Clouds that validations look at.
const HELD_OUT: usize = 64;

/// Noise, the clouds that a model makes of it, and their latents.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// `(S, N, 3)`, standard normal.
    pub noise: Tensor,
    /// `(S, N, 3)`, normalized.
    pub clouds: Tensor,
    /// `(S, Z)`.
    pub latents: Tensor,
}

impl Pairs {
    /// `clouds` clouds of `points` points under latents of the model's prior, by `solver`; its own where `None`.
    ///
    /// # Errors
    /// As [`PointFlow::sample_latents`] and [`PointFlow::decode`].
    pub fn draw(
        model: &PointFlow,
        clouds: usize,
        points: usize,
        solver: Option<&SolveOptions>,
        rng: &mut FlowRng,
    ) -> Result<Self> {
        let draw = Draw { solver, ..Draw::default() };
        let latents = model.sample_latents(clouds, &draw, rng)?;
        let noise = rng.normal((clouds, points, 3), latents.dtype(), latents.device())?;
        let (made, _) = model.decode_noise(&latents, &noise, &draw)?;
        Ok(Pairs { noise, clouds: made, latents })
    }

    /// Some of them, at random.
    fn some(&self, count: usize, rng: &mut FlowRng) -> Result<Self> {
        let total = self.latents.dim(0)?;
        let index: Vec<u32> = (0..count).map(|_| rng.below(total) as u32).collect();
        let index = Tensor::new(index, self.latents.device())?;
        let pick = |t: &Tensor| t.index_select(&index, 0);
        Ok(Pairs { noise: pick(&self.noise)?, clouds: pick(&self.clouds)?, latents: pick(&self.latents)? })
    }

    /// Noise and points as rows `(S·N, 3)`.
    ///
    /// # Errors
    /// Those of Candle.
    pub fn rows(&self) -> Result<[Tensor; 2]> {
        let (s, n, _) = self.clouds.dims3()?;
        Ok([self.noise.reshape((s * n, 3))?, self.clouds.reshape((s * n, 3))?])
    }
}

/// A copy of a model whose flow of points is matched with the clouds of the model.
pub struct StraightenTask {
    run: PointRun,
    config: MatchingConfig,
    student: PointFlow,
    /// The weights to begin with.
    first: BTreeMap<String, Tensor>,
    pairs: Pairs,
    held_out: Pairs,
}

impl StraightenTask {
    /// A copy of `teacher` with the configuration of `run`, to be matched with `clouds` clouds of the teacher; `run.points`
    /// is the size of each, and [`MatchingConfig::distilled`] says what is learned.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for a model that was not trained by flow matching, or was distilled already; as
    /// [`Pairs::draw`].
    pub fn new(run: PointRun, teacher: &PointFlow, clouds: usize, solver: &SolveOptions) -> Result<Self> {
        teacher.check_paths()?;
        let Objective::Matching(config) = run.model.objective.clone() else {
            return Err(Error::config("model", "only a flow that was trained by flow matching is straightened"));
        };
        let student = run.build(teacher.store().device())?;
        student.set_training(false);
        let draw =
            |count, name| Pairs::draw(teacher, count, run.points, Some(solver), &mut FlowRng::named(run.seed, name));
        let (pairs, held_out) = (draw(clouds, "pairs")?, draw(HELD_OUT, "held-out pairs")?);
        Ok(StraightenTask { first: teacher.store().snapshot()?, config, student, pairs, held_out, run })
    }

    /// The pairs that validations look at.
    pub fn held_out(&self) -> &Pairs {
        &self.held_out
    }

    /// The mean squared error of velocities, or of points made in one step.
    fn error(&self, pairs: &Pairs, rng: &mut FlowRng) -> Result<Tensor> {
        let (field, end_time) = (self.student.point_field(), self.config.point.end_time);
        let [noise, points] = pairs.rows()?;
        if self.config.distilled {
            return Ok(distillation_loss(field, &noise, &points, Some(&pairs.latents), end_time)?);
        }
        let (clouds, n, _) = pairs.clouds.dims3()?;
        let times = times_per_cloud(&self.config, n);
        let context = repeat(&pairs.latents, times)?;
        let matching = FlowMatching { times: TimeSampling::Stratified, end_time, ..FlowMatching::default() };
        let drawn = matching.pairs_with(&points, &noise, clouds * times, rng)?;
        let error = field.squared_error(&drawn.time, &drawn.x_t, Some(&context), &drawn.target)?;
        Ok(error.affine(1.0 / drawn.target.elem_count().max(1) as f64, 0.0)?)
    }
}

impl Task for StraightenTask {
    fn store(&self) -> &ParamStore {
        self.student.store()
    }

    fn config(&self) -> serde_json::Value {
        // Plain data with string keys always serialises.
        serde_json::to_value(&self.run).unwrap_or_default()
    }

    fn initialize(&mut self, _rng: &mut FlowRng) -> flow_core::Result<()> {
        self.student.store().restore(&self.first)
    }

    fn step(&mut self, _step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> flow_core::Result<Metrics> {
        let pairs = self.pairs.some(self.run.batch, rng).map_err(core)?;
        let error = self.error(&pairs, rng).map_err(core)?;
        gradients.accumulate(&error.backward()?)?;
        Ok(vec![("error".into(), f64::from(error.to_scalar::<f32>()?))])
    }

    fn validate(&mut self, rng: &mut FlowRng) -> flow_core::Result<Metrics> {
        let _paused = self.student.store().no_grad();
        let error = self.error(&self.held_out, rng).map_err(core)?;
        Ok(vec![("error".into(), f64::from(error.to_scalar::<f32>()?))])
    }

    fn data_state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn restore_data_state(&mut self, _state: &serde_json::Value) -> flow_core::Result<()> {
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.run.batch
    }

    fn unit(&self) -> &str {
        "squared error"
    }
}
