//! `waveflow vocode`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use flow_audio::io::mel_picture;
use flow_audio::metrics::multi_resolution_stft;

use super::common::{DataArg, DrawArg, FileNames, load};
use crate::cli::{CheckpointArg, DeviceArg, Part, at_least_one, create_folder};

/// Turn recordings into spectrograms and back
#[derive(Args, Debug)]
#[command(after_help = "\
Copy synthesis: what a listener loses by the model alone, as the spectrogram is the recording's own. Every clip becomes a WAV
file and a picture of the spectrogram of the copy. The distance is the multi-resolution STFT distance (Parallel WaveGAN).

Examples:
  waveflow vocode
  waveflow vocode --data recording.wav --temperature 0.8 --denoise 0.1 --out copies
  waveflow vocode --checkpoint runs/lj --data speech/ --resample --count 4")]
pub(super) struct VocodeArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::All)]
    split: Part,
    /// How many of the first clips
    #[arg(long, default_value_t = 4)]
    count: usize,
    #[command(flatten)]
    draw: DrawArg,
    /// Folder to write to
    #[arg(long, default_value = "flow-out/waveflow/copies", value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArg,
}

impl VocodeArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let set = self.data.clips(&self.checkpoint, &run, self.split)?;
        let speaker = self.draw.speaker(&run, &model)?;
        create_folder(&self.out)?;
        let mut names = FileNames::default();
        for clip in set.iter().take(self.count) {
            let aligned = run.mel.aligned(clip.samples())?;
            let path = self.out.join(names.next(clip.name()) + ".wav");
            let copy = speaker.write(&aligned.mel, clip.name(), &path)?;
            mel_picture(&run.mel.spectrogram(&copy)?, 2)?.write_png(&path.with_extension("png"))?;
            let both = copy.len().min(aligned.samples.len());
            let distance = multi_resolution_stft(&aligned.samples[..both], &copy[..both])?.total();
            println!("{}: distance {distance:.3}; {}", clip.name(), path.display());
        }
        if set.len() > self.count {
            eprintln!("note: {} of {} clips; --count takes more", self.count, set.len());
        }
        Ok(())
    }
}
