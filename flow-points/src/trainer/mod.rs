//! PointFlow as the training engine sees it: what a step computes, and what a checkpoint holds.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use flow_core::hash::Fnv;
use flow_core::layers::MovingStatistics;
use flow_core::train::{self, CursorState, EpochCursor, Fingerprint, Metric, Metrics, Ranks, Run, Task, TrainConfig};
use flow_core::{FlowRng, Gradients, ParamStore, Share};
use serde::{Deserialize, Serialize};

use crate::data::{Normalization, rotate_about_y, train_points, warp};
use crate::model::{Batch, Draw, Objective, PRIOR_ERROR, PointFlow, PointFlowConfig, Term, Terms};
use crate::render::{RenderOptions, contact_sheet, write_png};
use crate::{Cloud, Error, Point, Result};

/// Everything about a run's model and data: the part of `config.json` that makes a checkpoint self-describing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PointRun {
    /// The model.
    pub model: PointFlowConfig,
    /// Where the clouds came from, in words.
    pub source: String,
    /// From data, counted from `origin`, to what the model sees, and back.
    pub normalization: Normalization,
    /// Where the coordinates of data are counted from, in double precision: zero unless they lie far from zero for their
    /// size.
    #[serde(default, skip_serializing_if = "is_origin")]
    pub origin: [f64; 3],
    /// Clouds per step.
    pub batch: usize,
    /// Points of a cloud per step.
    pub points: usize,
    /// Draw the points of a step with replacement, as the reference implementation does.
    pub replacement: bool,
    /// Turn every cloud about the vertical axis by a random angle.
    pub rotate: bool,
    /// Warp the second half of a step's clouds by up to so much ([`warp`]), 0 for none: encoder and flow of points see
    /// more shapes than there are, the flow of latents learns only the real ones. Flow matching only; best without batch
    /// normalization, through which warped clouds move the latents of the others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warp: f64,
    /// Seed of the parameters, of the order of clouds and of their points.
    pub seed: u64,
    /// Held-out clouds that a validation looks at.
    pub validation_clouds: usize,
}

fn is_origin(origin: &[f64; 3]) -> bool {
    *origin == [0.0; 3]
}

fn is_zero(warp: &f64) -> bool {
    *warp == 0.0
}

impl PointRun {
    /// By what the run knows these clouds again, which are counted from its origin: what [`PointTask`] writes into
    /// checkpoints.
    pub fn fingerprint(&self, train: &[Vec<Point>], validation: &[Vec<Point>]) -> Fingerprint {
        let parts = [("train", train), ("validation", validation)];
        Fingerprint::of_parts("point clouds", &parts, |hash, cloud| with_cloud(hash, &self.normalization.apply(cloud)))
    }

    /// A run of `model` on clouds from `source`: 16 clouds of 2,048 points a step, neither turned nor warped, seed 0;
    /// validations look at 64 held-out clouds.
    pub fn new(model: PointFlowConfig, source: impl Into<String>, normalization: Normalization) -> Self {
        PointRun {
            model,
            source: source.into(),
            normalization,
            origin: [0.0; 3],
            batch: 16,
            points: 2048,
            replacement: false,
            rotate: false,
            warp: 0.0,
            seed: 0,
            validation_clouds: 64,
        }
    }

    /// The latents `(B, Z)` of normalized clouds `(B, N, 3)`: the means of the posteriors of `model`.
    ///
    /// A maximum over many more points than a step takes is larger than any that the rest of the network has met, so
    /// larger clouds are dealt into parts of a step's size, every `k`-th point to each of `k`, and the parts' means are
    /// averaged. Up to `k - 1` points at the end are not seen.
    ///
    /// # Errors
    /// [`flow_core::Error::Shape`] for another shape.
    pub fn latents(&self, model: &PointFlow, clouds: &Tensor) -> Result<Tensor> {
        let _paused = model.store().no_grad();
        let size = self.points.max(1);
        let (count, parts, each) = match *clouds.dims() {
            [count, points, 3] if points >= 2 * size => (count, points / size, points / (points / size)),
            // One part, or a shape that the encoder refuses.
            _ => return Ok(model.posterior(clouds)?.mean),
        };
        let dealt = clouds.narrow(1, 0, parts * each)?.reshape((count, each, parts, 3))?.transpose(1, 2)?;
        let mean = model.posterior(&dealt.reshape((count * parts, each, 3))?)?.mean;
        Ok(mean.reshape((count, parts, model.config().latent))?.mean(1)?)
    }
}

impl Run for PointRun {
    type Model = PointFlow;
    type Error = Error;
    const DESCRIBES: &'static str = "a PointFlow model";

    fn build(&self, device: &Device) -> Result<PointFlow> {
        PointFlow::new(self.model.clone(), &ParamStore::new(self.seed, DType::F32, device))
    }
}

impl train::Model for PointFlow {
    fn store(&self) -> &ParamStore {
        PointFlow::store(self)
    }

    fn set_training(&self, training: bool) {
        PointFlow::set_training(self, training);
    }
}

/// The engine's configuration of the default recipe.
///
/// Flow matching: Adam at 4e-3 with warm-up, cosine decay and averaged weights. Likelihood: the paper's Adam at 2e-3,
/// constant for half of the run and then falling linearly to zero.
pub fn train_config(objective: &Objective, steps: u64, seed: u64) -> TrainConfig {
    TrainConfig { seed, ..objective.train_config(steps) }
}

/// Clouds as one tensor `(B, N, 3)`.
///
/// # Errors
/// [`flow_core::Error::Config`] when they differ in size.
pub fn to_tensor(clouds: &[Vec<Point>], device: &Device) -> Result<Tensor> {
    let points = clouds.first().map_or(0, Vec::len);
    if points == 0 || clouds.iter().any(|c| c.len() != points) {
        return Err(Error::config("clouds", "a batch needs clouds of one size, at least one point each"));
    }
    let flat: Vec<f32> = clouds.iter().flatten().flatten().copied().collect();
    Ok(Tensor::from_vec(flat, (clouds.len(), points, 3), device)?)
}

/// The inverse of [`to_tensor`].
///
/// # Errors
/// [`flow_core::Error::Tensor`] unless `clouds` is `(B, N, 3)` in f32, [`flow_core::Error::NonFinite`] when a
/// coordinate is not finite.
pub fn from_tensor(clouds: &Tensor) -> Result<Vec<Vec<Point>>> {
    let rows = clouds.to_vec3::<f32>()?;
    if !rows.iter().flatten().flatten().all(|v| v.is_finite()) {
        let (layer, what) = ("point clouds".into(), "sample".into());
        return Err(Error::Core(flow_core::Error::NonFinite { layer, what, step: None }));
    }
    Ok(rows.into_iter().map(|cloud| cloud.into_iter().map(|p| [p[0], p[1], p[2]]).collect()).collect())
}

/// A [`PointFlow`] with its clouds, as the training engine sees it.
pub struct PointTask {
    run: PointRun,
    model: PointFlow,
    device: Device,
    train: Vec<Vec<Point>>,
    validation: Vec<Vec<Point>>,
    cursor: EpochCursor,
    ranks: Ranks,
}

impl PointTask {
    /// Builds the model of `run` for these clouds, which are normalized here.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when a cloud has fewer points than a step takes, when the batch does not fit the
    /// data or when the model is not possible.
    pub fn new(run: PointRun, train: &[Vec<Point>], validation: &[Vec<Point>], device: &Device) -> Result<Self> {
        let model = run.build(device)?;
        model.check_paths()?;
        // Statistics are taken over the clouds of a step, those of latents over the unwarped ones.
        if unwarped(&run) < 2 {
            let reason = "must be at least 2, and 3 where the second half is warped: statistics are taken over clouds";
            return Err(Error::config("batch size", reason));
        }
        if !(run.warp >= 0.0 && run.warp <= 1.0) {
            return Err(Error::config("warp", format!("is {}, must lie in 0 to 1", run.warp)));
        }
        if run.warp > 0.0 && !run.model.objective.takes_warped_clouds() {
            return Err(Error::config("warp", "is for flow matching; the evidence bound takes shapes as they are"));
        }
        if let Some(small) = train.iter().chain(validation).map(Vec::len).find(|&n| n < run.points && !run.replacement)
        {
            let reason = format!(
                "a step takes {} points of a cloud, one has only {small}: take fewer, draw them with replacement, or leave \
                 the cloud out",
                run.points
            );
            return Err(Error::config("points", reason));
        }
        let cursor = EpochCursor::new(train.len(), run.batch, run.seed)?;
        let normal = |clouds: &[Vec<Point>]| clouds.iter().map(|c| run.normalization.apply(c)).collect();
        let (train, validation) = (normal(train), normal(validation));
        Ok(PointTask { run, model, device: device.clone(), train, validation, cursor, ranks: Ranks::alone() })
    }

    /// The model.
    pub fn model(&self) -> &PointFlow {
        &self.model
    }

    /// The points of one step, this rank's share of its clouds, and those of them, the first ones, that are as they came.
    fn batch(&mut self) -> Result<(Tensor, Share, Share)> {
        let batch = self.cursor.next_batch();
        let share = self.ranks.share(batch.indices.len());
        let plain = share.within_first(unwarped(&self.run));
        let indices = &batch.indices[share.range()];
        let clouds = batch.rng.for_rows(share).per_row(share.count, |row, rng| -> Result<_> {
            let mut points = train_points(&self.train[indices[row]], self.run.points, self.run.replacement, rng)?;
            if self.run.rotate {
                rotate_about_y(&mut points, rng.next_uniform() * std::f64::consts::TAU);
            }
            if row >= plain.count {
                warp(&mut points, self.run.warp, rng);
            }
            Ok(points)
        })?;
        Ok((to_tensor(&clouds, &self.device)?, share, plain))
    }

    /// The terms of this rank's share of the validation clouds, and how many there are; `None` without any.
    fn validation_terms(&self, rng: &FlowRng) -> Result<Option<(Terms, usize)>> {
        let held_out = if self.validation.is_empty() { &self.train } else { &self.validation };
        let some: Vec<Vec<Point>> = held_out.iter().take(self.run.validation_clouds.max(1)).cloned().collect();
        let share = self.ranks.share(some.len());
        if share.is_empty() && share.of > 0 {
            return Ok(None);
        }
        self.model.set_training(false);
        let outcome = mean_terms(&some, share, self.run.batch, self.run.points, |clouds, part| {
            self.model.evaluate(&to_tensor(clouds, &self.device)?, &mut rng.for_rows(part))
        });
        self.model.set_training(true);
        Ok(Some((outcome?, share.count)))
    }
}

fn with_cloud(hash: Fnv, cloud: &[Point]) -> Fnv {
    hash.words([cloud.len() as u32]).words(cloud.iter().flatten().map(|v| v.to_bits()))
}

/// How many clouds of a step are not warped.
fn unwarped(run: &PointRun) -> usize {
    if run.warp > 0.0 { run.batch.div_ceil(2) } else { run.batch }
}

/// The mean of the terms of a share of clouds over batches, each weighed by its clouds; every cloud is cut to its first
/// `points`, or to as many as the smallest has, of this share or another.
fn mean_terms(
    clouds: &[Vec<Point>],
    share: Share,
    batch: usize,
    points: usize,
    mut of: impl FnMut(&[Vec<Point>], Share) -> Result<Terms>,
) -> Result<Terms> {
    let points = clouds.iter().map(Vec::len).fold(points, usize::min);
    let mut batches = Vec::new();
    for part in share.parts(batch) {
        // A part of the share of these clouds lies within them.
        let some = clouds.get(part.range()).unwrap_or_default();
        let cut: Vec<Vec<Point>> = some.iter().map(|c| c.iter().take(points).copied().collect()).collect();
        batches.push((part.count as f64 / share.count as f64, of(&cut, part)?));
    }
    Terms::mean(batches).ok_or_else(|| Error::config("validation", "has no clouds, must have at least one"))
}

/// The terms for the engine, means over so many clouds, the one that decides first.
fn metrics(terms: &Terms, deciding: &str, clouds: usize) -> Metrics {
    let metric = |term: Term| Metric::new(term.name, term.unit, term.value);
    let (first, others) = terms.led_by(deciding);
    others.into_iter().fold(Metrics::new(metric(first)), |all, term| all.with(metric(term))).over(clouds as f64)
}

impl Task for PointTask {
    type Run = PointRun;
    type Position = CursorState;
    type Error = Error;

    const LOCATION: Option<&'static str> = Some("source");

    fn store(&self) -> &ParamStore {
        self.model.store()
    }

    fn run(&self) -> &PointRun {
        &self.run
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let parts = [("train", &self.train[..]), ("validation", &self.validation)];
        Some(Fingerprint::of_parts("point clouds", &parts, |hash, cloud| with_cloud(hash, cloud)))
    }

    fn share_out(&mut self, ranks: Ranks) -> flow_core::Result<()> {
        if let Objective::Likelihood(config) = &self.run.model.objective
            && config.statistics != MovingStatistics::PerAxis
        {
            let remedy = "statistics of mixed axes depend on which clouds are together; take those per axis, or start it as a \
                          single process";
            ranks.only_alone("this model", remedy)?;
        }
        if self.run.batch < ranks.count() {
            let reason = format!("of {} clouds for {} ranks: each needs one at least", self.run.batch, ranks.count());
            return Err(flow_core::Error::Config { what: "batch".into(), reason });
        }
        self.ranks = ranks;
        Ok(())
    }

    fn step(&mut self, _step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        let (clouds, share, plain) = self.batch()?;
        let batch = Batch { clouds: &clouds, share, plain, ranks: &self.ranks };
        gradients.weigh(share.count as f64);
        let terms = self.model.backward_batch(&batch, &mut rng.for_rows(share), gradients)?;
        let mut metrics = metrics(&terms, self.run.model.objective.metric(), share.count);
        for metric in metrics.others.iter_mut().filter(|metric| metric.name == PRIOR_ERROR) {
            // Warped clouds have no latents to learn.
            metric.over = Some(plain.count as f64);
        }
        Ok(metrics)
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        let terms = self.validation_terms(rng)?;
        let deciding = self.run.model.objective.deciding_metric();
        Ok(terms.map_or_else(Metrics::of_nothing, |(terms, clouds)| metrics(&terms, deciding, clouds)))
    }

    fn position(&self) -> CursorState {
        self.cursor.state()
    }

    fn restore(&mut self, position: CursorState) -> Result<()> {
        self.cursor = EpochCursor::restore(self.train.len(), self.run.batch, position)?;
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.run.batch
    }

    fn preview(&mut self, folder: &Path, step: u64, rng: &mut FlowRng) -> Result<()> {
        const CLOUDS: usize = 12;
        self.model.set_training(false);
        let drawn = draw_clouds(&self.model, &self.run.normalization, CLOUDS, self.run.points, &Draw::default(), rng);
        self.model.set_training(true);
        let clouds: Vec<Cloud> = drawn?.into_iter().map(Cloud::new).collect();
        let sheet = contact_sheet(&clouds, 4, &RenderOptions::default())?;
        write_png(&folder.join(format!("samples-{step:08}.png")), &sheet)
    }
}

/// New clouds in the data's own coordinates, counted from the origin of the run.
///
/// # Errors
/// As [`PointFlow::sample_latents`] and [`PointFlow::decode`].
pub fn draw_clouds(
    model: &PointFlow,
    normalization: &Normalization,
    count: usize,
    points: usize,
    draw: &Draw<'_>,
    rng: &mut FlowRng,
) -> Result<Vec<Vec<Point>>> {
    let latents = model.sample_latents(count, draw, rng)?;
    let (clouds, _) = model.decode(&latents, points, draw, rng)?;
    Ok(from_tensor(&clouds)?.iter().map(|c| normalization.undo(c)).collect())
}

#[cfg(test)]
mod tests;
