//! `pointflow reconstruct`.

use anyhow::Result;
use clap::Args;
use flow_core::FlowRng;
use flow_points::model::SearchOptions;
use flow_points::trainer::{from_tensor, to_tensor};

use super::common::{SolverArg, load};
use super::data::{InputArg, clouds_at, distances};
use super::output::OutputArg;
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, counted};

/// Encode clouds or meshes and draw them again
#[derive(Args, Debug)]
#[command(after_help = "\
The sheet shows each shape beside its reconstruction. The Chamfer distance is to other points of the same shape than the
encoder saw, with as many points, beside that of two samplings of the shape: no model can do better. With --refine a search
goes on from the encoder's latent to the latent under which the seen points are likelier: slow, but nearer to new shapes.

Examples:
  pointflow reconstruct --data chairs.npy --limit 16
  pointflow reconstruct --data chairs.npy --limit 16 --refine 200
  pointflow reconstruct --data scan.ply --points 20000 --out dense.ply")]
pub(super) struct ReconstructArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    input: InputArg,
    /// Points of each reconstruction
    #[arg(long, default_value_t = 2048)]
    points: usize,
    /// Points that the encoder sees
    #[arg(long, default_value_t = 2048)]
    seen: usize,
    /// Steps of a search for a better latent than the encoder's, 0 for no search
    #[arg(long, value_name = "STEPS", default_value_t = 0)]
    refine: u64,
    #[command(flatten)]
    solver: SolverArg,
    #[command(flatten)]
    output: OutputArg,
    /// Seed of points and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl ReconstructArgs {
    pub(super) fn run(self) -> Result<()> {
        const AT_ONCE: usize = 16;
        at_least_one("--points", self.points)?;
        at_least_one("--seen", self.seen)?;
        let out = self.output.open("reconstruct")?;
        out.spare(self.input.path())?;
        let device = self.device.open()?;
        let (run, model) = load(&self.checkpoint, &device)?;
        let mut rng = FlowRng::named(self.seed, "reconstruct");
        let input = self.input.open_halves(self.seen, (&self.checkpoint, &run), &mut rng)?;
        let solver = self.solver.options()?;
        let draw = self.solver.draw(solver.as_ref(), 1.0);
        let mut search = SearchOptions::default();
        search.steps = self.refine;
        search.points = run.points;
        // Its own draws, so that the points start from the same noise with it and without.
        let mut search_rng = FlowRng::named(self.seed, "refine");
        let mut drawn = Vec::new();
        for clouds in input.seen.chunks(AT_ONCE) {
            let normal: Vec<_> = clouds.iter().map(|c| run.normalization.apply(c)).collect();
            let normal = to_tensor(&normal, &device)?;
            let mut latents = run.latents(&model, &normal)?;
            if self.refine > 0 {
                latents = model.refine(&normal, &latents, &search, &mut search_rng)?;
            }
            let (points, _) = model.decode(&latents, self.points, &draw, &mut rng)?;
            drawn.extend(from_tensor(&points)?.iter().map(|c| run.normalization.undo(c)));
        }
        let (error, floor) = distances(&drawn, &input.seen, &input.fresh)?;
        let pairs = clouds_at(run.origin, input.seen.into_iter().zip(drawn.iter().cloned()).flat_map(|(a, b)| [a, b]));
        let clouds = clouds_at(run.origin, drawn);
        let written = out.write_pairs(
            &clouds,
            &pairs,
            &input.names,
            "reconstructed",
            &format!("reconstructed from {}", input.source),
        )?;
        println!(
            "{}, Chamfer distance {error:.4e}, two samplings of a shape {floor:.4e} ({:.2} times); {}",
            counted(clouds.len(), "shape"),
            error / floor,
            written.display()
        );
        Ok(())
    }
}
