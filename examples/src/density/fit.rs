//! `density fit`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use flow_core::FlowRng;
use flow_core::files::atomic_write;
use flow_core::train::{Summary, TrainConfig};
use flow_density::io::{csv, header};
use flow_density::model::{Kind, Model, ModelConfig, Purpose};
use flow_density::trainer::{DensityRun, Fitted};
use flow_density::variational::{
    Annealing, Diagnostics, Divergence, Estimator, Location, Objective, VARIATIONAL_LOSS, VariationalTask, Weighted,
    diagnose, recipe,
};
use serde::Serialize;

use super::common::{in_words, load_from};
use super::compare::{CompareArg, Compared};
use super::family::FamilyArg;
use super::picture::{self, PictureArg};
use super::target::{Density, TargetArg};
use crate::cli::{at_least_one, refuse};
use crate::engine::{EngineArgs, default_is};
use crate::plot::plot_log;
use crate::training::{self, RunArg, TimeLimit, Trained};

/// Steps of a run, unless told.
const STEPS: u64 = 3000;
/// Samples of a step, unless told.
pub(super) const SAMPLES: usize = 512;

/// What is made small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DivergenceName {
    /// KL(q‖p): the evidence lower bound.
    Reverse,
    /// KL(p‖q) by importance weights.
    Forward,
    /// The Rényi bound of order --alpha.
    Renyi,
    /// The χ² upper bound, the Rényi bound of order -1.
    ChiSquared,
}

/// How its gradient is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EstimatorName {
    /// Through the samples alone, without variance where the fit is perfect.
    Path,
    /// All of it, which costs less.
    Total,
}

/// Fit a flow to a density that is known up to a constant
#[derive(Args, Debug)]
#[command(
    after_help = "\
The flow is fitted by its own samples: no data are needed. At the end the evidence lower bound, the effective sample size and
Pareto k of the importance weights say how far the fit is to be trusted; for an energy of the plane the divergence is also
integrated on a grid, and for a problem with a known answer that is printed beside the flow's. Leaves checkpoints, log.jsonl,
report.json and loss.png in the folder, and for two variables density.png, both densities side by side. Points are drawn by
`density sample`. U2 to U4, which have no integral, are seen through the envelope (‖z‖₄/8)⁴/2. With --compare a table of
divergences over numbers of layers is made instead, in memory and without checkpoints.

Examples:
  density fit
  density fit --energy u3 --model planar --layers 32 --steps 6000 --out runs/u3
  density fit --problem eight-schools --out runs/schools
  density fit --expr '-(x^2/2 + (y - x^2)^2)' --out runs/banana
  density fit --expr '4*ln(p) + 2*ln(1-p) - s' --interval p=0..1 --positive s --resample 1000 --out runs/p
  density fit --expr 'logaddexp(-(x-3)^2, -(x+3)^2)' --divergence forward --anneal 1000 --out runs/modes
  density fit --energy u4 --layers 4 --waves 8 --anneal 3000 --steps 5000 --batch-size 1024 --out runs/waves
  density fit --energy u1 --model planar --compare 2,8,32 --seeds 3 --steps 6000 --out runs/table
  density sample --checkpoint runs/schools --count 1000",
    mut_arg("model", |arg| arg.help("Family of flows; those whose samples are slow are turned round \
        [default: spline, realnvp for more than 16 variables]")),
    mut_arg("steps", default_is("3000")),
    mut_arg("batch_size", |arg| arg.help("Samples of the flow per step [default: 512]")),
    mut_arg("learning_rate", default_is("0.002, planar, radial and sylvester 0.005")),
    mut_arg("warmup", default_is("a twentieth of the run, at most 100")),
    mut_arg("schedule", default_is("cosine to a hundredth")),
    mut_arg("ema", default_is("0.99")),
    mut_arg("clip", default_is("10")),
    mut_arg("validate_every", default_is("250")),
    mut_arg("checkpoint_every", default_is("500")),
    mut_arg("preview_every", |arg| arg.hide(true))
)]
pub(super) struct FitArgs {
    #[command(flatten)]
    target: TargetArg,
    #[command(flatten)]
    family: FamilyArg,
    /// Folder for checkpoints, log, pictures
    #[arg(long, default_value = "flow-out/density", value_name = "FOLDER")]
    out: PathBuf,
    /// What is made small
    #[arg(long, value_enum, default_value = "reverse")]
    divergence: DivergenceName,
    /// Order of the Rényi bound; below 0 it is an upper one
    #[arg(long, allow_negative_numbers = true)]
    alpha: Option<f64>,
    /// How the gradient is estimated [default: path]
    #[arg(long, value_enum)]
    estimator: Option<EstimatorName>,
    /// Steps over which the density grows from a hundredth of its logarithm to all of it [default: none]
    #[arg(long, value_name = "STEPS")]
    anneal: Option<u64>,
    /// Draws for the diagnostics
    #[arg(long, default_value_t = 20_000)]
    draws: usize,
    /// Also write so many draws, chosen by their importance weights, to OUT/draws.csv
    #[arg(long, value_name = "N")]
    resample: Option<usize>,
    #[command(flatten)]
    compare: CompareArg,
    #[command(flatten)]
    style: PictureArg,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What `report.json` holds.
#[derive(Debug, Serialize)]
struct Report {
    density: String,
    diagnostics: Diagnostics,
    /// By quadrature.
    divergence_nats: Option<f64>,
    known_log_evidence: Option<f64>,
    /// A known mean: the parameter, what it is, what weighted draws say, and the error of that.
    known_mean: Option<(String, f64, f64, f64)>,
}

impl FitArgs {
    pub(super) fn run(self) -> Result<()> {
        ensure!(self.draws >= 2, "--draws must be at least 2, got {}", self.draws);
        at_least_one("--resample", self.resample.unwrap_or(1))?;
        self.engine.without_previews("a density draws its pictures at the end of the run; leave it out")?;
        let density = self.target.density()?;
        let (family, objective) = (self.family.suited_to(density.names().len()), self.objective()?);
        let model = family.plan_discrete("continuous flows are fitted to data by `density train`")?.sampled();
        if self.compare.is_asked() {
            let with_layers = [("--layers", self.family.layers.is_some()), ("--resample", self.resample.is_some())];
            refuse(&with_layers, "for one fit, --compare makes several; leave it out")?;
            self.engine.without_checkpoints("for one fit, --compare makes several in memory; leave it out")?;
            let fresh = RunArg { out: &self.out, resume: false, limit: TimeLimit::default() };
            let config = self.engine.config(&fresh, STEPS, |steps| recipe_of(family.kind(), steps))?;
            let device = self.engine.device()?;
            return self.compare.run(&density, &Compared { model, objective, config, device }, self.style, &self.out);
        }
        self.compare.check()?;
        let (device, place) = (self.engine.device()?, self.engine.place(&self.out)?);
        let config = self.engine.config(&place, STEPS, |steps| recipe_of(family.kind(), steps))?;
        let (names, words) = (density.names(), in_words(&model));
        self.style.check(names.len() == 2, &format!("for two variables, here are {}; leave it out", names.len()))?;
        let constraints = density.constraints();
        let run = run_of(&density, model, &objective, self.engine.seed());
        let model = run.model(Purpose::Training, &device)?;
        let (steps, parameters) = (config.steps, model.store().parameter_count());
        let task = VariationalTask::new(model.reparameterized(), |x| density.log_density(x), objective, run)?;
        let task = task.locate(&constraints);
        if !place.resume {
            // What cannot be fitted is refused before there is a folder.
            if let Some(location) = task.prepare(&mut FlowRng::named(self.engine.seed(), "probe"))? {
                eprintln!("{}", found_at(&location, &names)?);
            }
        }
        let Trained { summary, report, .. } = training::train(config, place, task, || {
            let samples = self.engine.batch(SAMPLES)?;
            eprintln!("{words}, {parameters} parameters, of {}; {steps} steps of {samples} samples", names.join(", "));
            Ok(())
        })?;
        plot_log(&self.out, VARIATIONAL_LOSS, "loss (nats)")?;
        if !report {
            return Ok(());
        }
        self.report(&density, &summary)
    }

    fn objective(&self) -> Result<Objective> {
        let renyi = self.divergence == DivergenceName::Renyi;
        refuse(&[("--alpha", self.alpha.is_some() && !renyi)], "is the order of --divergence renyi; leave it out")?;
        let forward = self.divergence == DivergenceName::Forward;
        let reason = "the forward divergence has one estimator, by importance weights; leave it out";
        refuse(&[("--estimator", self.estimator.is_some() && forward)], reason)?;
        let divergence = match self.divergence {
            DivergenceName::Reverse => Divergence::Reverse,
            DivergenceName::Forward => Divergence::Forward,
            DivergenceName::ChiSquared => Divergence::chi_squared(),
            DivergenceName::Renyi => Divergence::Renyi {
                alpha: self
                    .alpha
                    .ok_or_else(|| anyhow::anyhow!("--divergence renyi needs its order: add --alpha 0.5"))?,
            },
        };
        let estimator = match self.estimator {
            None | Some(EstimatorName::Path) => Estimator::PathDerivative,
            Some(EstimatorName::Total) => Estimator::Total,
        };
        let annealing = self.anneal.map(|steps| Annealing { start: 0.01, steps });
        Ok(Objective { divergence, estimator, samples: self.engine.batch(SAMPLES)?, annealing })
    }

    /// Pictures, the report and its lines, from the checkpoint on disk.
    fn report(&self, density: &Density, summary: &Summary) -> Result<()> {
        let (run, model) = load_from(&self.out, &self.engine.device()?, true)?;
        let (q, seed) = (model.reparameterized(), self.engine.seed());
        let rng = |purpose: &str| FlowRng::named(seed, purpose);
        let diagnostics = diagnose(q, |x| density.log_density(x), self.draws, &mut rng("diagnostics"))?;
        let known_log_evidence = density.log_evidence()?;
        let mut report = Report {
            density: density.name(),
            known_log_evidence,
            divergence_nats: None,
            known_mean: None,
            diagnostics,
        };
        let draw = || Weighted::draw(q, |x| density.log_density(x), self.draws, &mut rng("diagnostics"));
        match density {
            Density::Energy(energy) => {
                let divergence = energy.divergence(q)?;
                let log_z = energy.log_evidence()?;
                println!("{energy}: KL(q‖p) {divergence:.4} nats by quadrature, log evidence {log_z:.4}");
                report.divergence_nats = Some(divergence);
            }
            Density::Problem(problem) => {
                let ((coordinate, known), (found, error)) = (problem.known_mean()?, problem.mean_of(&draw()?)?);
                let (name, log_z) = (density.names()[coordinate].clone(), problem.log_evidence()?);
                println!(
                    "{problem}: known log evidence {log_z:.4}, mean of {name} {known:.4}; by weighted draws {found:.4} ± {error:.4}"
                );
                report.known_mean = Some((name, known, found, error));
            }
            Density::Expression { .. } => {}
        }
        println!("{}", report.diagnostics);
        atomic_write(&self.out.join("report.json"), serde_json::to_string_pretty(&report)?.as_bytes())?;
        if let Some(count) = self.resample {
            let drawn = draw()?.resample(count, &mut rng("resampled draws"))?;
            let text = header(run.names()) + &csv(&run.standard.undo(&drawn)?, &run.standard);
            atomic_write(&self.out.join("draws.csv"), text.as_bytes())?;
        }
        let mut seen: &Path = &self.out.join("loss.png");
        let picture = self.out.join("density.png");
        if run.features() == 2 {
            let log_z = known_log_evidence.unwrap_or(report.diagnostics.log_evidence);
            draw_beside(&model, density, log_z, self.style, &picture, seed)?;
            seen = &picture;
        }
        println!("{} steps in {:.0} s; {}", summary.step, summary.seconds, seen.display());
        Ok(())
    }
}

/// A run that fits a model to a density.
pub(super) fn run_of(density: &Density, model: ModelConfig, objective: &Objective, seed: u64) -> DensityRun {
    let (kind, constraints) = (density.kind().to_string(), density.constraints());
    let fitted = Fitted { kind, constraints, objective: objective.clone(), located: true };
    DensityRun::of_density(&density.name(), &density.names(), model, fitted, seed)
}

/// Where the density lies, in words.
fn found_at(location: &Location, names: &[String]) -> Result<String> {
    const SHOWN: usize = 6;
    let parameters = location.parameters()?;
    let entry = |(name, (mean, deviation)): (&String, &(f64, f64))| format!("{name} {mean:.4} ± {deviation:.4}");
    let shown: Vec<String> = names.iter().zip(&parameters).take(SHOWN).map(entry).collect();
    let more = if parameters.len() > SHOWN { ", …" } else { "" };
    Ok(format!("not of order one: the flow begins where a normal fits the density best, {}{more}", shown.join(", ")))
}

/// The recipe of a family.
fn recipe_of(kind: Kind, steps: u64) -> TrainConfig {
    let mut config = TrainConfig { validate_every: Some(250), checkpoint_every: Some(500), ..recipe(steps) };
    if matches!(kind, Kind::Planar | Kind::Radial | Kind::Sylvester) {
        config.optimizer.learning_rate = 5e-3;
    }
    config
}

/// Both densities of two variables as colours.
pub(super) fn draw_beside(
    model: &Model,
    density: &Density,
    log_evidence: f64,
    style: PictureArg,
    path: &Path,
    seed: u64,
) -> Result<()> {
    picture::beside(model, style, path, seed, |points| {
        let logs = density.log_density(points)?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
        Ok(logs.into_iter().map(|log| (log - log_evidence).exp()).collect())
    })
}
