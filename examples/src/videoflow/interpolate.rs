//! `videoflow interpolate`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use clap::Args;

use super::common::{DataArg, FPS, load};
use super::film;
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, create_parent};

/// Walk between two frames
#[derive(Args, Debug)]
#[command(after_help = "\
The latents of two frames are mixed in steps of equal size, at all levels or at those of --level, and decoded.

Examples:
  videoflow interpolate --start 0:0 --end 0:12 --out walk.png
  videoflow interpolate --start 3:0 --end 8:0 --level 2 --count 16 --out shape.gif      only the coarsest latents move")]
pub(super) struct InterpolateArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// The frame to start from, CLIP:FRAME, counted from 0
    #[arg(long, default_value = "0:0", value_name = "CLIP:FRAME")]
    start: String,
    /// The frame to end at
    #[arg(long, default_value = "1:0", value_name = "CLIP:FRAME")]
    end: String,
    /// Levels whose latents move, 0 the finest; the others stay those of the start [default: all]
    #[arg(long, value_delimiter = ',')]
    level: Option<Vec<usize>>,
    /// Frames of the walk, both ends included
    #[arg(long, default_value_t = 9)]
    count: usize,
    /// File to write: .png (a strip), .gif, .apng, .y4m, .npy
    #[arg(long, default_value = "flow-out/videoflow/walk.png", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArg,
}

impl InterpolateArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        check_output(&self.out)?;
        film::check(&self.out, FPS)?;
        let device = self.device.open()?;
        let (run, model) = load(&self.checkpoint, &device)?;
        if run.model.prior.motion.is_some() && !run.score_context {
            eprintln!(
                "note: the run learned frames given those before, and none alone as here: train with --score-context"
            );
        }
        let levels = run.model.levels;
        if let Some(beyond) = self.level.iter().flatten().find(|level| **level >= levels) {
            anyhow::bail!("--level {beyond}: the model has levels 0 to {}", levels - 1);
        }
        let set = self.data.clips(&self.checkpoint, &run, 1)?;
        let frame = |place: &str| -> Result<Vec<Tensor>> {
            let (clip, frame) = parse(place)?;
            let length = set.get(clip).map_or(0, |clip| clip.frames());
            ensure!(
                frame < length,
                "{place}: no such frame; there are {} clips, that one has {length} frames",
                set.len()
            );
            Ok(model.latents_of_frames(&set.window(clip, frame, 1)?.to_device(&device)?)?)
        };
        let (start, end) = (frame(&self.start)?, frame(&self.end)?);
        let moves = |level: usize| self.level.as_ref().is_none_or(|levels| levels.contains(&level));
        let steps = (self.count - 1).max(1) as f64;
        let mut walk = Vec::with_capacity(self.count);
        for step in 0..self.count {
            let share = step as f64 / steps;
            let between = start.iter().zip(&end).enumerate().map(|(level, (start, end))| -> Result<Tensor> {
                let share = if moves(level) { share } else { 0.0 };
                Ok((start.affine(1.0 - share, 0.0)? + end.affine(share, 0.0)?)?)
            });
            walk.push(model.frames_of_latents(&between.collect::<Result<Vec<_>>>()?)?);
        }
        let clip = film::pixels(&Tensor::cat(&walk, 0)?, run.spec.levels)?;
        create_parent(&self.out)?;
        film::write_clips(&self.out, &[clip], vec!["walk".into()], FPS)?;
        println!("{} frames from {} to {}; {}", self.count, self.start, self.end, self.out.display());
        Ok(())
    }
}

/// `CLIP:FRAME`.
fn parse(place: &str) -> Result<(usize, usize)> {
    let parts = place.split_once(':').and_then(|(clip, frame)| Some((clip.parse().ok()?, frame.parse().ok()?)));
    parts.with_context(|| format!("{place}: expected CLIP:FRAME, such as 3:0"))
}
