//! Small couplings that several integration tests build.
#![allow(dead_code, unreachable_pub)]

use flow_core::layers::Partition;
use flow_core::testing::smooth_coupling;
use flow_core::transformer::{Affine, ScaleBound, Transformer};
use flow_core::{Bijector, ParamPath, Result};

/// The affine transformer of these tests, scales within `(e^-1.5, e^1.5)`.
pub fn soft_affine() -> Affine {
    Affine::new(ScaleBound::SoftClamp(1.5))
}

/// An affine coupling over vectors of `d` entries.
pub fn affine(p: &ParamPath, name: &str, d: usize, swap: bool) -> Result<Box<dyn Bijector>> {
    vector_coupling(p, name, d, swap, soft_affine(), 0)
}

/// A coupling over vectors with a context of `context` entries, parameters under `name`.
pub fn vector_coupling<T: Transformer + 'static>(
    p: &ParamPath,
    name: &str,
    d: usize,
    swap: bool,
    transformer: T,
    context: usize,
) -> Result<Box<dyn Bijector>> {
    smooth_coupling(&p.pp(name), &[d], Partition::Channels { swap }, transformer, context)
}
