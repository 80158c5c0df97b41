//! `pointflow complete`.

use anyhow::{Result, bail};
use clap::Args;
use flow_core::FlowRng;
use flow_points::model::{CompleteOptions, SearchOptions};
use flow_points::trainer::{from_tensor, to_tensor};

use super::common::{SolverArg, load};
use super::data::{InputArg, clouds_at};
use super::output::OutputArg;
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, counted};

/// Complete a partial cloud
#[derive(Args, Debug)]
#[command(after_help = "\
Searches for the latent under which the given points are likeliest, from several starts, and draws the whole shape.
The points must stand in the frame of the training data: a scan is not registered to it.

Examples:
  pointflow complete --data half.ply --points 4096
  pointflow complete --data chairs.npy --limit 4 --keep right      first hide half of known shapes, then complete them")]
pub(super) struct CompleteArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    input: InputArg,
    /// Keep only this half of every shape: left, right (x), bottom, top (y), back, front (z)
    #[arg(long, value_name = "SIDE")]
    keep: Option<String>,
    /// Number of points of each completed cloud
    #[arg(long, default_value_t = 2048)]
    points: usize,
    /// Number of given points that are used
    #[arg(long, default_value_t = 1024)]
    seen: usize,
    /// Number of starts of the search
    #[arg(long, default_value_t = CompleteOptions::default().starts)]
    starts: usize,
    /// Steps of the search from each start
    #[arg(long, default_value_t = SearchOptions::default().steps)]
    steps: u64,
    #[command(flatten)]
    solver: SolverArg,
    #[command(flatten)]
    output: OutputArg,
    /// Seed of the search
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl CompleteArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--points", self.points)?;
        at_least_one("--seen", self.seen)?;
        let side = self.keep.as_deref().map(Side::parse).transpose()?;
        let out = self.output.open("complete")?;
        out.spare(self.input.path())?;
        let device = self.device.open()?;
        let (run, model) = load(&self.checkpoint, &device)?;
        let mut rng = FlowRng::named(self.seed, "complete");
        let partial = self.input.open_at_most(
            self.seen,
            side.as_ref().map(|s| |p: &[f64; 3]| s.keeps(p)),
            (&self.checkpoint, &run),
            &mut rng,
        )?;
        let solver = self.solver.options()?;
        let draw = self.solver.draw(solver.as_ref(), 1.0);
        let mut options = CompleteOptions::default();
        options.starts = self.starts;
        options.search.steps = self.steps;
        let (mut pairs, mut clouds, mut objective) = (Vec::new(), Vec::new(), 0.0);
        for seen in &partial.clouds {
            let points = to_tensor(&[run.normalization.apply(seen)], &device)?;
            let encoded = run.latents(&model, &points)?;
            let (latent, value) = model.complete(&points.squeeze(0)?, &encoded, &options, &mut rng)?;
            let (drawn, _) = model.decode(&latent, self.points, &draw, &mut rng)?;
            let whole = run.normalization.undo(&from_tensor(&drawn)?[0]);
            pairs.extend([seen.clone(), whole.clone()]);
            clouds.push(whole);
            objective += value / partial.clouds.len() as f64;
        }
        let title = format!("completed from points of {}", partial.source);
        let (clouds, pairs) = (clouds_at(partial.origin, clouds), clouds_at(partial.origin, pairs));
        let written = out.write_pairs(&clouds, &pairs, &partial.names, "completed", &title)?;
        println!("{} completed, objective {objective:.4}; {}", counted(clouds.len(), "shape"), written.display());
        Ok(())
    }
}

/// Half of space.
struct Side {
    axis: usize,
    positive: bool,
}

impl Side {
    fn parse(name: &str) -> Result<Self> {
        let (axis, positive) = match name {
            "left" => (0, false),
            "right" => (0, true),
            "bottom" => (1, false),
            "top" => (1, true),
            "back" => (2, false),
            "front" => (2, true),
            _ => bail!("--keep {name}: expected left, right, bottom, top, back or front"),
        };
        Ok(Side { axis, positive })
    }

    fn keeps(&self, point: &[f64; 3]) -> bool {
        (point[self.axis] >= 0.0) == self.positive
    }
}
