//! Learned noise of dequantization.

use candle_core::Tensor;
use flow_core::density::dequantize::VariationalDequantizer;
use flow_core::layers::{Coupling, Partition};
use flow_core::nn::{Conditioner, CouplingNet, HiddenActivation};
use flow_core::transformer::{Affine, ScaleBound};
use flow_core::{Error, ParamPath, Result};
use flow_image::model::ImageSpec;

/// The bound of the logarithm of the noise's spread.
const LOG_SPREAD: f64 = 4.0;

/// `u = σ(μ(x) + s(x)·ε)` for every value of a frame, with `μ` and `s` of a network that sees the frame's levels
/// (Ho et al. 2019, Flow++, arXiv 1902.00275, section 3.1, with one affine map as the flow of the noise).
pub(super) type LearnedNoise = VariationalDequantizer<Coupling<Affine, OfContext>>;

/// The noise of frames of `spec`, with a network of `width` hidden channels under `path`.
pub(super) fn learned_noise(
    path: &ParamPath,
    spec: &ImageSpec,
    width: usize,
    activation: HiddenActivation,
) -> Result<LearnedNoise> {
    let shape = spec.event_shape();
    let [channels, height, columns] = shape;
    let net = CouplingNet::with_activation(path, channels, width, 2 * channels, [height, columns], activation)?;
    // A mask that keeps nothing: all values are transformed, by parameters of the context alone.
    let mask = Tensor::zeros(&shape, path.store().dtype(), path.store().device())?;
    let net = OfContext { shape: shape.to_vec(), net };
    let map = Coupling::new(&shape, Partition::Mask(mask), Affine::new(ScaleBound::SoftClamp(LOG_SPREAD)), net)?;
    VariationalDequantizer::new(map, spec.levels as u32)
}

/// A network of the context alone.
pub(super) struct OfContext {
    shape: Vec<usize>,
    net: CouplingNet,
}

impl Conditioner for OfContext {
    fn context_shape(&self) -> Option<&[usize]> {
        Some(&self.shape)
    }

    fn forward(&self, _x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let context = context.ok_or_else(|| Error::config("learned noise", "needs the levels as its context"))?;
        self.net.forward(context, None)
    }
}
