//! Small flows that several integration tests build.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use flow_core::layers::{Coupling, Partition};
use flow_core::testing::SmoothNet;
use flow_core::transformer::{Affine, ScaleBound, Transformer};
use flow_core::{Bijector, FlowRng, ParamPath, ParamStore, Result};

/// Moves every parameter away from its initial value, where conditioners answer zero.
pub fn randomise(store: &ParamStore, noise: f64, seed: u64) {
    let mut rng = FlowRng::named(seed, "randomise");
    for param in store.trainable() {
        let value = param.var().as_detached_tensor();
        let step = rng.normal(value.shape(), value.dtype(), value.device()).unwrap();
        param.set(&(value + step.affine(noise, 0.0).unwrap()).unwrap()).unwrap();
    }
}

/// The affine transformer of these tests, scales within `(e^-1.5, e^1.5)`.
pub fn soft_affine() -> Affine {
    Affine::new(ScaleBound::SoftClamp(1.5))
}

/// An affine coupling over vectors of `d` entries.
pub fn affine(p: &ParamPath, name: &str, d: usize, swap: bool) -> Result<Box<dyn Bijector>> {
    vector_coupling(p, name, d, swap, soft_affine(), 0)
}

/// A coupling over vectors with a smooth conditioner and a context of `context` entries.
pub fn vector_coupling<T: Transformer + 'static>(
    p: &ParamPath,
    name: &str,
    d: usize,
    swap: bool,
    transformer: T,
    context: usize,
) -> Result<Box<dyn Bijector>> {
    let partition = Partition::Channels { swap };
    let inputs = Coupling::<T, SmoothNet>::input_channels(d, &partition);
    let outputs = Coupling::<T, SmoothNet>::output_channels(d, &partition, &transformer);
    let net = SmoothNet::new(&p.pp(name), &[inputs], &[outputs], context)?;
    let layer = Coupling::new(&[d], partition, transformer, net)?;
    Ok(if context > 0 { Box::new(layer.with_context(&[context])) } else { Box::new(layer) })
}
