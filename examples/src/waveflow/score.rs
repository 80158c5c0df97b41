//! `waveflow score`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use flow_audio::data::Segments;
use flow_audio::io::{Picture, curve_picture, mel_picture, waveform_picture};
use flow_audio::metrics::bits_per_sample;
use flow_audio::trainer::log_prob_over_time;
use flow_core::FlowRng;
use flow_core::files::atomic_write;

use super::common::{DataArg, FileNames, load};
use crate::cli::{CheckpointArg, DeviceArg, Part, at_least_one, create_folder, quoted};

/// Pixels of a frame across, and of the waveform and the curve down.
const SCALE: usize = 2;
const HEIGHT: usize = 120;

/// Measure the likelihood of clips over time
#[derive(Args, Debug)]
#[command(after_help = "\
Nats per sample of every frame, given the spectrogram: where a recording is not what the model learned, they fall. The table
likelihood.csv has a line for each frame; each clip has a picture of its waveform, its spectrogram and the curve, one above the other.

Examples:
  waveflow score
  waveflow score --checkpoint runs/lj --data recording.wav --out scores")]
pub(super) struct ScoreArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::All)]
    split: Part,
    /// How many of the first clips
    #[arg(long, default_value_t = 8)]
    count: usize,
    /// Seed of the noise of dequantization
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder to write to
    #[arg(long, default_value = "flow-out/waveflow/scores", value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArg,
}

impl ScoreArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        // Segments of one frame: clips are scored whole, and none is too short that has a frame.
        let set = Segments::new(&self.data.clips(&self.checkpoint, &run, self.split)?, &run.mel, run.mel.hop)?;
        set.notes().iter().for_each(|note| eprintln!("note: {note}"));
        create_folder(&self.out)?;
        let mut names = FileNames::default();
        let mut table = String::from("clip,name,frame,seconds,nats_per_sample\n");
        let second = run.mel.hop as f64 / f64::from(run.mel.rate);
        for clip in 0..self.count.min(set.clips()) {
            let (name, samples, mel) = set.whole(clip)?;
            let nats =
                log_prob_over_time(&model, &set, clip, &mut FlowRng::named(self.seed, &format!("score {clip}")))?;
            for (frame, &nats) in nats.iter().enumerate() {
                // Writing to a string does not fail.
                let _ = writeln!(table, "{clip},{},{frame},{:.4},{nats:.6}", quoted(name), frame as f64 * second);
            }
            let picture = self.out.join(names.next(name) + ".png");
            let curve: Vec<f32> = nats.iter().map(|&nats| nats as f32).collect();
            let mel = mel_picture(&mel, SCALE)?;
            let wave = waveform_picture(samples, mel.width(), HEIGHT)?;
            let curve = curve_picture(&curve, None, mel.width(), HEIGHT)?;
            Picture::stacked(&[wave, mel, curve])?.write_png(&picture)?;
            let mean = nats.iter().sum::<f64>() / nats.len() as f64;
            let (least, most) = nats.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
            println!(
                "{name}: {:.2} s, {mean:.4} nats/sample ({:.3} bits of a 16-bit sample), frames {least:.2} to {most:.2}; {}",
                samples.len() as f64 / f64::from(run.mel.rate),
                bits_per_sample(mean, 16),
                picture.display()
            );
        }
        let path = self.out.join("likelihood.csv");
        atomic_write(&path, table.as_bytes())?;
        println!("{}", path.display());
        if set.clips() > self.count {
            eprintln!("note: {} of {} clips; --count takes more", self.count, set.clips());
        }
        Ok(())
    }
}
