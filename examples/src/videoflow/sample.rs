//! `videoflow sample`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use flow_core::FlowRng;
use flow_video::model::Predictor;

use super::common::{DrawArg, FPS, TellArg, load};
use super::film;
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, counted, create_parent};

/// Draw whole clips from nothing
#[derive(Args, Debug)]
#[command(after_help = "\
The first frames are drawn from the priors that know no past. They are learned only where the run was trained with
--score-context; other runs go on from given frames, see `videoflow predict`.

Examples:
  videoflow train --score-context --out runs/whole
  videoflow sample --checkpoint runs/whole --count 8 --frames 20 --out clips.gif")]
pub(super) struct SampleArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Clips to draw
    #[arg(long, default_value_t = 8)]
    count: usize,
    /// Frames of each
    #[arg(long, default_value_t = 16)]
    frames: usize,
    #[command(flatten)]
    draw: DrawArg,
    #[command(flatten)]
    tell: TellArg,
    /// File to write: .gif, .apng, .y4m, .png (a sheet), .npy
    #[arg(long, default_value = "flow-out/videoflow/samples.gif", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArg,
}

impl SampleArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        at_least_one("--frames", self.frames)?;
        check_output(&self.out)?;
        film::check(&self.out, FPS)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        ensure!(
            run.score_context,
            "the first frames of this run were given and never learned: train with --score-context, or go on from frames \
             with `videoflow predict`"
        );
        self.tell.check(&run)?;
        let mut predictor = Predictor::new(&model);
        predictor.begin(1)?;
        let mut predictor = self.tell.apply(predictor, run.model.actions, self.frames, None)?.repeat(self.count)?;
        let mut rng = FlowRng::named(self.draw.seed, "sample");
        let drawn = predictor.predict(self.frames, &self.draw.temperatures(&run), &mut rng)?;
        let clips: Vec<_> =
            (0..self.count).map(|row| film::pixels(&drawn.get(row)?, run.spec.levels)).collect::<Result<_>>()?;
        let names = (1..=self.count).map(|n| format!("sample {n}")).collect();
        create_parent(&self.out)?;
        film::write_clips(&self.out, &clips, names, FPS)?;
        println!("{} of {}; {}", counted(self.count, "clip"), counted(self.frames, "frame"), self.out.display());
        Ok(())
    }
}
