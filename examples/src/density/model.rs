//! The models of the program and what a checkpoint says of them.

use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;
use flow_core::cnf::matching::{Coupling as Pairing, FlowMatching, TimeSampling, sample_few_steps, trajectory};
use flow_core::cnf::ode::Method;
use flow_core::cnf::ode::{SolveOptions, Stepping};
use flow_core::cnf::{Cnf, CnfConfig, ConcatSquash, ConcatSquashConfig, Divergence, EndTime, Probe, VectorField};
use flow_core::distribution::StandardGaussian;
use flow_core::layers::{
    ActNorm, Coupling, InvertibleConv, MaskedAutoregressive, Parametrization, Partition, Permute, Planar,
};
use flow_core::nn::{Activation, Mlp, MlpConfig};
use flow_core::train::{self, Run};
use flow_core::transformer::{Affine, RationalQuadraticSpline, ScaleBound, Transformer};
use flow_core::{Bijector, Chain, Density, Flow, ParamPath, ParamStore};
use serde::{Deserialize, Serialize};

use super::data::Standard;

/// A family of flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Affine couplings (Dinh et al. 2017).
    Realnvp,
    /// Masked autoregressive flow (Papamakarios et al. 2017).
    Maf,
    /// Couplings of rational-quadratic splines (Durkan et al. 2019).
    Spline,
    /// Planar flows (Rezende & Mohamed 2015).
    Planar,
    /// Continuous flow trained by maximum likelihood (Grathwohl et al. 2019).
    Ffjord,
    /// Continuous flow trained by flow matching with transport (Lipman et al. 2023, Tong et al. 2024).
    Matching,
}

/// The hyper-parameters of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelConfig {
    pub(super) kind: Kind,
    /// Layers of a discrete flow.
    pub(super) layers: usize,
    /// Widths of the hidden layers of conditioners and fields.
    pub(super) hidden: Vec<usize>,
    /// Factor of the first layer's initial weights of a continuous flow.
    #[serde(default = "one")]
    pub(super) input_gain: f64,
    /// Bins of a spline.
    pub(super) bins: usize,
    /// Relative and absolute tolerance of the solver of a continuous flow in training.
    pub(super) tolerance: f64,
    /// How a matched field is trained.
    pub(super) matching: FlowMatching,
}

/// Everything that a checkpoint needs to be used again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunConfig {
    /// The name of a toy or the path of a file.
    pub(super) data: String,
    pub(super) standard: Standard,
    pub(super) model: ModelConfig,
    pub(super) batch: usize,
    /// Of initial weights and of the split of a table.
    pub(super) seed: u64,
    /// What a straightened model was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) straightened: Option<Straightened>,
}

/// Where the paths of a straightened model come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Straightened {
    /// The checkpoint whose samples it was matched with.
    pub(super) teacher: String,
    /// Those samples.
    pub(super) pairs: usize,
    /// Whether it draws them in one step, which leaves it no density.
    pub(super) distilled: bool,
}

/// What a checkpoint without a gain has.
fn one() -> f64 {
    1.0
}

impl Run for RunConfig {
    type Model = Model;
    type Error = anyhow::Error;
    const DESCRIBES: &'static str = "a density";

    /// The model for use, not for training.
    fn build(&self, device: &Device) -> Result<Model> {
        Model::new(&self.model, self.dims(), self.seed, Purpose::Use, device)
    }
}

impl train::Model for Model {
    fn store(&self) -> &ParamStore {
        Model::store(self)
    }

    fn set_training(&self, training: bool) {
        self.density().set_training(training);
    }
}

impl RunConfig {
    pub(super) fn dims(&self) -> usize {
        self.standard.mean.len()
    }

    /// Whether one Euler step is all that the model is good for.
    pub(super) fn distilled(&self) -> bool {
        self.straightened.as_ref().is_some_and(|s| s.distilled)
    }
}

/// Half the interval on which a spline bends; standardised data and latents lie inside, nearly all.
const SPLINE_BOUND: f64 = 5.0;

/// The end time of continuous flows.
pub(super) const END_TIME: f64 = 1.0;
/// Stages of the path of a continuous flow.
const STAGES: usize = 48;

/// The tolerance at which trained continuous flows are solved.
const TIGHT: f64 = 1e-5;

/// What a model is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Gradients matter, and what they cost: the solver's tolerance is the configured one, in many dimensions the
    /// divergence an estimate. Gradients are those of the steps that were taken, so a loose tolerance does not bias them.
    Training,
    /// Numbers matter.
    Use,
}

/// A flow over standardised data.
pub(super) enum Model {
    /// A chain of layers.
    Discrete(Flow<Chain, StandardGaussian>),
    /// The solution of a differential equation.
    Continuous(Box<Flow<Cnf<Arc<ConcatSquash>>, StandardGaussian>>),
}

impl Model {
    /// A fresh model.
    ///
    /// # Errors
    /// Sizes that make no model.
    pub(super) fn new(config: &ModelConfig, dims: usize, seed: u64, purpose: Purpose, device: &Device) -> Result<Self> {
        ensure!(config.layers > 0, "--layers must be at least 1, got 0");
        let store = ParamStore::new(seed, DType::F32, device);
        let base = StandardGaussian::new(&[dims], DType::F32, device);
        if !config.kind.continuous() {
            let chain = Chain::new(config.layers(&store.root(), dims)?)?;
            return Ok(Model::Discrete(Flow::new(&store, chain, base)?));
        }
        let net = ConcatSquashConfig { input_gain: config.input_gain, ..ConcatSquashConfig::new(&config.hidden) };
        let field = Arc::new(ConcatSquash::new(&store.root().pp("field"), dims, None, &net)?);
        let cnf = Cnf::new(&store.root(), field, config.cnf(dims, purpose))?;
        Ok(Model::Continuous(Box::new(Flow::new(&store, cnf, base)?)))
    }

    pub(super) fn density(&self) -> &dyn Density {
        match self {
            Model::Discrete(flow) => flow,
            Model::Continuous(flow) => flow.as_ref(),
        }
    }

    pub(super) fn store(&self) -> &ParamStore {
        self.density().store()
    }

    /// The field of a continuous flow.
    pub(super) fn field(&self) -> Option<Arc<dyn VectorField>> {
        match self {
            Model::Discrete(_) => None,
            Model::Continuous(flow) => Some(flow.bijector().field().clone()),
        }
    }

    /// What latents become on their way to data, with a word for each stage: latents first, data last.
    pub(super) fn path(&self, latents: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let _paused = self.store().no_grad();
        match self {
            Model::Discrete(flow) => layer_by_layer(flow.bijector(), latents),
            Model::Continuous(flow) => {
                let states = trajectory(flow.bijector().field(), latents, None, STAGES, Method::Rk4, END_TIME)?;
                let time = |k: usize| format!("t = {:.2}", END_TIME * (STAGES - k) as f64 / STAGES as f64);
                Ok(states.into_iter().enumerate().map(|(k, x)| (time(k), x)).collect())
            }
        }
    }

    /// What a continuous flow makes of latents in some equal steps; `None` for a discrete one.
    pub(super) fn in_steps(&self, latents: &Tensor, method: Method, steps: usize) -> Result<Option<Tensor>> {
        let _paused = self.store().no_grad();
        let made = |field: Arc<dyn VectorField>| sample_few_steps(&*field, latents, None, steps, method, END_TIME);
        Ok(self.field().map(made).transpose()?)
    }
}

fn layer_by_layer(chain: &Chain, latents: &Tensor) -> Result<Vec<(String, Tensor)>> {
    let mut stages = vec![("latent".to_string(), latents.clone())];
    let mut x = latents.clone();
    for (index, layer) in chain.layers().iter().enumerate().rev() {
        x = layer.decode(&x, None)?.0;
        let name = if index == 0 { "data".to_string() } else { format!("after layer {index}") };
        stages.push((name, x.clone()));
    }
    Ok(stages)
}

impl Kind {
    /// Whether it is the solution of a differential equation.
    pub(super) fn continuous(self) -> bool {
        matches!(self, Kind::Ffjord | Kind::Matching)
    }
}

impl ModelConfig {
    /// What the families are with nothing said.
    pub(super) fn preset(kind: Kind) -> Self {
        let (layers, hidden) = match kind {
            Kind::Realnvp => (12, vec![64, 64]),
            Kind::Maf => (8, vec![64, 64]),
            Kind::Spline => (6, vec![64, 64]),
            Kind::Planar => (64, Vec::new()),
            Kind::Ffjord => (1, vec![64, 64, 64]),
            Kind::Matching => (1, vec![128, 128, 128]),
        };
        let matching = FlowMatching {
            coupling: Pairing::MinibatchOt { block: 128 },
            times: TimeSampling::Stratified,
            end_time: END_TIME,
            sigma_min: 0.0,
        };
        // A matched field learns thin structures late, and no solver's stiffness punishes fast variation in training.
        let input_gain = if kind == Kind::Matching { 4.0 } else { one() };
        ModelConfig { kind, layers, hidden, input_gain, bins: 16, tolerance: 1e-3, matching }
    }

    /// How the equation is solved. What is reported of a model is exact: the trace is no estimate, the tolerance tight.
    fn cnf(&self, dims: usize, purpose: Purpose) -> CnfConfig {
        let (tolerance, exact) = match purpose {
            Purpose::Training => (self.tolerance, dims <= 3),
            Purpose::Use => (self.tolerance.min(TIGHT), true),
        };
        let divergence = if exact { Divergence::Exact } else { Divergence::Hutchinson(Probe::Rademacher) };
        let solver = SolveOptions { stepping: Stepping::adaptive(tolerance, tolerance), ..SolveOptions::default() };
        CnfConfig { solver, divergence, end_time: EndTime::Fixed(END_TIME), ..CnfConfig::default() }
    }

    fn layers(&self, path: &ParamPath, dims: usize) -> Result<Vec<Box<dyn Bijector>>> {
        let mut layers: Vec<Box<dyn Bijector>> = Vec::new();
        for index in 0..self.layers {
            let path = path.pp(format!("layer{index:02}"));
            match self.kind {
                Kind::Realnvp => self.coupling(&mut layers, &path, dims, index, affine())?,
                Kind::Spline => {
                    let spline = RationalQuadraticSpline::new(self.bins, SPLINE_BOUND)?;
                    self.coupling(&mut layers, &path, dims, index, spline)?;
                }
                Kind::Maf => {
                    layers.push(Box::new(ActNorm::new(&path.pp("norm"), &[dims])?));
                    let config = MlpConfig::new(&self.hidden).activation(Activation::Silu);
                    layers.push(Box::new(MaskedAutoregressive::new(&path.pp("net"), dims, affine(), &config)?));
                    layers.push(Box::new(Permute::reverse(&path.pp("turn"), &[dims])?));
                }
                _ => layers.push(Box::new(Planar::new(&path, dims)?)),
            }
        }
        Ok(layers)
    }

    /// A coupling after a normalisation; what lets entries take turns is a swap in the plane, a learned mixing beyond.
    fn coupling<T: Transformer + 'static>(
        &self,
        layers: &mut Vec<Box<dyn Bijector>>,
        path: &ParamPath,
        dims: usize,
        index: usize,
        transformer: T,
    ) -> Result<()> {
        ensure!(dims > 1, "couplings need at least two columns, the data have one; use --model maf");
        let partition = Partition::Channels { swap: dims == 2 && index % 2 == 1 };
        layers.push(Box::new(ActNorm::new(&path.pp("norm"), &[dims])?));
        if dims > 2 {
            layers.push(Box::new(InvertibleConv::new(&path.pp("mix"), &[dims], Parametrization::Plu)?));
        }
        let inputs = Coupling::<T, Mlp>::input_channels(dims, &partition);
        let outputs = Coupling::<T, Mlp>::output_channels(dims, &partition, &transformer);
        let config = MlpConfig::new(&self.hidden).activation(Activation::Silu);
        let net = Mlp::new(&path.pp("net"), inputs, outputs, &config)?;
        layers.push(Box::new(Coupling::new(&[dims], partition, transformer, net)?));
        Ok(())
    }
}

fn affine() -> Affine {
    Affine::new(ScaleBound::SoftClamp(3.0))
}
