//! Straight paths of points, and clouds in one step.
//!
//! A trained model draws noise and latents, and makes clouds of them; a copy whose flow of points is matched with these
//! pairs has paths that do not cross (rectified flow, Liu et al. 2023, arXiv 2209.03003, algorithm 1), so that few steps
//! follow them. The copy of the copy that draws the pairs in one step is that of "Fast Point Cloud Generation with
//! Straight Flows" (Wu et al. 2023, arXiv 2212.01747, section 3). The flow of latents and the encoder stay as they are.

use flow_core::FlowRng;
use flow_core::cnf::matching::{ReflowConfig, ReflowPairs, ReflowTask};
use flow_core::cnf::ode::SolveOptions;
use flow_core::train::Run;

use crate::model::{Draw, Objective, PointFlow, times_per_cloud};
use crate::trainer::PointRun;
use crate::{Error, Result};

/// Clouds that validations look at.
const HELD_OUT: usize = 64;

/// `clouds` clouds of `points` points under latents of the model's prior, with their noise, by `solver`; the model's own
/// where `None`. The latents are the contexts.
///
/// # Errors
/// As [`PointFlow::sample_latents`] and [`PointFlow::decode`].
pub fn draw_pairs(
    model: &PointFlow,
    clouds: usize,
    points: usize,
    solver: Option<&SolveOptions>,
    rng: &mut FlowRng,
) -> Result<ReflowPairs> {
    let draw = Draw { solver, ..Draw::default() };
    let latents = model.sample_latents(clouds, &draw, rng)?;
    let noise = rng.normal((clouds, points, 3), latents.dtype(), latents.device())?;
    let (data, _) = model.decode_noise(&latents, &noise, &draw)?;
    Ok(ReflowPairs { noise, data, context: Some(latents) })
}

/// A copy of `teacher` with the configuration of `run`, to be matched with `clouds` clouds of the teacher; `run.points`
/// is the size of each, and [`MatchingConfig::distilled`](crate::model::MatchingConfig::distilled) says what is learned.
///
/// # Errors
/// [`flow_core::Error::Config`] for a model that was not trained by flow matching, or was distilled already; as
/// [`draw_pairs`].
pub fn straighten(
    run: &PointRun,
    teacher: &PointFlow,
    clouds: usize,
    solver: &SolveOptions,
) -> Result<ReflowTask<PointRun>> {
    teacher.check_paths()?;
    let Objective::Matching(matching) = &run.model.objective else {
        return Err(Error::config("model", "only a flow that was trained by flow matching is straightened"));
    };
    let student = run.build(teacher.store().device())?;
    student.set_training(false);
    let draw = |count, name| draw_pairs(teacher, count, run.points, Some(solver), &mut FlowRng::named(run.seed, name));
    let config = ReflowConfig {
        end_time: matching.point.end_time,
        distill: matching.distilled,
        batch: run.batch,
        times_per_group: times_per_cloud(matching, run.points),
    };
    let pairs = [draw(clouds, "pairs")?, draw(HELD_OUT, "held-out pairs")?];
    let copy = (student.store(), student.point_field());
    Ok(ReflowTask::new(run.clone(), config, copy, teacher.store(), pairs)?)
}
