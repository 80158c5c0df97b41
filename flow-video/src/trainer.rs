//! Training a video model: what a step computes, what a run is, how a checkpoint becomes a model again.
//!
//! The loop itself is [`flow_core::train::Trainer`]; [`VideoTask`] supplies it with windows of clips, gradients in bits/dim,
//! validation on held-out clips and previews of what comes next.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use flow_core::train::{
    self, CursorState, EpochCursor, Fingerprint, Metric, Metrics, OptimizerConfig, Ranks, Rule, Run, ScheduleConfig,
    Task, TrainConfig,
};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore};
use serde::{Deserialize, Serialize};

use crate::data::{Clip, Clips, OpenOptions, Splits};
use crate::io::{GridStyle, Pixels, write_grid};
use crate::metrics::bits_per_frame;
use crate::model::{Footage, ImageSpec, Predictor, Recipe, VideoConfig, VideoFlow};
use crate::{Error, Result};

/// A training run's model and data: the part of `config.json` that makes a checkpoint self-describing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoRun {
    /// The model.
    pub model: VideoConfig,
    /// The frames.
    pub spec: ImageSpec,
    /// Where the clips came from, in words.
    pub source: String,
    /// How files became clips; used again to read other files.
    pub open: OpenOptions,
    /// Frames that are given.
    pub context: usize,
    /// Frames that are predicted after them in a training step.
    pub targets: usize,
    /// Frames that are predicted in validation and pictures.
    pub horizon: usize,
    /// The temperature of pictures, and of samples unless told.
    pub temperature: f64,
    /// Clips per step.
    pub batch: usize,
    /// Clips for data-dependent initialisation.
    pub init_batch: usize,
    /// Whether the given frames are learned as well, each from those before it: then clips can be drawn from nothing.
    pub score_context: bool,
    /// How gradients are computed; both ways give the same ones.
    pub backprop: Backprop,
    /// Seed of the parameters and of the order of the clips.
    pub seed: u64,
    /// Held-out clips that a validation looks at.
    pub validation_clips: usize,
    /// The share of clips in a training step of which nothing is told, so that the model can do without, and guidance has what
    /// it needs; of use for a model that takes actions.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub untold: f64,
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

impl VideoRun {
    /// A run of `model` on `train` with the sizes of `recipe`.
    ///
    /// # Errors
    /// As [`ImageSpec::new`].
    pub fn new(model: VideoConfig, train: &Clips, open: &OpenOptions, recipe: &Recipe, seed: u64) -> Result<Self> {
        let [channels, height, width] = train.shape();
        Ok(VideoRun {
            model,
            spec: ImageSpec::new(channels, height, width, train.levels())?,
            source: train.source().to_string(),
            open: open.clone(),
            context: recipe.context,
            targets: recipe.targets,
            horizon: recipe.horizon,
            temperature: recipe.temperature,
            batch: recipe.batch.min(train.len()),
            init_batch: recipe.init_batch.min(train.len()),
            score_context: false,
            backprop: Backprop::default(),
            seed,
            validation_clips: 32,
            untold: 0.0,
        })
    }

    /// Frames of a training window.
    pub fn window(&self) -> usize {
        self.context + self.targets
    }
}

impl Run for VideoRun {
    type Model = VideoFlow;
    type Error = Error;
    const DESCRIBES: &'static str = "a video model";

    fn build(&self, device: &Device) -> Result<VideoFlow> {
        let store = ParamStore::new(self.seed, DType::F32, device);
        Ok(VideoFlow::new(&self.model, &self.spec, &store)?)
    }
}

impl train::Model for VideoFlow {
    fn store(&self) -> &ParamStore {
        VideoFlow::store(self)
    }

    fn set_training(&self, training: bool) {
        VideoFlow::set_training(self, training);
    }
}

/// The engine's configuration that a recipe asks for.
pub fn train_config(recipe: &Recipe, steps: u64, seed: u64) -> TrainConfig {
    TrainConfig {
        steps,
        optimizer: OptimizerConfig {
            rule: Rule::Adam,
            learning_rate: recipe.learning_rate,
            beta1: 0.85,
            beta2: recipe.beta2,
            epsilon: 1e-6,
            weight_decay: 0.0,
        },
        schedule: ScheduleConfig::constant(recipe.warm_up.min(steps / 2)),
        clip_norm: recipe.clip_norm,
        seed,
        ..TrainConfig::default()
    }
}

/// A [`VideoFlow`] with its data, as the training engine sees it.
pub struct VideoTask {
    run: VideoRun,
    model: VideoFlow,
    splits: Splits,
    cursor: EpochCursor,
    ranks: Ranks,
}

impl VideoTask {
    /// Builds the model of `run` for the clips of `splits`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when the clips are not those of the run's specification, are too short for a window, or
    /// the model does not fit them.
    pub fn new(run: VideoRun, splits: Splits, device: &Device) -> Result<Self> {
        let (shape, levels) = (splits.train.shape(), splits.train.levels());
        if shape != run.spec.event_shape() || levels != run.spec.levels {
            let reason =
                format!("{shape:?} with {levels} levels, the model is for {} of {}", run.spec, run.spec.levels);
            return Err(Error::config("training clips", reason));
        }
        let past = run.model.past();
        if run.targets == 0 || run.horizon == 0 || run.context < past {
            let reason = format!(
                "{} given and {} predicted frames: the model looks at {past} frames, set context to {past} or more, and at least \
                 one must be predicted",
                run.context, run.targets
            );
            return Err(Error::config("training windows", reason));
        }
        for (set, frames, part) in
            [(&splits.train, run.window(), "training"), (&splits.validation, run.context + run.horizon, "validation")]
        {
            long_enough(set, frames, part)?;
        }
        if run.model.actions > 0 && run.model.actions != splits.train.action_size() {
            let (size, wanted) = (splits.train.action_size(), run.model.actions);
            let reason = format!("{size} numbers are told beside a frame, the model takes {wanted}");
            return Err(Error::config("training clips", reason));
        }
        if !(0.0..1.0).contains(&run.untold) {
            return Err(Error::config(
                "share of clips of which nothing is told",
                format!("must be in [0, 1), got {}", run.untold),
            ));
        }
        let model = run.build(device)?;
        let cursor = EpochCursor::new(splits.train.len(), run.batch, run.seed)?;
        Ok(VideoTask { run, model, splits, cursor, ranks: Ranks::alone() })
    }

    /// The model.
    pub fn model(&self) -> &VideoFlow {
        &self.model
    }

    /// The data.
    pub fn splits(&self) -> &Splits {
        &self.splits
    }

    /// Windows of clips that begin at random, `(B, frames, C, H, W)`, and what is told of them.
    fn windows(&self, clips: &[usize], frames: usize, rng: &mut FlowRng) -> Result<(Tensor, Option<Tensor>)> {
        let train = &self.splits.train;
        let begins: Vec<(usize, usize)> = rng.per_row(clips.len(), |row, rng| {
            let clip = clips[row];
            Ok::<_, Error>((clip, rng.below((length(train, clip) + 1).saturating_sub(frames))))
        })?;
        self.read(train, &begins, frames)
    }

    /// Windows of a set on the model's device, with what is told of them if the model takes it.
    fn read(&self, set: &Clips, begins: &[(usize, usize)], frames: usize) -> Result<(Tensor, Option<Tensor>)> {
        let clips = set.batch(begins, frames)?.to_device(self.model.store().device())?;
        let told = self.run.model.actions > 0;
        Ok((clips, if told { set.batch_actions(begins, frames)? } else { None }))
    }

    /// The actions without those of some clips.
    fn some_untold(&self, actions: Tensor, rng: &mut FlowRng) -> Result<Tensor> {
        let clips = actions.dim(0)?;
        let factor =
            |_, rng: &mut FlowRng| Ok::<_, Error>(if rng.next_uniform() < self.run.untold { f32::NAN } else { 1.0 });
        let factor = rng.per_row(clips, factor)?;
        Ok(actions.broadcast_mul(&Tensor::from_vec(factor, (clips, 1, 1), &Device::Cpu)?)?)
    }
}

/// Refuses clips that are shorter than a window.
fn long_enough(set: &Clips, frames: usize, part: &str) -> Result<()> {
    match set.iter().min_by_key(|clip| clip.frames()) {
        Some(shortest) if shortest.frames() < frames => {
            let reason = format!(
                "{} has {} frames, {frames} are needed: give fewer with --context, --targets or --horizon",
                shortest.name(),
                shortest.frames()
            );
            Err(Error::config(format!("{part} clips"), reason))
        }
        _ => Ok(()),
    }
}

impl Task for VideoTask {
    type Run = VideoRun;
    type Position = CursorState;
    type Error = Error;

    const LOCATION: Option<&'static str> = Some("source");

    fn store(&self) -> &ParamStore {
        self.model.store()
    }

    fn run(&self) -> &VideoRun {
        &self.run
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(self.splits.fingerprint())
    }

    fn share_out(&mut self, ranks: Ranks) -> flow_core::Result<()> {
        self.ranks = ranks;
        Ok(())
    }

    fn initialize(&mut self, rng: &mut FlowRng) -> Result<()> {
        let order = rng.permutation(self.splits.train.len());
        if self.run.model.actions > 0 {
            self.model.scale_actions(&self.splits.train.action_scale())?;
        }
        let chosen = &order[..self.run.init_batch.min(order.len())];
        let (clips, actions) = self.windows(chosen, self.run.model.past() + 1, rng)?;
        Ok(self.model.initialize(Footage::new(&clips, actions.as_ref()), rng)?)
    }

    fn step(&mut self, _step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        let batch = self.cursor.next_batch();
        let share = self.ranks.share(batch.indices.len());
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let rng = &mut rng.for_rows(share);
        let (clips, actions) = self.windows(&batch.indices[share.range()], self.run.window(), rng)?;
        gradients.weigh(share.count as f64);
        let actions = actions.map(|actions| self.some_untold(actions, rng)).transpose()?;
        let footage = Footage::new(&clips, actions.as_ref());
        self.model.set_training(true);
        let first = if self.run.score_context { 0 } else { self.run.context };
        let step = self.model.backward(footage, first, rng, self.run.backprop, gradients)?;
        let mut metrics = Metrics::new(bits_per_dim(step.bits_per_dim));
        if self.run.backprop == Backprop::Reversible {
            metrics = metrics.with(Metric::new("plain_fallback", "", f64::from(u8::from(step.fell_back))));
        }
        Ok(metrics.over(share.count as f64))
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        let held_out = if self.splits.validation.is_empty() { &self.splits.train } else { &self.splits.validation };
        let shortest = held_out.iter().map(Clip::frames).min().unwrap_or_default();
        let frames = shortest.min(self.run.context + self.run.horizon);
        let share = self.ranks.share(held_out.len().min(self.run.validation_clips));
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let (mut total, mut count) = (0.0, 0.0);
        for one in share.parts(1) {
            let (clip, actions) = self.read(held_out, &[(one.first, 0)], frames)?;
            let footage = Footage::new(&clip, actions.as_ref());
            for row in bits_per_frame(&self.model, footage, &mut rng.for_rows(one))? {
                total += row[self.run.context..].iter().sum::<f64>();
                count += (frames - self.run.context) as f64;
            }
        }
        Ok(Metrics::new(bits_per_dim(total / count)).over(count))
    }

    fn position(&self) -> CursorState {
        self.cursor.state()
    }

    fn restore(&mut self, position: CursorState) -> Result<()> {
        self.cursor = EpochCursor::restore(self.splits.train.len(), self.run.batch, position)?;
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.run.batch
    }

    fn preview(&mut self, folder: &Path, step: u64, rng: &mut FlowRng) -> Result<()> {
        let held_out = if self.splits.validation.is_empty() { &self.splits.train } else { &self.splits.validation };
        let rows: Vec<(usize, usize)> = (0..held_out.len().min(4)).map(|clip| (clip, 0)).collect();
        let seen = held_out.batch(&rows, self.run.context)?;
        let mut predictor = Predictor::new(&self.model);
        predictor.observe(&seen.to_device(self.model.store().device())?)?;
        let frames = self.run.context + self.run.horizon;
        if let (_, Some(actions)) = self.read(held_out, &rows, frames)? {
            predictor = predictor.tell(&actions.narrow(1, self.run.context, self.run.horizon)?)?;
        }
        let drawn = predictor.predict(self.run.horizon, &[self.run.temperature], rng)?;
        let clips = Tensor::cat(&[&seen.to_device(&Device::Cpu)?.to_dtype(DType::U8)?, &drawn], 1)?;
        let (_, columns, frames) = self.model.flat(&clips)?;
        let pixels = Pixels::from_tensor(&frames, self.run.spec.levels)?;
        let path = folder.join(format!("predictions-{step:08}.png"));
        Ok(write_grid(&path, &pixels, &GridStyle::with_columns(columns))?)
    }
}

/// Frames of a clip.
fn length(set: &Clips, clip: usize) -> usize {
    set.get(clip).map_or(0, Clip::frames)
}

fn bits_per_dim(value: f64) -> Metric {
    Metric::new("bits_per_dim", "bits/dim", value)
}
