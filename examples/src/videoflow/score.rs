//! `videoflow score`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use flow_core::FlowRng;
use flow_core::files::atomic_write;
use flow_video::metrics::bits_per_frame;
use flow_video::model::Footage;

use super::common::{DataArg, load, places};
use crate::cli::{CheckpointArg, DeviceArg, check_output, create_parent, quoted};
use crate::plot::{Look, Series, loss_curve};

/// Measure how surprising every frame of clips is
#[derive(Args, Debug)]
#[command(after_help = "\
bits/dim of a frame given the frames before it: a frame that the model did not expect costs more bits. The first frames,
which have too little past, are left out. The table has a line for each frame; beside it a curve is drawn, FILE.png.

Examples:
  videoflow score
  videoflow score --checkpoint runs/clips --data recordings/ --split all --out surprise.csv
  videoflow score --clip 3,14 --out two.csv")]
pub(super) struct ScoreArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Clips to score, counted from 0 [default: the first ones]
    #[arg(long, value_delimiter = ',')]
    clip: Vec<usize>,
    /// How many of the first clips
    #[arg(long, default_value_t = 8, conflicts_with = "clip")]
    count: usize,
    /// Seed of the noise of dequantization
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Table to write
    #[arg(long, default_value = "flow-out/videoflow/surprise.csv", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArg,
}

impl ScoreArgs {
    pub(super) fn run(self) -> Result<()> {
        check_output(&self.out)?;
        let device = self.device.open()?;
        let (run, model) = load(&self.checkpoint, &device)?;
        let past = run.model.past();
        let set = self.data.clips(&self.checkpoint, &run, past + 1)?;
        let mut table = String::from("clip,name,frame,bits_per_dim\n");
        let mut curves = Vec::new();
        let (mut most, mut at) = (f64::NEG_INFINITY, (0, 0));
        for place in places(&set, &self.clip, self.count)? {
            let Some(clip) = set.get(place) else { continue };
            let mut rng = FlowRng::named(self.seed, &format!("score {place}"));
            let frames = set.window(place, 0, clip.frames())?.unsqueeze(0)?.to_device(&device)?;
            let actions = set.batch_actions(&[(place, 0)], clip.frames())?;
            let bits = bits_per_frame(&model, Footage::new(&frames, actions.as_ref()), &mut rng)?.swap_remove(0);
            for (frame, &bits) in bits.iter().enumerate().skip(past) {
                // Writing to a string does not fail.
                let _ = writeln!(table, "{place},{},{frame},{bits:.6}", quoted(clip.name()));
                if bits > most {
                    (most, at) = (bits, (place, frame));
                }
            }
            let points = bits.iter().enumerate().skip(past).map(|(frame, &bits)| (frame as f64, bits)).collect();
            curves.push(Series::new(clip.name(), points, Look::Marked));
        }
        create_parent(&self.out)?;
        atomic_write(&self.out, table.as_bytes())?;
        let picture = self.out.with_extension("png");
        // More names than colours make no legend.
        if curves.len() > 5 {
            curves.iter_mut().for_each(|curve| curve.name.clear());
        }
        loss_curve(&curves, "Surprise", "frame", "bits/dim", &picture)?;
        let ((clip, frame), out) = (at, self.out.display());
        println!("most surprising: frame {frame} of clip {clip}, {most:.4} bits/dim; {out}, {}", picture.display());
        Ok(())
    }
}
