//! Flags and loading that several verbs share.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use candle_core::{Device, Tensor};
use clap::Args;
use flow_video::data::{self, Channels, Clips, OpenOptions, Resize, Splits, is_generated};
use flow_video::metrics::Take;
use flow_video::model::{Predictor, VideoFlow};
use flow_video::trainer::VideoRun;

use crate::cli::{CheckpointArg, Part, at_least_one, counted, refuse};

/// The program's name, and that of its folder of results.
pub(super) const PROGRAM: &str = "videoflow";

/// Frames a second of what is drawn, where the clips do not say.
pub(super) const FPS: f64 = 10.0;

/// Loads a checkpoint's model with its run.
pub(super) fn load(checkpoint: &CheckpointArg, device: &Device) -> Result<(VideoRun, VideoFlow)> {
    Ok(flow_core::train::load(&checkpoint.folder(PROGRAM), device, !checkpoint.raw_weights)?)
}

/// The clips of a part.
fn part_of(splits: Splits, part: Part) -> Result<Clips> {
    let Splits { train, validation, test } = splits;
    Ok(match part {
        Part::Train => train,
        Part::Validation => validation,
        Part::Test => test,
        Part::All => Clips::concat(vec![train, validation, test])?,
    })
}

/// The same clips, after a line on stderr about what they are, and what was not read as it is.
pub(super) fn told(part: Part, set: Clips) -> Result<Clips> {
    let count = set.len();
    ensure!(count > 0, "{}: the {part} part has no clips; --split all takes all of them", set.source());
    eprintln!("data: {part} part, {}; {}", counted(count, "clip"), set.source());
    set.notes().iter().for_each(|note| eprintln!("note: {note}"));
    Ok(set)
}

/// The clips of a part of a path, told about.
pub(super) fn read(part: Part, path: &Path, options: &OpenOptions) -> Result<Clips> {
    let set = match part {
        Part::All => data::open_all(path, options)?,
        _ => part_of(data::open(path, options)?, part)?,
    };
    told(part, set)
}

/// Clips to work on.
#[derive(Args, Debug)]
pub(super) struct DataArg {
    /// Clips: a folder of clips (folders of numbered pictures, GIF, Y4M, videos), one of them, .npy, .npz, MNIST's idx files
    /// (moving digits), "digits" or "shapes" (made here); read the way the run read its own
    #[arg(long, default_value = "digits", value_name = "PATH")]
    pub(super) data: PathBuf,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::Test)]
    pub(super) split: Part,
}

impl DataArg {
    /// The clips, of at least `frames` frames, brought to the size of the model.
    pub(super) fn clips(&self, checkpoint: &CheckpointArg, run: &VideoRun, frames: usize) -> Result<Clips> {
        let set = self.of_the_right_size(checkpoint, run, frames)?;
        let (shape, levels) = (set.shape(), set.levels());
        if shape != run.spec.event_shape() || levels != run.spec.levels {
            bail!(
                "{}: frames are {shape:?} with {levels} levels, the model is for {:?} with {}",
                self.data.display(),
                run.spec.event_shape(),
                run.spec.levels
            );
        }
        Ok(set)
    }

    /// The clips of the part.
    ///
    /// The run's own clips are read as the run read them and only then left out where they are too short: clips that are
    /// left out, or cut to another length, before the parts are drawn would make other parts, and the test part would
    /// hold what the run was trained on. Where that cannot be helped, the clips being others, a line on stderr says so.
    fn of_the_right_size(&self, checkpoint: &CheckpointArg, run: &VideoRun, frames: usize) -> Result<Clips> {
        let own = self.options(run);
        let mut options = own.clone().with_frames(frames);
        if options.cut.is_some_and(|cut| cut < frames) {
            options.cut = Some(frames);
        }
        if self.split == Part::All {
            return read(self.split, &self.data, &options);
        }
        let as_the_run = data::open(&self.data, &own);
        if let Ok(splits) = as_the_run {
            let difference = checkpoint.difference_of_data(PROGRAM, &splits.fingerprint())?;
            if difference.is_none() {
                return told(self.split, part_of(splits, self.split)?.at_least(frames)?);
            }
            checkpoint.note_other_data(PROGRAM, &splits.fingerprint())?;
            if options == own {
                return told(self.split, part_of(splits, self.split)?);
            }
        }
        read(self.split, &self.data, &options)
    }

    /// How the run would read these clips.
    fn options(&self, run: &VideoRun) -> OpenOptions {
        let mut options = run.open.clone();
        if options.channels == Channels::Auto && !is_generated(&self.data) {
            // "Auto" looked at the training clips; others must become what those were.
            options.channels = if run.spec.channels == 1 { Channels::Gray } else { Channels::Rgb };
        }
        if options.size.is_none() && !is_generated(&self.data) && !data::holds_arrays(&self.data) {
            options.size = Some(Resize::new(run.spec.height as u32, run.spec.width as u32));
        }
        // How the run's own clips were made says nothing about clips of another kind.
        if !is_generated(&self.data) || self.data == Path::new("shapes") {
            options.digits = None;
        }
        if self.data != Path::new("shapes") {
            options.shapes = None;
        }
        options
    }
}

/// How futures are drawn.
#[derive(Args, Debug)]
pub(super) struct DrawArg {
    /// Standard deviation of what is drawn, relative to the model's: one number, or one for each level, finest first, and
    /// if wanted one more for the motions of models that draw these (else 1) [default: that of the run's recipe]
    #[arg(long, value_delimiter = ',', value_name = "T")]
    temperature: Option<Vec<f64>>,
    /// Seed of what is drawn
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
}

impl DrawArg {
    /// The temperatures.
    pub(super) fn temperatures(&self, run: &VideoRun) -> Vec<f64> {
        self.temperature.clone().unwrap_or_else(|| vec![run.temperature])
    }
}

/// What is told of the frames to come.
#[derive(Args, Debug)]
#[command(next_help_heading = "What is told (of runs with --actions)")]
pub(super) struct TellArg {
    /// The label of the frames to come, counted from 0 [default: what the data tell]
    #[arg(long, value_name = "K", conflicts_with_all = ["action", "untold"])]
    label: Option<usize>,
    /// The action before each frame to come, the same for all, comma-separated [default: what the data tell]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', allow_hyphen_values = true, conflicts_with = "untold")]
    action: Option<Vec<f32>>,
    /// Tell nothing
    #[arg(long)]
    untold: bool,
    /// How many times what is told counts; more than 1 follows it more closely at the expense of variety [default: 1]
    #[arg(long, value_name = "WEIGHT")]
    guidance: Option<f64>,
}

impl TellArg {
    /// Refuses what a model without actions would leave unread.
    pub(super) fn check(&self, run: &VideoRun) -> Result<()> {
        let given = [
            ("--label", self.label.is_some()),
            ("--action", self.action.is_some()),
            ("--untold", self.untold),
            ("--guidance", self.guidance.is_some()),
        ];
        if run.model.actions == 0 {
            return refuse(&given, "this run was told nothing beside its frames (train with --actions); leave it out");
        }
        if self.guidance.is_some() {
            ensure!(!self.untold, "--guidance: nothing is told with --untold; leave one of them out");
            ensure!(run.untold > 0.0, "--guidance: this run always saw what is told; train with --untold 0.1");
        }
        Ok(())
    }

    /// What is told of `frames` frames, `(1, frames, A)`: by the flags, or `known` by the data, which may be of fewer frames and
    /// then tells nothing of the rest.
    fn told(&self, size: usize, frames: usize, known: Option<Tensor>) -> Result<Option<Tensor>> {
        let row = match (self.label, &self.action) {
            (Some(label), _) => {
                ensure!(label < size, "--label {label}: the run knows {size}, counted from 0");
                (0..size).map(|k| if k == label { 1.0 } else { 0.0 }).collect()
            }
            (None, Some(action)) => {
                ensure!(action.len() == size, "--action: {} numbers, the run was told {size} a frame", action.len());
                ensure!(action.iter().all(|v| v.is_finite()), "--action: must be finite numbers");
                action.clone()
            }
            (None, None) => {
                let Some(known) = known.filter(|_| !self.untold) else { return Ok(None) };
                let missing = frames.saturating_sub(known.dim(0)?);
                let rest = Tensor::full(f32::NAN, (missing, size), &Device::Cpu)?;
                let all = if missing == 0 { known.narrow(0, 0, frames)? } else { Tensor::cat(&[known, rest], 0)? };
                return Ok(Some(all.unsqueeze(0)?));
            }
        };
        Ok(Some(Tensor::from_vec(row.repeat(frames), (1, frames, size), &Device::Cpu)?))
    }

    /// A predictor of one clip that is told of `frames` frames.
    pub(super) fn apply<'a>(
        &self,
        predictor: Predictor<'a>,
        size: usize,
        frames: usize,
        known: Option<Tensor>,
    ) -> Result<Predictor<'a>> {
        if size == 0 {
            return Ok(predictor);
        }
        let predictor = predictor.guide(self.guidance.unwrap_or(1.0))?;
        Ok(match self.told(size, frames, known)? {
            Some(actions) => predictor.tell(&actions)?,
            None => predictor,
        })
    }
}

/// The clips at these places, `(frames, C, H, W)` each.
pub(super) fn chosen(set: &Clips, places: &[usize], from: usize, frames: usize) -> Result<Vec<Tensor>> {
    places.iter().map(|&place| Ok(set.window(place, from, frames)?)).collect()
}

/// The first `frames` frames of the clips at these places, with what is told of them.
pub(super) fn takes(set: &Clips, places: &[usize], frames: usize, device: &Device) -> Result<Vec<Take>> {
    let take = |&place: &usize| {
        let actions = set.batch_actions(&[(place, 0)], frames)?.map(|actions| actions.squeeze(0)).transpose()?;
        Ok(Take { frames: set.window(place, 0, frames)?.to_device(device)?, actions })
    };
    places.iter().map(take).collect()
}

/// Places of clips that were named, or the first `count`.
pub(super) fn places(set: &Clips, named: &[usize], count: usize) -> Result<Vec<usize>> {
    at_least_one("--count", count)?;
    if let Some(beyond) = named.iter().find(|place| **place >= set.len()) {
        bail!("--clip {beyond}: there are {} clips, counted from 0", set.len());
    }
    Ok(if named.is_empty() { (0..count.min(set.len())).collect() } else { named.to_vec() })
}

/// Refuses fewer given frames than the prior looks at.
pub(super) fn enough(run: &VideoRun, context: usize) -> Result<()> {
    let past = run.model.past();
    ensure!(context >= past, "--context {context}: the model looks at {past} frames");
    Ok(())
}
