//! Transport computed once for shapes that stay the same.

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::pairing::{Points, partners};
use crate::{Error, FlowRng, Result};

/// An assignment between the points of every shape of a data set and as many noise points, computed once and sampled
/// from in training (after Hui et al. 2025, "Not-So-Optimal Transport Flows", arXiv 2502.12456).
///
/// Large sets are matched once, which no minibatch can afford; a step draws rows of a shape together with their
/// noise. Noise that always comes with the same point would be learned by heart, so fresh noise is blended in.
///
/// What is kept, and serialised, is one number per point: the noise is drawn again from the seed.
///
/// ```
/// use candle_core::{DType, Device};
/// use flow_core::FlowRng;
/// use flow_core::cnf::matching::{FlowMatching, OfflinePlan};
///
/// # fn main() -> flow_core::Result<()> {
/// let mut rng = FlowRng::seed_from(3);
/// let shapes = vec![rng.normal((64, 3), DType::F32, &Device::Cpu)?];
/// let plan = OfflinePlan::new(&shapes, 64, 7)?;
/// let rows = rng.permutation(64)[..16].to_vec();
/// let noise = plan.noise(0, &rows, 0.1, &mut rng, DType::F32, &Device::Cpu)?;
/// let index: Vec<u32> = rows.iter().map(|&i| i as u32).collect();
/// let x = shapes[0].index_select(&candle_core::Tensor::new(index, &Device::Cpu)?, 0)?;
/// let pairs = FlowMatching::default().pairs_with(&x, &noise, 1, &mut rng)?;
/// assert_eq!(pairs.x_t.dims(), &[16, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfflinePlan {
    seed: u64,
    dims: usize,
    /// For each shape, the row of noise of every point.
    partners: Vec<Vec<u32>>,
}

impl OfflinePlan {
    /// Matches every shape `(N, D)` with its noise, in random blocks of at most `block` points; `block ≥ N` is exact.
    ///
    /// The time of a block grows with its cube, its memory (8 bytes per pair) with its square. Blocks of one shape are
    /// solved in parallel.
    ///
    /// # Errors
    /// [`Error::Config`] for no shape, a block of zero or more points than 32 bits number; [`Error::Shape`] for a
    /// shape that is no matrix or has another `D` than the first.
    pub fn new(shapes: &[Tensor], block: usize, seed: u64) -> Result<Self> {
        let Some(first) = shapes.first() else { return Err(Error::config("offline plan", "needs at least one shape")) };
        if block == 0 {
            return Err(Error::config("offline plan", "needs blocks of at least one point"));
        }
        let dims = first.dims().get(1).copied().unwrap_or(0);
        let mut plan = OfflinePlan { seed, dims, partners: Vec::with_capacity(shapes.len()) };
        for (index, shape) in shapes.iter().enumerate() {
            let &[count, found] = shape.dims() else { return Err(plan.misshapen(shape)) };
            if found != dims || u32::try_from(count).is_err() {
                return Err(plan.misshapen(shape));
            }
            let noise = plan.all_noise(index, count)?;
            let mut rng = FlowRng::named(seed, &format!("blocks {index}"));
            let pool = std::slice::from_ref(&(0..count)).to_vec();
            plan.partners.push(partners(&Points::of(shape)?, &Points::of(&noise)?, &pool, block, &mut rng)?);
        }
        Ok(plan)
    }

    /// The number of shapes.
    pub fn shapes(&self) -> usize {
        self.partners.len()
    }

    /// The number of points of a shape, `None` if there is no such shape.
    pub fn points(&self, shape: usize) -> Option<usize> {
        self.partners.get(shape).map(Vec::len)
    }

    /// The noise for some points of a shape, `(rows, D)`: `√(1 - blend)·paired + √blend·fresh`, standard normal for any
    /// `blend` in `[0, 1]`.
    ///
    /// # Errors
    /// [`Error::Config`] for a shape or a row that is not there, or a `blend` outside its range.
    pub fn noise(
        &self,
        shape: usize,
        rows: &[usize],
        blend: f64,
        rng: &mut FlowRng,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        if !(0.0..=1.0).contains(&blend) {
            return Err(Error::config("blend", format!("is {blend}, must be in [0, 1]")));
        }
        let Some(partners) = self.partners.get(shape) else {
            return Err(Error::config("shape", format!("is {shape}, the plan has {} shapes", self.shapes())));
        };
        let partner = |&row: &usize| {
            let missing = || Error::config("row", format!("is {row}, shape {shape} has {} points", partners.len()));
            partners.get(row).copied().ok_or_else(missing)
        };
        let index = rows.iter().map(partner).collect::<Result<Vec<u32>>>()?;
        let index = Tensor::from_vec(index, rows.len(), &Device::Cpu)?;
        let paired = self.all_noise(shape, partners.len())?.index_select(&index, 0)?;
        let fresh = rng.normal(paired.shape(), DType::F32, &Device::Cpu)?;
        let noise = (paired.affine((1.0 - blend).sqrt(), 0.0)? + fresh.affine(blend.sqrt(), 0.0)?)?;
        Ok(noise.to_dtype(dtype)?.to_device(device)?)
    }

    /// The noise of a whole shape, from the seed.
    fn all_noise(&self, shape: usize, count: usize) -> Result<Tensor> {
        FlowRng::named(self.seed, &format!("noise {shape}")).normal((count, self.dims), DType::F32, &Device::Cpu)
    }

    fn misshapen(&self, shape: &Tensor) -> Error {
        let expected = format!("(N, {}), fewer than 2³² points", self.dims);
        Error::Shape { layer: "offline plan".into(), expected, actual: shape.dims().to_vec() }
    }
}
