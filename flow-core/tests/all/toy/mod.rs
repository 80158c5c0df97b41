//! A small flow on two-dimensional points, as a task whose behaviour the tests can bend.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use flow_core::distribution::StandardGaussian;
use flow_core::layers::{ActNorm, BatchNorm, Coupling, MovingBatchNorm, MovingStatistics, Partition};
use flow_core::nn::{self, Conditioner};
use flow_core::param::Init;
use flow_core::train::{
    EmaConfig, Fingerprint, Metric, Metrics, OptimizerConfig, Ranks, ScheduleConfig, StopFlag, Task, TrainConfig,
};
use flow_core::transformer::{Affine, ScaleBound};
use flow_core::{
    Backprop, Bijector, Chain, Density, Error, Flow, FlowRng, Gradients, Param, ParamPath, ParamStore, Result, Share,
};
use serde::{Deserialize, Serialize};

/// Points in the data set, and of a step, unless bent.
const POINTS: usize = 64;
const BATCH: usize = 16;

/// One hidden layer of `width` units.
struct Net {
    w1: Param,
    b1: Param,
    w2: Param,
    norm: Option<nn::BatchNorm>,
}

impl Net {
    fn new(path: &ParamPath, width: usize, normed: bool) -> Result<Self> {
        Ok(Net {
            w1: path.param("w1", (1, width), Init::Normal(1.0))?,
            b1: path.param("b1", width, Init::Const(0.0))?,
            w2: path.param("w2", (width, 2), Init::Normal(0.1))?,
            norm: if normed { Some(nn::BatchNorm::new(&path.pp("norm"), width, true)?) } else { None },
        })
    }
}

impl Conditioner for Net {
    fn forward(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        let mut hidden = x.matmul(&self.w1.tensor())?.broadcast_add(&self.b1.tensor())?;
        if let Some(norm) = &self.norm {
            hidden = norm.forward(&hidden)?;
        }
        let hidden = hidden.tanh()?;
        Ok(hidden.matmul(&self.w2.tensor())?)
    }

    fn set_training(&self, training: bool) {
        self.norm.iter().for_each(|norm| norm.set_training(training));
    }
}

/// What a test may change about a [`Toy`].
#[derive(Default)]
pub(crate) struct Bend {
    /// Steps that return a loss and a gradient that are not finite.
    pub(crate) nan_at: BTreeSet<u64>,
    /// Steps that fail with [`Error::NonFinite`].
    pub(crate) fail_at: BTreeSet<u64>,
    /// Steps that fail with [`Error::Solver`].
    pub(crate) stuck_at: BTreeSet<u64>,
    /// Steps of which the gradient is made row by row.
    pub(crate) in_parts_at: BTreeSet<u64>,
    /// Steps of which it is said beforehand that they are means over something else than they are.
    pub(crate) miscounts_at: BTreeSet<u64>,
    /// Raises the flag during the step.
    pub(crate) stop_at: Option<(u64, StopFlag)>,
    /// Replaces the validation by a function of the number of finished steps.
    pub(crate) objective: Option<fn(u64) -> f64>,
    /// How long a step sleeps.
    pub(crate) nap: Duration,
    /// A step that panics.
    pub(crate) panic_at: Option<u64>,
    /// A step that ends the run with an error.
    pub(crate) error_at: Option<u64>,
    /// Points in the data set and points of a step.
    pub(crate) sizes: Option<(usize, usize)>,
    /// Every rank initialises from points of its own, and keeps what comes of it: wrong, to see that a test sees it.
    pub(crate) own_initialization: bool,
    /// How gradients are computed.
    pub(crate) backprop: Backprop,
    /// Layers that normalise a row by the others of its batch, in the flow and in the networks.
    pub(crate) normed: bool,
    /// Where the data lie, as the description says.
    pub(crate) source: &'static str,
    /// What the data are.
    pub(crate) data: Option<Fingerprint>,
}

/// Actnorm and two couplings, trained on a noisy arc in shuffled batches of 16.
pub(crate) struct Toy {
    flow: Flow<Chain, StandardGaussian>,
    run: ToyRun,
    points: Tensor,
    batch: usize,
    order: Vec<usize>,
    taken: u64,
    ranks: Ranks,
    pub(crate) bend: Bend,
}

impl Toy {
    pub(crate) fn new(width: usize, bend: Bend) -> Self {
        Self::of(DType::F32, width, bend)
    }

    /// The same in another precision.
    pub(crate) fn of(dtype: DType, width: usize, bend: Bend) -> Self {
        let store = ParamStore::new(5, dtype, &Device::Cpu);
        let (count, batch) = bend.sizes.unwrap_or((POINTS, BATCH));
        let root = store.root();
        let affine = || Affine::new(ScaleBound::SoftClamp(2.0));
        let coupling = |i: usize| {
            let net = Net::new(&root.pp(format!("coupling{i}")), width, bend.normed).unwrap();
            Coupling::new(&[2], Partition::Channels { swap: i == 1 }, affine(), net).unwrap()
        };
        let mut layers: Vec<Box<dyn Bijector>> = vec![
            Box::new(ActNorm::new(&root.pp("actnorm"), &[2]).unwrap()),
            Box::new(coupling(0)),
            Box::new(coupling(1)),
        ];
        if bend.normed {
            let (inner, outer) = (root.pp("norm"), root.pp("moving"));
            let norm =
                BatchNorm::new(&inner, &[2]).unwrap().on_transformed(&Partition::Channels { swap: true }).unwrap();
            layers.insert(1, Box::new(norm.with_affine(&inner).unwrap()));
            layers.push(Box::new(MovingBatchNorm::new(&outer, 2, MovingStatistics::PerAxis).unwrap()));
        }
        let base = StandardGaussian::new(&[2], dtype, &Device::Cpu);
        let flow = Flow::new(&store, Chain::new(layers).unwrap(), base).unwrap();
        let arc = |i: usize| [(i as f32 * 0.05).cos() * 2.0 + 1.0, (i as f32 * 0.05).sin() * 3.0 - 0.5];
        let points = Tensor::from_vec((0..count).flat_map(arc).collect::<Vec<f32>>(), (count, 2), &Device::Cpu);
        let points = points.unwrap().to_dtype(dtype).unwrap();
        let run = ToyRun { model: ToyModel { width, clamp: 0.1 + 0.2 }, source: bend.source.into() };
        Toy { flow, run, points, batch, order: Vec::new(), taken: 0, ranks: Ranks::alone(), bend }
    }

    pub(crate) fn plain() -> Self {
        Self::new(8, Bend::default())
    }

    /// The flow itself.
    pub(crate) fn flow(&self) -> &Flow<Chain, StandardGaussian> {
        &self.flow
    }

    /// All parameters and buffers, flat, in name order.
    pub(crate) fn weights(&self) -> Vec<f32> {
        weights(self.flow.store())
    }

    /// This rank's part of the next batch: rows in shuffled order, with a little noise.
    fn batch(&mut self, rng: &FlowRng) -> Result<Tensor> {
        let count = self.points.dim(0)?;
        let batches = count / self.batch;
        let at = self.taken as usize % batches * self.batch;
        if at == 0 {
            let shuffled = FlowRng::named(self.taken, "epoch").permutation(count);
            self.order = shuffled;
        }
        self.taken += 1;
        let share = self.ranks.share(self.batch);
        let whole = self.order[at..at + self.batch].to_vec();
        self.noisy(&self.rows(&whole[share.range()])?, &mut rng.for_rows(share))
    }

    fn noisy(&self, points: &Tensor, rng: &mut FlowRng) -> Result<Tensor> {
        Ok((points + rng.normal(points.shape(), points.dtype(), &Device::Cpu)?.affine(0.05, 0.0)?)?)
    }

    fn rows(&self, rows: &[usize]) -> Result<Tensor> {
        let index: Vec<u32> = rows.iter().map(|&i| i as u32).collect();
        Ok(self.points.index_select(&Tensor::new(index, &Device::Cpu)?, 0)?)
    }
}

/// All parameters and buffers of a store, flat, in name order.
pub(crate) fn weights(store: &ParamStore) -> Vec<f32> {
    wide_weights(store).into_iter().map(|w| w as f32).collect()
}

/// The same in double precision.
pub(crate) fn wide_weights(store: &ParamStore) -> Vec<f64> {
    let wide = |p: Param| p.tensor().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    store.all().into_iter().flat_map(wide).collect()
}

/// What a toy writes to its `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ToyRun {
    pub(crate) model: ToyModel,
    /// Where the data lie.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) source: String,
}

/// The model of a toy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ToyModel {
    pub(crate) width: usize,
    pub(crate) clamp: f64,
}

/// A toy's place in its data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place {
    taken: u64,
    order: Vec<usize>,
}

impl Task for Toy {
    type Run = ToyRun;
    type Position = Place;
    type Error = Error;

    const LOCATION: Option<&'static str> = Some("source");

    fn store(&self) -> &ParamStore {
        self.flow.store()
    }

    fn run(&self) -> &ToyRun {
        &self.run
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.bend.data.clone()
    }

    fn share_out(&mut self, ranks: Ranks) -> Result<()> {
        self.ranks = ranks;
        Ok(())
    }

    fn initialize(&mut self, _rng: &mut FlowRng) -> Result<()> {
        self.flow.initialize(&self.points.narrow(0, 0, self.points.dim(0)? / 2)?, None)
    }

    fn step(&mut self, step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        std::thread::sleep(self.bend.nap);
        if let Some((at, flag)) = &self.bend.stop_at
            && *at == step
        {
            flag.request();
        }
        if step == 0 && self.bend.own_initialization {
            let first = self.ranks.rank() * 8;
            self.flow.initialize(&self.points.narrow(0, first, 8)?, None)?;
        }
        let batch = self.batch(rng)?;
        assert!(self.bend.panic_at != Some(step), "the toy was told to panic");
        if self.bend.error_at == Some(step) {
            return Err(Error::Config { what: "toy".into(), reason: "was told to fail".into() });
        }
        if self.bend.fail_at.contains(&step) {
            return Err(Error::NonFinite { layer: "toy".into(), what: "log-determinant".into(), step: None });
        }
        if self.bend.stuck_at.contains(&step) {
            return Err(Error::Solver { t: 0.5, dt: 1e-9, row: None, reason: "the toy gave up".into() });
        }
        let n = batch.dim(0)?;
        if n == 0 {
            return Ok(Metrics::of_nothing());
        }
        let weight = if self.bend.nan_at.contains(&step) { f64::NAN } else { -1.0 / n as f64 };
        let weight = Tensor::full(weight, n, &Device::Cpu)?.to_dtype(batch.dtype())?;
        gradients.weigh(if self.bend.miscounts_at.contains(&step) { 1e3 } else { n as f64 });
        // A part at a time, gradients are added to more often.
        let parts = if self.bend.in_parts_at.contains(&step) { n } else { 1 };
        let mut loss = 0.0;
        for part in 0..parts {
            let (batch, weight) = (batch.narrow(0, part, n / parts)?, weight.narrow(0, part, n / parts)?);
            let scored = self.flow.log_prob_backward(&batch, None, &weight, self.bend.backprop, gradients)?;
            loss += (scored.log_prob * weight)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
        }
        let rows = Metric::new("rows", "", n as f64);
        Ok(Metrics::new(Metric::new("nats", "nats", loss)).with(rows).over(n as f64))
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        if let Some(objective) = self.bend.objective {
            return Ok(Metrics::new(Metric::new("objective", "", objective(self.taken))));
        }
        let _paused = self.flow.store().no_grad();
        let share: Share = self.ranks.share(self.points.dim(0)?);
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let points = self.points.narrow(0, share.first, share.count)?;
        let noisy = self.noisy(&points, &mut rng.for_rows(share))?;
        self.flow.set_training(false);
        let nats = self.flow.log_prob(&noisy, None)?.to_dtype(DType::F64)?.mean(0)?.to_scalar::<f64>()?;
        self.flow.set_training(true);
        Ok(Metrics::new(Metric::new("nats", "nats", -nats)).over(share.count as f64))
    }

    fn position(&self) -> Place {
        Place { taken: self.taken, order: self.order.clone() }
    }

    fn restore(&mut self, place: Place) -> Result<()> {
        (self.taken, self.order) = (place.taken, place.order);
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.batch
    }
}

/// Everything on: averaging, clipping, warm-up and plateau.
pub(crate) fn config(steps: u64) -> TrainConfig {
    TrainConfig {
        steps,
        optimizer: OptimizerConfig::adamw(0.02, 0.01),
        schedule: ScheduleConfig::plateau(4, 0.7, 1),
        clip_norm: Some(1.5),
        ema: Some(EmaConfig { decay: 0.9 }),
        seed: 11,
        validate_every: Some(5),
        checkpoint_every: Some(3),
        log_every: 1,
        ..TrainConfig::default()
    }
}

/// The tensor files of two checkpoints, byte for byte, and the part of the state that is not a clock.
pub(crate) fn assert_same_checkpoint(a: &Path, b: &Path) {
    for name in ["config.json", "model.safetensors", "optimizer.safetensors", "ema.safetensors"] {
        let (x, y) = (std::fs::read(a.join(name)).unwrap(), std::fs::read(b.join(name)).unwrap());
        assert!(x == y, "{name} of {} and {} differ", a.display(), b.display());
    }
    let state = |folder: &Path| {
        let text = std::fs::read_to_string(folder.join("state.json")).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value.as_object_mut().unwrap().remove("seconds");
        value
    };
    assert_eq!(state(a), state(b));
}

/// The steps of the training records of a run, in the order logged.
pub(crate) fn logged_steps(out: &Path) -> Vec<u64> {
    let records = flow_core::train::read_log(&out.join("log.jsonl")).unwrap();
    records.iter().filter(|r| r.kind == flow_core::train::RecordKind::Train).map(|r| r.step).collect()
}
