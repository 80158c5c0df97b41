//! `pointflow render`.

use anyhow::Result;
use clap::Args;
use flow_core::FlowRng;

use super::data::InputArg;
use super::output::OutputArg;
use crate::cli::{at_least_one, counted};

/// Draw pictures of clouds or meshes: contact sheet and turntable
#[derive(Args, Debug)]
#[command(after_help = "\
Normals and colours of the data are written too, coordinates far from zero as doubles.

Examples:
  pointflow render                                   the built-in shapes
  pointflow render --data scan.ply --points 50000 --out picture
  pointflow render --data models/ --split train --limit 64")]
pub(super) struct RenderArgs {
    #[command(flatten)]
    input: InputArg,
    /// Largest number of points drawn of each shape
    #[arg(long, default_value_t = 2048)]
    points: usize,
    #[command(flatten)]
    output: OutputArg,
    /// Seed of the choice of points
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl RenderArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--points", self.points)?;
        let out = self.output.open("render")?;
        out.spare(self.input.path())?;
        let mut rng = FlowRng::named(self.seed, "render");
        let (clouds, set) = self.input.open_whole(self.points, &mut rng)?;
        let written = out.write(&clouds, &set.names, &format!("points of {}", set.source))?;
        println!("{}; {}", counted(clouds.len(), "shape"), written.display());
        Ok(())
    }
}
