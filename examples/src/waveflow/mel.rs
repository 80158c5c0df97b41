//! `waveflow mel`.

use std::path::PathBuf;

use anyhow::Result;
use candle_core::Device;
use clap::Args;
use flow_audio::io::mel_picture;

use super::common::{DataArg, FileNames, load};
use crate::cli::{CheckpointArg, Part, create_folder, refuse};

/// Write mel spectrograms of recordings
#[derive(Args, Debug)]
#[command(after_help = "\
Spectrograms are those of the checkpoint: its rate, hop, bands and convention are written with them. Every clip becomes an .npz
file with the array `mel` of [mels, frames] and a picture, low frequencies at the bottom.

Examples:
  waveflow mel
  waveflow mel --checkpoint runs/lj --data recording.wav --out mels")]
pub(super) struct MelArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::All)]
    split: Part,
    /// Folder to write to
    #[arg(long, default_value = "flow-out/waveflow/mels", value_name = "FOLDER")]
    out: PathBuf,
}

impl MelArgs {
    pub(super) fn run(self) -> Result<()> {
        let reason = "for what a model computes, a spectrogram is none of its work; leave it out";
        refuse(&[("--raw-weights", self.checkpoint.raw_weights)], reason)?;
        let (run, _) = load(&self.checkpoint, &Device::Cpu)?;
        let set = self.data.clips(&self.checkpoint, &run, self.split)?;
        create_folder(&self.out)?;
        let mut names = FileNames::default();
        for clip in set.iter() {
            let mel = run.mel.spectrogram(clip.samples())?;
            let path = self.out.join(names.next(clip.name()) + ".npz");
            mel.save(&path)?;
            mel_picture(&mel, 2)?.write_png(&path.with_extension("png"))?;
        }
        let (bands, name) = (run.mel.mels, run.mel.convention.name());
        println!("{} spectrograms of {bands} bands ({name}); {}", set.len(), self.out.display());
        Ok(())
    }
}
