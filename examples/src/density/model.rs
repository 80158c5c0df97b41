//! The models of the program and what a checkpoint says of them.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;
use flow_core::cnf::matching::FlowMatching;
use flow_core::distribution::StandardGaussian;
use flow_core::layers::{
    ActNorm, Coupling, InvertibleConv, MaskedAutoregressive, Parametrization, Partition, Permute, Planar,
};
use flow_core::nn::{Activation, Mlp, MlpConfig};
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
    /// Bins of a spline.
    pub(super) bins: usize,
    /// Relative and absolute tolerance of the solver of a continuous flow.
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
}

impl RunConfig {
    pub(super) fn dims(&self) -> usize {
        self.standard.mean.len()
    }
}

/// Half the interval on which a spline bends; standardised data and latents lie inside, nearly all.
const SPLINE_BOUND: f64 = 5.0;

/// A flow over standardised data.
pub(super) struct Model {
    flow: Flow<Chain, StandardGaussian>,
}

impl Model {
    /// A fresh model.
    ///
    /// # Errors
    /// Sizes that make no model.
    pub(super) fn new(config: &ModelConfig, dims: usize, seed: u64, device: &Device) -> Result<Self> {
        ensure!(config.layers > 0, "--layers must be at least 1, got 0");
        let store = ParamStore::new(seed, DType::F32, device);
        let chain = Chain::new(config.layers(&store.root(), dims)?)?;
        let base = StandardGaussian::new(&[dims], DType::F32, device);
        Ok(Model { flow: Flow::new(&store, chain, base)? })
    }

    pub(super) fn density(&self) -> &dyn Density {
        &self.flow
    }

    pub(super) fn store(&self) -> &ParamStore {
        self.flow.store()
    }

    /// What latents become on their way to data, with a word for each stage: latents first, data last.
    pub(super) fn path(&self, latents: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let _paused = self.store().no_grad();
        let mut stages = vec![("latent".to_string(), latents.clone())];
        let mut x = latents.clone();
        let layers = self.flow.bijector().layers();
        for (index, layer) in layers.iter().enumerate().rev() {
            x = layer.decode(&x, None)?.0;
            let name = if index == 0 { "data".to_string() } else { format!("after layer {index}") };
            stages.push((name, x.clone()));
        }
        Ok(stages)
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
        ModelConfig { kind, layers, hidden, bins: 16, tolerance: 1e-5, matching: FlowMatching::default() }
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
