//! NICE (Dinh, Krueger & Bengio 2015): additive couplings on the flattened image and one diagonal scale.

use candle_core::{Device, Tensor};
use flow_core::bijector::{LayerReport, check_batch};
use flow_core::density::Latents;
use flow_core::distribution::{Distribution, StandardGaussian, StandardLogistic};
use flow_core::layers::{Coupling, Partition, Scaling};
use flow_core::nn::{Mlp, MlpConfig};
use flow_core::transformer::Additive;
use flow_core::{
    Backprop, Bijector, Chain, Density, Error, Flow, FlowRng, Gradients, ParamPath, ParamStore, Result, Scored,
};
use serde::{Deserialize, Serialize};

use super::{ImageDensity, ImageSpec};

/// The density of NICE's latent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicePrior {
    /// Independent standard logistic entries: MNIST, SVHN, CIFAR-10.
    #[default]
    Logistic,
    /// `N(0, I)`: TFD.
    Gaussian,
}

/// Hyper-parameters of [`Nice`]; the defaults are the paper's MNIST model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NiceConfig {
    /// Additive couplings, alternating which half they transform.
    pub couplings: usize,
    /// Hidden layers of every coupling network.
    pub hidden_layers: usize,
    /// Units per hidden layer.
    pub width: usize,
    /// The density of the latent.
    pub prior: NicePrior,
}

impl Default for NiceConfig {
    fn default() -> Self {
        NiceConfig { couplings: 4, hidden_layers: 5, width: 1000, prior: NicePrior::Logistic }
    }
}

/// `couplings × additive coupling`, then `z = h · exp(s)`, over the `D = C · H · W` entries of an image.
///
/// Entries are split into odd and even ones (section 5.1); here the even ones are gathered in front, once,
/// which is a permutation and changes no density. `D` may be odd.
pub struct Nice {
    flow: Flow<Chain, Box<dyn Distribution>>,
    event: [usize; 3],
    order: Interleave,
}

impl Nice {
    /// Builds the model, all parameters under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] for empty sizes or no couplings.
    pub fn new(config: &NiceConfig, spec: &ImageSpec, path: &ParamPath) -> Result<Self> {
        spec.validate()?;
        if config.couplings == 0 || config.width == 0 {
            return Err(Error::config("nice", "needs at least one coupling and a width of at least 1"));
        }
        let (dims, store) = (spec.dims(), path.store());
        let mut layers: Vec<Box<dyn Bijector>> = Vec::with_capacity(config.couplings + 1);
        for i in 0..config.couplings {
            layers.push(Box::new(coupling(config, dims, i % 2 == 1, &path.pp(format!("coupling{i}")))?));
        }
        layers.push(Box::new(Scaling::new(&path.pp("scaling"), &[dims])?));
        let base: Box<dyn Distribution> = match config.prior {
            NicePrior::Logistic => Box::new(StandardLogistic::new(&[dims], store.dtype(), store.device())),
            NicePrior::Gaussian => Box::new(StandardGaussian::new(&[dims], store.dtype(), store.device())),
        };
        Ok(Nice {
            flow: Flow::new(store, Chain::new(layers)?, base)?,
            event: spec.event_shape(),
            order: Interleave::new(dims, store.device())?,
        })
    }

    /// The flow over vectors `(B, D)`, even entries first.
    pub fn flow(&self) -> &Flow<Chain, Box<dyn Distribution>> {
        &self.flow
    }

    /// `(B, C, H, W)` to `(B, D)`.
    fn flatten(&self, x: &Tensor) -> Result<Tensor> {
        check_batch("nice", x, &self.event)?;
        Ok(x.flatten_from(1)?.contiguous()?.index_select(&self.order.gather, 1)?)
    }

    /// The inverse of [`Nice::flatten`], for images and for gradients.
    fn unflatten(&self, x: &Tensor) -> Result<Tensor> {
        let [c, h, w] = self.event;
        let batch = x.dim(0)?;
        Ok(x.contiguous()?.index_select(&self.order.scatter, 1)?.reshape((batch, c, h, w))?)
    }
}

/// The permutation "even entries first, then odd ones", and its inverse, as index tensors.
struct Interleave {
    gather: Tensor,
    scatter: Tensor,
}

impl Interleave {
    fn new(dims: usize, device: &Device) -> Result<Self> {
        let evens = dims.div_ceil(2);
        let index = |f: &dyn Fn(usize) -> usize| -> Result<Tensor> {
            Ok(Tensor::from_iter((0..dims).map(|i| f(i) as u32), device)?)
        };
        Ok(Interleave {
            gather: index(&|i| if i < evens { 2 * i } else { 2 * (i - evens) + 1 })?,
            scatter: index(&|i| if i % 2 == 0 { i / 2 } else { evens + i / 2 })?,
        })
    }
}

/// Even entries, in front, condition the odd ones; the other way round if `swap`.
fn coupling(config: &NiceConfig, dims: usize, swap: bool, path: &ParamPath) -> Result<Coupling<Additive, Mlp>> {
    let partition = if dims.is_multiple_of(2) {
        Partition::Channels { swap }
    } else {
        // The halves differ in size: only a mask can let the smaller one condition.
        let mask: Vec<f32> = (0..dims).map(|i| f32::from(u8::from((i < dims.div_ceil(2)) != swap))).collect();
        Partition::Mask(Tensor::from_vec(mask, dims, &Device::Cpu)?)
    };
    let inputs = Coupling::<Additive, Mlp>::input_channels(dims, &partition);
    let outputs = Coupling::<Additive, Mlp>::output_channels(dims, &partition, &Additive);
    // A small but non-zero start of the last layer: at zero the first step could train nothing else.
    let net = MlpConfig::new(&vec![config.width; config.hidden_layers]).output_bound(1e-2);
    let net = Mlp::new(path, inputs, outputs, &net)?;
    Coupling::new(&[dims], partition, Additive, net)
}

impl Density for Nice {
    fn store(&self) -> &ParamStore {
        self.flow.store()
    }
    fn event_shape(&self) -> &[usize] {
        &self.event
    }
    fn log_prob(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        self.flow.log_prob(&self.flatten(x)?, context)
    }
    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<()> {
        self.flow.initialize(&self.flatten(x)?, context)
    }
    fn set_training(&self, training: bool) {
        self.flow.set_training(training);
    }
    fn log_prob_backward(
        &self,
        x: &Tensor,
        context: Option<&Tensor>,
        weight: &Tensor,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<Scored> {
        let scored = self.flow.log_prob_backward(&self.flatten(x)?, context, weight, mode, gradients)?;
        Ok(Scored { grad_x: self.unflatten(&scored.grad_x)?, ..scored })
    }
    fn sample(&self, n: usize, context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        self.unflatten(&self.flow.sample(n, context, temperature, rng)?)
    }
}

impl ImageDensity for Nice {
    fn latent_shapes(&self) -> Vec<Vec<usize>> {
        vec![self.flow.bijector().latent_shape().to_vec()]
    }

    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Latents, Tensor)> {
        let _paused = self.store().no_grad();
        let (z, log_det) = self.flow.bijector().encode(&self.flatten(x)?, context)?;
        let log_prob = (self.flow.base().log_prob(&z, context)? + log_det)?;
        Ok((Latents(vec![self.flow.base().whiten(&z, context)?]), log_prob))
    }

    fn decode(&self, latents: &Latents, context: Option<&Tensor>) -> Result<Tensor> {
        let [noise] = latents.0.as_slice() else {
            return Err(Error::config("latents", format!("{} given, nice has one", latents.0.len())));
        };
        let _paused = self.store().no_grad();
        let z = self.flow.base().color(noise, context)?;
        self.unflatten(&self.flow.bijector().decode(&z, context)?.0)
    }

    fn describe(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
        let _paused = self.store().no_grad();
        self.flow.bijector().describe(&self.flatten(x)?, context)
    }

    fn sample_with(
        &self,
        n: usize,
        context: Option<&Tensor>,
        temperatures: &[f64],
        rng: &mut FlowRng,
    ) -> Result<Tensor> {
        let &[temperature] = temperatures else {
            return Err(Error::config("temperatures", format!("{} given, nice has one latent", temperatures.len())));
        };
        self.sample(n, context, temperature, rng)
    }
}
