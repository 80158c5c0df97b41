//! Which noise goes with which data.

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::numerics::host;
use crate::numerics::transport;
use crate::{Error, FlowRng, Result};

/// The joint distribution of data and noise, whose margins stay what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Pairing {
    /// Every row has noise of its own.
    #[default]
    Independent,
    /// Exact optimal transport of squared distance within random blocks of at most `block` rows (Tong et al. 2024,
    /// arXiv 2302.00482; Pooladian et al. 2023, arXiv 2304.14772).
    ///
    /// The larger the block, the straighter the paths; the time grows with its cube, so a batch of many blocks costs
    /// its square.
    MinibatchOt {
        /// Rows that are matched at once.
        block: usize,
    },
}

impl Pairing {
    pub(super) fn check(self) -> Result<()> {
        match self {
            Pairing::MinibatchOt { block: 0 } => Err(Error::config("coupling.block", "is 0, must be at least 1")),
            _ => Ok(()),
        }
    }

    /// Reorders the rows of `noise` to go with those of `x`, within groups of `per_group` consecutive rows, or over
    /// all rows where each is a group of its own.
    pub(super) fn couple(self, x: &Tensor, noise: Tensor, per_group: usize, rng: &mut FlowRng) -> Result<Tensor> {
        self.check()?;
        let Pairing::MinibatchOt { block } = self else { return Ok(noise) };
        let count = x.dim(0)?;
        let pool = if per_group <= 1 { count.max(1) } else { per_group };
        if per_group <= 1 && !rng.share_of(count).is_whole() {
            let reason = "transport over all rows of a batch needs all of them; use independent pairs, or one process";
            return Err(Error::config("coupling", reason));
        }
        let pools: Vec<Range<usize>> = (0..count).step_by(pool).map(|start| start..start + pool).collect();
        let partners = partners(&Points::of(x)?, &Points::of(&noise)?, &pools, block, rng)?;
        Ok(noise.contiguous()?.index_select(&Tensor::from_vec(partners, count, x.device())?, 0)?)
    }
}

/// The rows of a matrix in f64.
pub(super) struct Points {
    values: Vec<f64>,
    dims: usize,
}

impl Points {
    pub(super) fn of(t: &Tensor) -> Result<Self> {
        let (_, dims) = t.dims2()?;
        let values = host::numbers(t)?;
        Ok(Points { values, dims })
    }

    fn row(&self, i: usize) -> &[f64] {
        self.values.get(i * self.dims..(i + 1) * self.dims).unwrap_or_default()
    }
}

/// For every row of `x` the row of `noise` that it is matched with: each pool is cut into random blocks, and blocks are
/// solved in parallel. The randomness is drawn before, so that the number of threads changes nothing.
pub(super) fn partners(
    x: &Points,
    noise: &Points,
    pools: &[Range<usize>],
    block: usize,
    rng: &mut FlowRng,
) -> Result<Vec<u32>> {
    let cut = |number: usize, rng: &mut FlowRng| {
        let pool = &pools[number];
        let order: Vec<usize> = rng.permutation(pool.len()).into_iter().map(|i| pool.start + i).collect();
        Ok::<_, Error>(order.chunks(block.max(1)).map(<[usize]>::to_vec).collect::<Vec<_>>())
    };
    let blocks = rng.per_row(pools.len(), cut)?.concat();
    let solved: Vec<Vec<usize>> = blocks.par_iter().map(|rows| matched(x, noise, rows)).collect::<Result<_>>()?;
    let mut partners = vec![0; blocks.iter().map(Vec::len).sum()];
    for (rows, matched) in blocks.iter().zip(&solved) {
        for (&row, &partner) in rows.iter().zip(matched) {
            if let Some(slot) = partners.get_mut(row) {
                *slot = partner as u32;
            }
        }
    }
    Ok(partners)
}

/// The rows of `noise` among `rows` that go with those of `x`, in the order of `rows`, at the least total squared
/// distance.
fn matched(x: &Points, noise: &Points, rows: &[usize]) -> Result<Vec<usize>> {
    let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    let costs: Vec<f64> =
        rows.iter().flat_map(|&i| rows.iter().map(move |&j| square(x.row(i), noise.row(j)))).collect();
    let assignment = transport::assign(&costs, rows.len())?;
    Ok(assignment.columns.iter().filter_map(|&column| rows.get(column as usize).copied()).collect())
}
