//! `density sample`.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use candle_core::{Device, Tensor};
use clap::Args;
use flow_core::FlowRng;
use flow_core::cnf::ode::Method;
use flow_core::files::atomic_write;
use flow_density::io::{csv, header};
use flow_density::trainer::DensityRun;

use super::common::load;
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, refuse};
use crate::solver::SolverName;

/// Points drawn at once.
const CHUNK: usize = 4096;

/// Draw points from a trained model
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  density sample                                            1000 rows of numbers on standard output
  density sample --checkpoint runs/board --count 100000 --out points.csv
  density sample --temperature 0.7 --seed 3
  density sample --checkpoint runs/pinwheel --steps 2            few steps suffice for straight paths")]
pub(super) struct SampleArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// CSV file to write; "-" is standard output
    #[arg(long, default_value = "-", value_name = "FILE")]
    out: PathBuf,
    /// Leave out the line of names, which is written where the table that was trained on has one
    #[arg(long)]
    no_header: bool,
    /// Number of points
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// Scale of the latents: below 1 for likelier points
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Number of equal steps that solve a continuous flow [default: its own tolerance decides; a distilled one takes 1]
    #[arg(long)]
    steps: Option<usize>,
    /// The solver of --steps [default: heun, for a distilled model euler]
    #[arg(long, value_enum, requires = "steps")]
    solver: Option<SolverName>,
    /// The observation that parameters are drawn for, comma-separated numbers (runs of `density posterior`)
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", allow_negative_numbers = true)]
    given: Vec<f64>,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl SampleArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            bail!("--temperature must be a finite number of at least 0, got {}", self.temperature);
        }
        check_output(&self.out)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let context = self.context(&run)?;
        let context = context.map(|c| c.to_device(model.store().device())).transpose()?;
        let (scale, _) = run.scales();
        let steps = self.steps.or_else(|| run.is_distilled().then_some(1));
        let usual = if run.is_distilled() { Method::Euler } else { Method::Heun };
        let method = self.solver.map_or(usual, SolverName::method);
        let mut rng = FlowRng::named(self.seed, "sample");
        let mut text =
            if self.no_header { String::new() } else { header(&run.names()[..run.names().len().min(run.modelled())]) };
        for start in (0..self.count).step_by(CHUNK) {
            let n = CHUNK.min(self.count - start);
            let drawn = match steps {
                None => model.density().sample(n, context.as_ref(), self.temperature, &mut rng)?,
                Some(steps) => match model.in_steps(&model.latents(n, self.temperature, &mut rng)?, method, steps)? {
                    Some(drawn) => drawn,
                    None => bail!("--steps is for continuous flows, the checkpoint is of a {}", run.model.kind),
                },
            };
            text += &csv(&scale.undo(&drawn)?, &scale);
        }
        if self.out.as_os_str() == "-" {
            std::io::stdout().lock().write_all(text.as_bytes())?;
        } else {
            atomic_write(&self.out, text.as_bytes())?;
            println!("{} points; {}", self.count, self.out.display());
        }
        Ok(())
    }

    /// The observation as the model sees it.
    fn context(&self, run: &DensityRun) -> Result<Option<Tensor>> {
        let (found, wanted) = (self.given.len(), run.given);
        if wanted == 0 {
            refuse(
                &[("--given", found > 0)],
                "for a posterior, the checkpoint is of a density without observations; leave it out",
            )?;
            return Ok(None);
        }
        let names = run.names().get(run.modelled()..).unwrap_or_default().join(",");
        let which = if names.is_empty() { String::new() } else { format!(" ({names})") };
        ensure!(
            found == wanted,
            "--given: needs the {wanted} observed numbers{which} that parameters are drawn for, got {found}"
        );
        ensure!(self.given.iter().all(|v| v.is_finite()), "--given: needs finite numbers, got {:?}", self.given);
        Ok(Some(run.scales().1.apply(&self.given, &Device::Cpu)?))
    }
}
