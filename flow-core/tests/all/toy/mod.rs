//! A small flow on two-dimensional points, as a task whose behaviour the tests can bend.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use flow_core::distribution::StandardGaussian;
use flow_core::layers::{ActNorm, Coupling, Partition};
use flow_core::nn::Conditioner;
use flow_core::param::Init;
use flow_core::train::{
    EmaConfig, Fingerprint, Metric, Metrics, OptimizerConfig, ScheduleConfig, StopFlag, Task, TrainConfig,
};
use flow_core::transformer::{Affine, ScaleBound};
use flow_core::{
    Backprop, Bijector, Chain, Density, Error, Flow, FlowRng, Gradients, Param, ParamPath, ParamStore, Result,
};
use serde::{Deserialize, Serialize};

/// Points in the data set.
const POINTS: usize = 64;

/// One hidden layer of `width` units.
struct Net {
    w1: Param,
    b1: Param,
    w2: Param,
}

impl Net {
    fn new(path: &ParamPath, width: usize) -> Result<Self> {
        Ok(Net {
            w1: path.param("w1", (1, width), Init::Normal(1.0))?,
            b1: path.param("b1", width, Init::Const(0.0))?,
            w2: path.param("w2", (width, 2), Init::Normal(0.1))?,
        })
    }
}

impl Conditioner for Net {
    fn forward(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        let hidden = x.matmul(&self.w1.tensor())?.broadcast_add(&self.b1.tensor())?.tanh()?;
        Ok(hidden.matmul(&self.w2.tensor())?)
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
    /// Raises the flag during the step.
    pub(crate) stop_at: Option<(u64, StopFlag)>,
    /// Replaces the validation by a function of the number of finished steps.
    pub(crate) objective: Option<fn(u64) -> f64>,
    /// How long a step sleeps.
    pub(crate) nap: Duration,
    /// Rank and number of ranks: each takes its share of every batch.
    pub(crate) share: Option<(usize, usize)>,
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
    order: Vec<usize>,
    taken: u64,
    pub(crate) bend: Bend,
}

impl Toy {
    pub(crate) fn new(width: usize, bend: Bend) -> Self {
        let store = ParamStore::new(5, DType::F32, &Device::Cpu);
        let root = store.root();
        let affine = || Affine::new(ScaleBound::SoftClamp(2.0));
        let coupling = |i: usize| {
            let net = Net::new(&root.pp(format!("coupling{i}")), width).unwrap();
            Coupling::new(&[2], Partition::Channels { swap: i == 1 }, affine(), net).unwrap()
        };
        let layers: Vec<Box<dyn Bijector>> = vec![
            Box::new(ActNorm::new(&root.pp("actnorm"), &[2]).unwrap()),
            Box::new(coupling(0)),
            Box::new(coupling(1)),
        ];
        let base = StandardGaussian::new(&[2], DType::F32, &Device::Cpu);
        let flow = Flow::new(&store, Chain::new(layers).unwrap(), base).unwrap();
        let arc = |i: usize| [(i as f32 * 0.05).cos() * 2.0 + 1.0, (i as f32 * 0.05).sin() * 3.0 - 0.5];
        let points = Tensor::from_vec((0..POINTS).flat_map(arc).collect::<Vec<f32>>(), (POINTS, 2), &Device::Cpu);
        let run = ToyRun { model: ToyModel { width, clamp: 0.1 + 0.2 }, source: bend.source.into() };
        Toy { flow, run, points: points.unwrap(), order: Vec::new(), taken: 0, bend }
    }

    pub(crate) fn plain() -> Self {
        Self::new(8, Bend::default())
    }

    /// All parameters and buffers, flat, in name order.
    pub(crate) fn weights(&self) -> Vec<f32> {
        weights(self.flow.store())
    }

    /// The next batch: rows in shuffled order, and a little noise unless the batch is shared between ranks.
    fn batch(&mut self, rng: &mut FlowRng) -> Result<Tensor> {
        let at = (self.taken as usize * 16) % POINTS;
        if at == 0 {
            let shuffled = FlowRng::named(self.taken, "epoch").permutation(POINTS);
            self.order = shuffled;
        }
        self.taken += 1;
        let mut rows = self.order[at..at + 16].to_vec();
        if let Some((rank, world)) = self.bend.share {
            let size = 16 / world;
            rows = rows[rank * size..(rank + 1) * size].to_vec();
            return self.rows(&rows);
        }
        let batch = self.rows(&rows)?;
        Ok((&batch + rng.normal(batch.shape(), DType::F32, &Device::Cpu)?.affine(0.05, 0.0)?)?)
    }

    fn rows(&self, rows: &[usize]) -> Result<Tensor> {
        let index: Vec<u32> = rows.iter().map(|&i| i as u32).collect();
        Ok(self.points.index_select(&Tensor::new(index, &Device::Cpu)?, 0)?)
    }
}

/// All parameters and buffers of a store, flat, in name order.
pub(crate) fn weights(store: &ParamStore) -> Vec<f32> {
    store.all().iter().flat_map(|p| p.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
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

    fn initialize(&mut self, _rng: &mut FlowRng) -> Result<()> {
        let first = self.bend.share.map_or(0, |(rank, _)| rank * 8);
        self.flow.initialize(&self.points.narrow(0, first, 32)?, None)
    }

    fn step(&mut self, step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        std::thread::sleep(self.bend.nap);
        if let Some((at, flag)) = &self.bend.stop_at
            && *at == step
        {
            flag.request();
        }
        let batch = self.batch(rng)?;
        if self.bend.fail_at.contains(&step) {
            return Err(Error::NonFinite { layer: "toy".into(), what: "log-determinant".into(), step: None });
        }
        if self.bend.stuck_at.contains(&step) {
            return Err(Error::Solver { t: 0.5, dt: 1e-9, row: None, reason: "the toy gave up".into() });
        }
        let n = batch.dim(0)?;
        let weight = if self.bend.nan_at.contains(&step) { f32::NAN } else { -1.0 / n as f32 };
        let weight = Tensor::full(weight, n, &Device::Cpu)?;
        let scored = self.flow.log_prob_backward(&batch, None, &weight, Backprop::Reversible, gradients)?;
        let loss = (scored.log_prob * weight)?.sum_all()?.to_scalar::<f32>()?;
        Ok(Metrics::new(Metric::new("nats", "nats", f64::from(loss))).with(Metric::new("rows", "", n as f64)))
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        if let Some(objective) = self.bend.objective {
            return Ok(Metrics::new(Metric::new("objective", "", objective(self.taken))));
        }
        let _paused = self.flow.store().no_grad();
        let noise = rng.normal(self.points.shape(), DType::F32, &Device::Cpu)?.affine(0.05, 0.0)?;
        let nats = self.flow.log_prob(&(&self.points + noise)?, None)?.mean(0)?.to_scalar::<f32>()?;
        Ok(Metrics::new(Metric::new("nats", "nats", -f64::from(nats))))
    }

    fn position(&self) -> Place {
        Place { taken: self.taken, order: self.order.clone() }
    }

    fn restore(&mut self, place: Place) -> Result<()> {
        (self.taken, self.order) = (place.taken, place.order);
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        16
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
