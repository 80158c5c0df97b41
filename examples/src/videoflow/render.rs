//! `videoflow render`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use flow_video::data::Clip;

use super::common::{FPS, places, read};
use super::film;
use super::reading::ReadingArg;
use crate::cli::{Part, check_output, create_parent};

/// Write clips of a data set as animations or pictures
#[derive(Args, Debug)]
#[command(after_help = "\
Shows what a training would see: files as they are read, cropped and resized, or clips that are made.

Examples:
  videoflow render --data digits --count 6 --out digits.gif
  videoflow render --data shapes --clip 0 --out shape.png
  videoflow render --data recording.y4m --size 64 --cut 30 --split all --clip 4 --out part.npy")]
pub(super) struct RenderArgs {
    /// Clips, as `videoflow train` takes them
    #[arg(long, default_value = "digits", value_name = "PATH")]
    data: PathBuf,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::Train)]
    split: Part,
    /// Clips to show, counted from 0 [default: the first ones]
    #[arg(long, value_delimiter = ',')]
    clip: Vec<usize>,
    /// How many of the first clips
    #[arg(long, default_value_t = 4, conflicts_with = "clip")]
    count: usize,
    #[command(flatten)]
    reading: ReadingArg,
    /// Seed of clips that are made and of the parts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File to write: .gif, .apng, .y4m (and with the feature ffmpeg .mp4, .webm, .mkv), .png (a sheet), .npy
    #[arg(long, default_value = "flow-out/videoflow/clips.gif", value_name = "FILE")]
    out: PathBuf,
}

impl RenderArgs {
    pub(super) fn run(self) -> Result<()> {
        check_output(&self.out)?;
        film::check(&self.out, FPS)?;
        let set = read(self.split, &self.data, &self.reading.options(&self.data, 1, self.seed)?)?;
        let places = places(&set, &self.clip, self.count)?;
        let clips: Vec<&Clip> = places.iter().filter_map(|&place| set.get(place)).collect();
        let whole =
            |(&place, clip): (&usize, &&Clip)| film::pixels(&set.window(place, 0, clip.frames())?, set.levels());
        let pixels: Vec<_> = places.iter().zip(&clips).map(whole).collect::<Result<_>>()?;
        create_parent(&self.out)?;
        let names = clips.iter().map(|clip| clip.name().to_string()).collect();
        film::write_clips(&self.out, &pixels, names, set.fps().unwrap_or(FPS))?;
        println!("{} clips of {:?}; {}", clips.len(), set.shape(), self.out.display());
        Ok(())
    }
}
