//! Fitting a flow to a density that is known up to a constant.

use candle_core::Tensor;
use flow_core::train::{CurvePoint, CurveRecorder, Summary, Trainer};
use flow_core::{FlowRng, Reparameterized};
use serde::Serialize;

use super::diagnostics::{Diagnostics, diagnose, weigh};
use super::options::{Objective, VariationalOptions};
use super::target::{LogDensityResult, Target};
use super::task::VariationalTask;
use crate::{Error, Result};

/// What [`fit_reverse_kl`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct VariationalFit {
    /// The learning curve, in nats: of `KL(q‖p)` the negative evidence lower bound.
    pub curve: Vec<CurvePoint>,
    /// How the fit ended.
    pub summary: Summary,
    /// How good it is.
    pub diagnostics: Diagnostics,
}

/// What a folder remembers of a fit besides the engine's configuration.
#[derive(Debug, Serialize)]
struct FitRun {
    features: Vec<usize>,
    objective: Objective,
    seed: u64,
}

/// Fits a flow `q` to a density `p` that is known up to a constant, by samples of the flow: variational inference (Rezende &
/// Mohamed 2015, arXiv 1505.05770). `KL(q‖p)` is made small, or another [`Divergence`](super::Divergence) of the options.
///
/// `log_density` takes samples, `(B, D)`, and returns `ln p` of each, `(B,)`, in nats and by operations of Candle, so that it
/// can be differentiated. Weights that validated best are in place at the end, and diagnostics say how far they are to be
/// trusted.
///
/// ```
/// use candle_core::{DType, Device};
/// use flow_core::ParamStore;
/// use flow_density::variational::{VariationalOptions, fit_reverse_kl};
///
/// # fn main() -> flow_density::Result<()> {
/// // A normal of mean 3 and deviation 2, without its constant: ln Z = ln 2√(2π) = 1.612.
/// let q = flow_density::realnvp(1).transforms(1).build(&ParamStore::new(0, DType::F64, &Device::Cpu))?;
/// let log_density = |x: &candle_core::Tensor| ((x - 3.0)?.sqr()? * -0.125)?.sum(1);
/// let fit = fit_reverse_kl(&q, log_density, VariationalOptions::new(300).learning_rate(0.02))?;
/// println!("{}", fit.diagnostics);
/// # assert!((fit.diagnostics.elbo - 1.612).abs() < 0.01 && fit.diagnostics.is_reliable(), "{}", fit.diagnostics);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::LogDensity`] for a density that returns another shape, NaN, `+∞` or `-∞` everywhere, or that cannot be
/// differentiated; [`Error::Improper`] for one that does not fall off; [`flow_core::Error::Config`] for options out of range
/// and for a flow whose draws cannot be differentiated; [`flow_core::Error::NonFinite`] when the fit diverges; with a
/// folder, [`flow_core::Error::Io`] and [`flow_core::Error::Checkpoint`].
pub fn fit_reverse_kl<Q: Reparameterized + ?Sized>(
    q: &Q,
    log_density: impl Fn(&Tensor) -> LogDensityResult,
    options: VariationalOptions<'_>,
) -> Result<VariationalFit> {
    let VariationalOptions { config, objective, backprop, progress, stop, folder, draws, tails, domains } = options;
    if draws < 2 {
        return Err(Error::config("draws of the diagnostics", format!("must be at least 2, got {draws}")));
    }
    let (seed, every) = (config.seed, config.log_every);
    let run = FitRun { features: q.event_shape().to_vec(), objective: objective.clone(), seed };
    let task = VariationalTask::new(q, &log_density, objective, run)?.backprop(backprop).tail_check(tails);
    let task = match &domains {
        Some(domains) => task.locate(domains),
        None => task,
    };
    let mut trainer = match folder {
        Some(folder) => Trainer::resume_or_start(config, folder, task)?,
        None => Trainer::in_memory(config, task)?,
    }
    .with_stop(stop);
    let mut recorder = CurveRecorder::new(every, progress);
    let summary = trainer.run(&mut recorder)?;
    if !summary.interrupted {
        trainer.take_best()?;
    }
    q.set_training(false);
    let mut rng = FlowRng::named(seed, "diagnostics");
    let diagnostics = match tails {
        true => diagnose(q, &log_density, draws, &mut rng)?,
        false => weigh(q, &Target::new(&log_density), draws, &mut rng)?.diagnostics()?,
    };
    Ok(VariationalFit { curve: recorder.finish(summary.step), summary, diagnostics })
}
