//! The one source of randomness: explicit, seedable, serialisable.
//!
//! Candle's CPU generator cannot be seeded, so nothing in this workspace uses it. A [`FlowRng`] is
//! handed down as an argument; the same seed gives the same bits on the same machine whatever the
//! number of threads, and its state goes into checkpoints ([`FlowRng`] is `Serialize`).

use candle_core::{DType, Device, Tensor};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::hash::Fnv;

/// A seeded ChaCha12 generator that draws tensors.
///
/// ```
/// use candle_core::{DType, Device};
/// use flow_core::FlowRng;
///
/// # fn main() -> flow_core::Result<()> {
/// let mut rng = FlowRng::seed_from(7);
/// let noise = rng.normal((2, 3), DType::F32, &Device::Cpu)?;
/// assert_eq!(noise.dims(), &[2, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowRng(ChaCha12Rng);

impl FlowRng {
    /// A generator that depends on `seed` alone.
    pub fn seed_from(seed: u64) -> Self {
        FlowRng(ChaCha12Rng::seed_from_u64(seed))
    }

    /// A generator for one named purpose, independent of the order in which purposes are asked for.
    ///
    /// Parameters are initialised this way, so that adding a layer does not change the others.
    pub fn named(seed: u64, name: &str) -> Self {
        let hash = Fnv::new().bytes(name.as_bytes()).value();
        FlowRng(ChaCha12Rng::seed_from_u64(seed ^ hash.rotate_left(17)))
    }

    /// A child generator; the parent advances.
    pub fn fork(&mut self) -> Self {
        FlowRng(ChaCha12Rng::seed_from_u64(self.0.random()))
    }

    /// Standard normal numbers.
    pub fn normal(&mut self, shape: impl Into<candle_core::Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        let values: Vec<f32> = (0..shape.elem_count()).map(|_| self.0.sample(StandardNormal)).collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }

    /// Numbers uniform in `[0, 1)`.
    pub fn uniform(&mut self, shape: impl Into<candle_core::Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        let values: Vec<f32> = (0..shape.elem_count()).map(|_| self.0.random()).collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }

    /// One number uniform in `[0, 1)`.
    pub fn next_uniform(&mut self) -> f64 {
        self.0.random()
    }

    /// One standard normal number.
    pub fn next_normal(&mut self) -> f64 {
        self.0.sample(StandardNormal)
    }

    /// One integer uniform in `0..bound`; `bound = 0` gives 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.0.random_range(0..bound) }
    }

    /// A random permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut self.0);
        order
    }
}
