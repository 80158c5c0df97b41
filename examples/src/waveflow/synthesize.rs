//! `waveflow synthesize`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use flow_audio::mel::Mel;

use super::common::{DrawArg, load};
use super::pieces::PiecesArg;
use crate::cli::{CheckpointArg, DeviceArg, check_output, create_parent};

/// Make a waveform of a mel spectrogram
#[derive(Args, Debug)]
#[command(after_help = "\
An .npz file says how its spectrogram was computed, and one that the model was not trained with is refused by what differs. A
bare .npy file of [mels, frames] says nothing: name its --convention, which must be the model's.

Examples:
  waveflow synthesize mels/recording.npz --out recording.wav
  waveflow synthesize mels/recording.npz --chunk 64 --overlap 16 --compare
  waveflow synthesize other.npy --convention tacotron2 --temperature 0.7 --denoise 0.1")]
pub(super) struct SynthesizeArgs {
    /// Spectrogram: .npz of `waveflow mel`, or .npy
    #[arg(value_name = "MEL")]
    mel: PathBuf,
    /// How a bare .npy file was computed: tacotron2, hifi-gan or parakeet
    #[arg(long, value_name = "NAME")]
    convention: Option<String>,
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    draw: DrawArg,
    #[command(flatten)]
    pieces: PiecesArg,
    /// WAV file to write
    #[arg(long, default_value = "flow-out/waveflow/synthesis.wav", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArg,
}

impl SynthesizeArgs {
    pub(super) fn run(self) -> Result<()> {
        check_output(&self.out)?;
        self.pieces.whole()?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let mel = match &self.convention {
            Some(name) => {
                let own = run.mel.convention.name();
                ensure!(name == own, "--convention {name}: the model was trained with {own}");
                Mel::load_as(&self.mel, &run.mel)?
            }
            None => Mel::load(&self.mel)?,
        };
        let speaker = self.draw.speaker(&run, &model)?;
        create_parent(&self.out)?;
        let name = self.mel.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let audio = speaker.write_in(&self.pieces, &mel, &name, &self.out)?;
        println!("{} frames, {} samples at {} Hz; {}", mel.frames(), audio.len(), run.mel.rate, self.out.display());
        Ok(())
    }
}
