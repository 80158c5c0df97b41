//! `waveflow vocode`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use flow_audio::io::{Picture, mel_picture, waveform_picture};
use flow_audio::mel::Mel;
use flow_audio::metrics::multi_resolution_stft;

use super::common::{DataArg, DrawArg, FileNames, load};
use crate::cli::{CheckpointArg, DeviceArg, Part, at_least_one, create_folder};

/// Turn recordings into spectrograms and back
#[derive(Args, Debug)]
#[command(after_help = "\
Copy synthesis: what a listener loses by the model alone, as the spectrogram is the recording's own. Every clip becomes a WAV
file and a picture of both, the recording above. The distance is the multi-resolution STFT distance (Parallel WaveGAN).

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
            let both = copy.len().min(aligned.samples.len());
            let heard = [(&aligned.samples[..both], &aligned.mel), (&copy[..both], &run.mel.spectrogram(&copy)?)];
            sheet(heard)?.write_png(&path.with_extension("png"))?;
            let distance = multi_resolution_stft(&aligned.samples[..both], &copy[..both])?.total();
            println!("{}: distance {distance:.3}; {}", clip.name(), path.display());
        }
        if set.len() > self.count {
            eprintln!("note: {} of {} clips; --count takes more", self.count, set.len());
        }
        Ok(())
    }
}

/// Pixels for a value of a spectrogram, and rows of a waveform.
const SCALE: usize = 3;
const WAVEFORM: usize = 72;
/// Columns of a picture at most: so many frames, the first of a clip that has more.
const WIDEST: usize = 32_768;

/// A recording above its copy: waveform and spectrogram of each.
fn sheet(heard: [(&[f32], &Mel); 2]) -> Result<Picture> {
    let [(_, recording), (_, copy)] = heard;
    let frames = recording.frames().min(copy.frames()).min(WIDEST);
    let scale = (WIDEST / frames.max(1)).clamp(1, SCALE);
    let mut rows = Vec::new();
    for (samples, mel) in heard {
        let mel = mel_picture(&mel.cut(0, frames)?, scale)?;
        rows.extend([waveform_picture(samples, mel.width(), WAVEFORM)?, mel]);
    }
    Ok(Picture::stacked(&rows)?)
}
