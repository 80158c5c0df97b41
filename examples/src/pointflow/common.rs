//! Flags and loading that several verbs share.

use anyhow::{Result, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use flow_core::cnf::ode::{Method, SolveOptions, Stepping};
use flow_points::model::{Draw, PointFlow, PointFlowConfig};
use flow_points::trainer::PointRun;

use crate::cli::CheckpointArg;
use crate::solver::SolverName;

/// The program's name, and that of its folder of results.
pub(super) const PROGRAM: &str = "pointflow";

/// A preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Preset {
    /// The networks of `embedded`, narrower: for minutes.
    Small,
    /// The paper's networks trained by flow matching.
    Matching,
    /// An embedding of time and latent, preconditioned, narrower for points, by flow matching: for an hour.
    Embedded,
    /// The paper's networks and objective: likelihood through the solver.
    Paper,
    /// The paper's auto-encoder.
    PaperAutoEncoder,
}

impl Preset {
    /// Its hyper-parameters.
    pub(super) fn config(self) -> PointFlowConfig {
        match self {
            Preset::Small => PointFlowConfig::small(),
            Preset::Matching => PointFlowConfig::matching(),
            Preset::Embedded => PointFlowConfig::embedded(),
            Preset::Paper => PointFlowConfig::paper(),
            Preset::PaperAutoEncoder => PointFlowConfig::paper_auto_encoder(),
        }
    }
}

/// How samples are integrated.
#[derive(Args, Debug, Clone)]
pub(super) struct SolverArg {
    /// Solver that draws points and latents [default: the model's own]
    #[arg(long, value_enum)]
    solver: Option<SolverName>,
    /// Number of equal steps of the solver
    #[arg(long)]
    solver_steps: Option<usize>,
    /// Error that the solver may make in a step, whose size it adapts [default: 0.00001]
    #[arg(long, conflicts_with = "solver_steps")]
    tolerance: Option<f64>,
}

impl SolverArg {
    /// The flags, each with whether it was given.
    pub(super) fn given(&self) -> [(&'static str, bool); 3] {
        [
            ("--solver", self.solver.is_some()),
            ("--solver-steps", self.solver_steps.is_some()),
            ("--tolerance", self.tolerance.is_some()),
        ]
    }

    /// The solver of the flags, `None` for the model's own.
    pub(super) fn options(&self) -> Result<Option<SolveOptions>> {
        let method = match self.solver {
            None if self.solver_steps.is_none() && self.tolerance.is_none() => return Ok(None),
            None => Method::Dopri5,
            Some(name) => name.method(),
        };
        let stepping = match (self.solver_steps, self.tolerance) {
            (Some(steps), _) => Stepping::fixed(steps),
            (None, tolerance) if method.adaptive() => {
                let tolerance = tolerance.unwrap_or(1e-5);
                Stepping::adaptive(tolerance, tolerance)
            }
            (None, _) => bail!("--solver {:?} has no error estimate: give --solver-steps", method),
        };
        let options = SolveOptions::new(method, stepping);
        options.check()?;
        Ok(Some(options))
    }

    /// A [`Draw`] with these options.
    pub(super) fn draw<'a>(&self, solver: Option<&'a SolveOptions>, temperature: f64) -> Draw<'a> {
        Draw::default().with_temperature(temperature).with_solver(solver)
    }
}

/// Loads a checkpoint's model with its run.
pub(super) fn load(checkpoint: &CheckpointArg, device: &Device) -> Result<(PointRun, PointFlow)> {
    Ok(flow_core::train::load(&checkpoint.folder(PROGRAM), device, !checkpoint.raw_weights)?)
}

/// Refuses a temperature that is no positive number.
pub(super) fn check_temperature(temperature: f64) -> Result<()> {
    if !(temperature > 0.0 && temperature.is_finite()) {
        bail!("--temperature must be a positive number, got {temperature}");
    }
    Ok(())
}
