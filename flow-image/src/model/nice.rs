//! NICE (Dinh, Krueger & Bengio 2015): additive couplings on the flattened image and one diagonal scale.

use candle_core::{Device, Tensor};
use flow_core::bijector::{check_batch, zero_log_det};
use flow_core::density::Level;
use flow_core::distribution::{Distribution, StandardGaussian, StandardLogistic};
use flow_core::layers::{Coupling, Partition, Scaling};
use flow_core::nn::{Mlp, MlpConfig};
use flow_core::transformer::Additive;
use flow_core::{Bijector, Chain, Error, Gradients, MultiScale, ParamPath, Pullback, Result, Tape};
use serde::{Deserialize, Serialize};

use super::{ImageFlow, ImageSpec, PixelScaling};

/// The density of NICE's latent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NicePrior {
    /// Independent standard logistic entries: MNIST, SVHN, CIFAR-10.
    #[default]
    Logistic,
    /// `N(0, I)`: TFD.
    Gaussian,
}

/// Hyper-parameters of NICE; the defaults are the paper's MNIST model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
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

impl NiceConfig {
    /// `couplings` couplings with networks of `hidden_layers` layers of `width` units before a logistic prior.
    pub fn new(couplings: usize, hidden_layers: usize, width: usize) -> Self {
        NiceConfig { couplings, hidden_layers, width, ..NiceConfig::default() }
    }

    /// `couplings × additive coupling`, then `z = h · exp(s)`, over the `D = C · H · W` entries of an image, with
    /// parameters under `path`.
    ///
    /// One level and no factor-out: the latent is a vector `(D)`. `D` may be odd.
    ///
    /// # Errors
    /// [`Error::Config`] for empty sizes or no couplings.
    pub fn build(&self, spec: &ImageSpec, path: &ParamPath) -> Result<ImageFlow> {
        spec.validate()?;
        if self.couplings == 0 || self.width == 0 {
            return Err(Error::config("nice", "needs at least one coupling and a width of at least 1"));
        }
        let (dims, store) = (spec.dims(), path.store());
        let mut layers: Vec<Box<dyn Bijector>> = vec![Box::new(Interleave::new(spec.event_shape(), store.device())?)];
        for i in 0..self.couplings {
            layers.push(Box::new(coupling(self, dims, i % 2 == 1, &path.pp(format!("coupling{i}")))?));
        }
        layers.push(Box::new(Scaling::new(&path.pp("scaling"), &[dims])?));
        let prior: Box<dyn Distribution> = match self.prior {
            NicePrior::Logistic => Box::new(StandardLogistic::new(&[dims], store.dtype(), store.device())),
            NicePrior::Gaussian => Box::new(StandardGaussian::new(&[dims], store.dtype(), store.device())),
        };
        let level = Level { flow: Box::new(Chain::new(layers)?), split: None };
        Ok(ImageFlow::new(MultiScale::new(store, vec![level], prior)?, PixelScaling::Unit))
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

/// An image `(C, H, W)` as a vector `(D)`, even entries first, then odd ones; `log |det| = 0`.
///
/// Couplings split entries into odd and even ones (section 5.1). Gathering the even ones in front, once, lets every
/// coupling split in the middle; a permutation changes no density.
struct Interleave {
    event: [usize; 3],
    latent: [usize; 1],
    gather: Tensor,
    scatter: Tensor,
}

impl Interleave {
    fn new(event: [usize; 3], device: &Device) -> Result<Self> {
        let dims: usize = event.iter().product();
        let evens = dims.div_ceil(2);
        let index = |f: &dyn Fn(usize) -> usize| -> Result<Tensor> {
            Ok(Tensor::from_iter((0..dims).map(|i| f(i) as u32), device)?)
        };
        Ok(Interleave {
            event,
            latent: [dims],
            gather: index(&|i| if i < evens { 2 * i } else { 2 * (i - evens) + 1 })?,
            scatter: index(&|i| if i % 2 == 0 { i / 2 } else { evens + i / 2 })?,
        })
    }

    fn flatten(&self, x: &Tensor) -> Result<Tensor> {
        check_batch("nice", x, &self.event)?;
        Ok(x.flatten_from(1)?.contiguous()?.index_select(&self.gather, 1)?)
    }

    /// The inverse of [`Interleave::flatten`], for images and for gradients.
    fn unflatten(&self, z: &Tensor) -> Result<Tensor> {
        let (batch, [c, h, w]) = (check_batch("nice", z, &self.latent)?, self.event);
        Ok(z.contiguous()?.index_select(&self.scatter, 1)?.reshape((batch, c, h, w))?)
    }
}

impl Bijector for Interleave {
    fn name(&self) -> String {
        "even entries, then odd ones".into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.event
    }

    fn latent_shape(&self) -> &[usize] {
        &self.latent
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        Ok((self.flatten(x)?, zero_log_det(x)?))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        Ok((self.unflatten(z)?, zero_log_det(z)?))
    }

    /// The gradient of a permutation goes back the way the values do.
    fn backprop(
        &self,
        z: &Tensor,
        _tape: &Tape,
        _context: Option<&Tensor>,
        grad_z: &Tensor,
        _grad_log_det: &Tensor,
        _gradients: &mut Gradients,
    ) -> Result<Pullback> {
        Ok(Pullback { x: self.unflatten(z)?, grad_x: self.unflatten(grad_z)?, grad_context: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow_core::testing::{Case, Check};

    #[test]
    fn the_order_of_entries_is_a_bijector_for_even_and_odd_sizes() {
        for event in [[1, 2, 4], [3, 3, 1], [1, 1, 1]] {
            let build = move |path: &ParamPath| -> Result<Box<dyn Bijector>> {
                Ok(Box::new(Interleave::new(event, path.store().device())?))
            };
            Check::f64().run(&Case::new("Interleave", "an image", build)).unwrap();
        }
        let x = Tensor::arange(0f32, 5.0, &Device::Cpu).unwrap().reshape((1, 1, 1, 5)).unwrap();
        let order = Interleave::new([1, 1, 5], &Device::Cpu).unwrap();
        let z = order.encode(&x, None).unwrap().0.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(z, [0.0, 2.0, 4.0, 1.0, 3.0]);
    }
}
