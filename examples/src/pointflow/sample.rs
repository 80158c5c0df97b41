//! `pointflow sample`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use flow_core::FlowRng;
use flow_points::trainer::draw_clouds;

use super::common::{SolverArg, check_temperature, load};
use super::data::clouds_at;
use super::output::{OutputArg, sample_name};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, counted};

/// Draw new clouds of any number of points
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pointflow sample                                     16 clouds: PLYs, contact sheet, turntable
  pointflow sample --count 100 --points 10000 --out clouds
  pointflow sample --count 1000 --out drawn.npy        one array [1000, 2048, 3]
  pointflow sample --solver euler --solver-steps 10    faster, a little rougher")]
pub(super) struct SampleArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    output: OutputArg,
    /// Number of clouds
    #[arg(long, default_value_t = 16)]
    count: usize,
    /// Points of each cloud
    #[arg(long, default_value_t = 2048)]
    points: usize,
    /// Temperature of the draws: below 1 more typical shapes, above 1 more unusual ones
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    temperature: f64,
    #[command(flatten)]
    solver: SolverArg,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl SampleArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        at_least_one("--points", self.points)?;
        check_temperature(self.temperature)?;
        let out = self.output.open("sample")?;
        out.holds(self.count)?;
        let solver = self.solver.options()?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let draw = self.solver.draw(solver.as_ref(), self.temperature);
        let begun = Instant::now();
        let mut rng = FlowRng::named(self.seed, "sample");
        let clouds = draw_clouds(&model, &run.normalization, self.count, self.points, &draw, &mut rng)?;
        let rate = self.count as f64 / begun.elapsed().as_secs_f64();
        let clouds = clouds_at(run.origin, clouds);
        let names: Vec<String> = (0..clouds.len()).map(sample_name).collect();
        let written: PathBuf = out.write(&clouds, &names, &format!("drawn by pointflow, seed {}", self.seed))?;
        println!(
            "{} of {} at {rate:.1} clouds/s; {}",
            counted(self.count, "cloud"),
            counted(self.points, "point"),
            written.display()
        );
        Ok(())
    }
}
