//! `videoflow predict`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use flow_core::FlowRng;
use flow_video::model::Predictor;

use super::common::{DataArg, DrawArg, FPS, TellArg, chosen, enough, load, places};
use super::film::{self, Futures};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, create_parent, numbered};

/// Draw futures of given clips
#[derive(Args, Debug)]
#[command(after_help = "\
The given frames are encoded, and every following frame is drawn from the prior over time; a drawn frame is never encoded
again. The ending of --out chooses what is written: .png a sheet with time from left to right, .gif, .apng, .y4m (and with
the feature ffmpeg .mp4, .webm, .mkv) an animation of what happened beside the futures, .npy the drawn frames alone.

Examples:
  videoflow predict
  videoflow predict --count 8 --frames 40 --out futures.gif
  videoflow predict --checkpoint runs/clips --data clip.gif --split all --temperature 0.5 --out future.png
  videoflow predict --checkpoint runs/robot --action 0.1,-0.3 --guidance 2 --out left.gif
  videoflow predict --clip 3,14 --temperature 0.8,0.8,1 --out both.gif       a file for each clip: both-3.gif, both-14.gif")]
pub(super) struct PredictArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Clips to go on from, counted from 0
    #[arg(long, value_delimiter = ',', default_value = "0")]
    clip: Vec<usize>,
    /// First of the given frames
    #[arg(long, default_value_t = 0)]
    from: usize,
    /// How many frames are given [default: those of the run]
    #[arg(long)]
    context: Option<usize>,
    /// Futures of each clip
    #[arg(long, default_value_t = 4)]
    count: usize,
    /// Frames to draw [default: those of the run's recipe]
    #[arg(long)]
    frames: Option<usize>,
    #[command(flatten)]
    draw: DrawArg,
    #[command(flatten)]
    tell: TellArg,
    /// File to write
    #[arg(long, default_value = "flow-out/videoflow/futures.gif", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArg,
}

impl PredictArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        at_least_one("--frames", self.frames.unwrap_or(1))?;
        check_output(&self.out)?;
        film::check(&self.out, FPS)?;
        let device = self.device.open()?;
        let (run, model) = load(&self.checkpoint, &device)?;
        self.tell.check(&run)?;
        let context = self.context.unwrap_or(run.context);
        enough(&run, context)?;
        let set = self.data.clips(&self.checkpoint, &run, self.from + context)?;
        let places = places(&set, &self.clip, 1)?;
        let (frames, fps) = (self.frames.unwrap_or(run.horizon), set.fps().unwrap_or(FPS));
        let temperatures = self.draw.temperatures(&run);
        for (place, given) in places.iter().zip(chosen(&set, &places, self.from, context)?) {
            let mut rng = FlowRng::named(self.draw.seed, &format!("predict {place}"));
            let mut seen = Predictor::new(&model);
            seen.observe(&given.unsqueeze(0)?.to_device(&device)?)?;
            // What happened, as far as it is known.
            let length = set.get(*place).map_or(0, |clip| clip.frames());
            let known = (length - self.from).min(context + frames);
            let after = known.saturating_sub(context);
            let told = if after > 0 { set.batch_actions(&[(*place, self.from + context)], after)? } else { None };
            let told = told.map(|told| told.squeeze(0)).transpose()?;
            let seen = self.tell.apply(seen, run.model.actions, frames, told)?;
            let drawn = seen.repeat(self.count)?.predict(frames, &temperatures, &mut rng)?;
            let truth = film::pixels(&set.window(*place, self.from, known)?, run.spec.levels)?;
            let drawn =
                (0..self.count).map(|row| film::pixels(&drawn.get(row)?, run.spec.levels)).collect::<Result<_>>()?;
            let path = if places.len() == 1 { self.out.clone() } else { numbered(&self.out, *place) };
            create_parent(&path)?;
            Futures { truth, context, drawn }.write(&path, fps)?;
            let name = set.get(*place).map_or_else(String::new, |clip| clip.name().to_string());
            println!(
                "{} futures of {frames} frames after {context} frames of {name}, temperature {temperatures:?}; {}",
                self.count,
                path.display()
            );
        }
        Ok(())
    }
}
