//! `density sample`.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use candle_core::{Device, Tensor};
use clap::Args;
use flow_core::FlowRng;
use flow_core::cnf::ode::Method;
use flow_core::files::atomic_write;
use flow_density::data::Classes;
use flow_density::io::{csv_with, header};
use flow_density::trainer::DensityRun;

use super::common::load;
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, counted, refuse};
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
  density sample --checkpoint runs/iris --class setosa
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
    /// Class of the points, of a model that is given it [default: as often as among the training rows, each]
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
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
        let observed = self.observed(&run)?.map(|x| x.to_device(model.store().device())).transpose()?;
        let (scale, _) = run.scales();
        let steps = self.steps.or_else(|| run.is_distilled().then_some(1));
        let usual = if run.is_distilled() { Method::Euler } else { Method::Heun };
        let method = self.solver.map_or(usual, SolverName::method);
        let reason = "for a model that is given the class, this one was trained without --class-column; leave it out";
        refuse(&[("--class", self.class.is_some() && run.classes().is_none())], reason)?;
        let classes = run.classes().map(|classes| self.classes(classes)).transpose()?;
        let mut rng = FlowRng::named(self.seed, "sample");
        let mut text = if self.no_header { String::new() } else { header(&names(&run)) };
        for start in (0..self.count).step_by(CHUNK) {
            let n = CHUNK.min(self.count - start);
            let part = classes.as_ref().map(|(all, of_rows)| (*all, &of_rows[start..start + n]));
            let given = part.map(|(all, of_rows)| all.context(of_rows, model.store().device())).transpose()?;
            let given = given.or_else(|| observed.clone());
            let drawn = match steps {
                None => model.density().sample(n, given.as_ref(), self.temperature, &mut rng)?,
                Some(steps) => {
                    let latents = model.latents(n, self.temperature, &mut rng)?;
                    match model.in_steps(&latents, given.as_ref(), method, steps)? {
                        Some(drawn) => drawn,
                        None => bail!("--steps is for continuous flows, the checkpoint is of a {}", run.model.kind),
                    }
                }
            };
            let name = |(all, of_rows): (&'_ Classes, &[u32])| -> Vec<String> {
                of_rows.iter().filter_map(|&class| all.names.get(class as usize).cloned()).collect()
            };
            let last = part.map(name).unwrap_or_default();
            let last: Vec<&str> = last.iter().map(String::as_str).collect();
            text += &csv_with(&scale.undo(&drawn)?, &scale, &last);
        }
        if self.out.as_os_str() == "-" {
            std::io::stdout().lock().write_all(text.as_bytes())?;
        } else {
            atomic_write(&self.out, text.as_bytes())?;
            println!("{}; {}", counted(self.count, "point"), self.out.display());
        }
        Ok(())
    }

    /// The observation as the model sees it.
    fn observed(&self, run: &DensityRun) -> Result<Option<Tensor>> {
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

    /// The class of every point.
    fn classes<'a>(&self, classes: &'a Classes) -> Result<(&'a Classes, Vec<u32>)> {
        if let Some(name) = &self.class {
            return Ok((classes, vec![classes.place(name)?; self.count]));
        }
        // A stream of its own: points given a class are the same whichever way the class was chosen.
        let mut rng = FlowRng::named(self.seed, "classes");
        let shares = classes.shares();
        let one = |_| {
            let mut left = rng.next_uniform();
            let place = shares.iter().position(|share| {
                left -= share;
                left < 0.0
            });
            // Rounding may leave a little beyond the last class that has rows.
            let last = shares.iter().rposition(|share| *share > 0.0).unwrap_or_default();
            place.unwrap_or(last) as u32
        };
        Ok((classes, (0..self.count).map(one).collect()))
    }
}

/// The names of the columns of a table like the run's, that of the classes last; none if the run's has none.
fn names(run: &DensityRun) -> Vec<String> {
    let mut names: Vec<String> = run.names().iter().take(run.modelled()).cloned().collect();
    if let Some(classes) = run.classes().filter(|_| !names.is_empty()) {
        names.push(classes.column.clone().unwrap_or_else(|| "class".into()));
    }
    names
}
