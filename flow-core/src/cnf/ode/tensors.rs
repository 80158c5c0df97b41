//! Tensors, and tuples of them, as states.

use candle_core::{CpuStorage, DType, Storage, Tensor};

use super::state::scaled_square;
use super::{RowState, State, Tolerance};
use crate::kernels::{Real, accepts, contiguous, refuse_if_off};
use crate::numerics::host;
use crate::{Error, Result};

/// Several tensors with the same rows, of which only the first `counted` decide on steps: pure integrals, which feed back
/// into nothing, need not (the seminorm of Kidger et al. 2021, arXiv 2009.09457).
#[derive(Debug, Clone)]
pub struct Parts {
    /// The tensors.
    pub y: Vec<Tensor>,
    /// How many of them the norm looks at.
    pub counted: usize,
}

/// `y + Σ c·k` in one pass over memory, where no graph is asked for and all is contiguous on the CPU.
fn fused(y: &Tensor, terms: &[(f64, &Tensor)]) -> Result<Option<Tensor>> {
    let plain = |t: &Tensor| !t.track_op() && accepts(t) && t.is_contiguous() && t.dtype() == y.dtype();
    if !plain(y) || !terms.iter().all(|(_, k)| plain(k) && k.dims() == y.dims()) {
        return Ok(None);
    }
    Ok(match y.dtype() {
        DType::F32 => Some(combine::<f32>(y, terms)?),
        DType::F64 => Some(combine::<f64>(y, terms)?),
        _ => None,
    })
}

fn combine<T: Real>(y: &Tensor, terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    refuse_if_off("combination of slopes")?;
    let mut sum = copied::<T>(y)?;
    for (c, k) in terms {
        let (storage, layout) = k.storage_and_layout();
        let Storage::Cpu(cpu) = &*storage else { continue };
        let (c, k) = (T::from_f64(*c), contiguous(cpu.as_slice::<T>()?, layout)?);
        sum.iter_mut().zip(k).for_each(|(s, &k)| *s += c * k);
    }
    Ok(Tensor::from_vec(sum, y.shape(), y.device())?)
}

fn copied<T: Real>(t: &Tensor) -> Result<Vec<T>> {
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => Ok(contiguous(cpu.as_slice::<T>()?, layout)?.to_vec()),
        _ => Err(Error::config("state", "is not on the CPU")),
    }
}

/// The squares of all entries' errors, row by row: `Σ` of each row, and the number of entries in one.
fn row_squares(error: &Tensor, before: &Tensor, after: &Tensor, tolerance: Tolerance) -> Result<(Vec<f64>, usize)> {
    let wide = |t: &Tensor| -> Result<Vec<f64>> {
        let t = t.detach().contiguous()?;
        if !accepts(&t) {
            return host::numbers(&t);
        }
        let (storage, layout) = t.storage_and_layout();
        if let Storage::Cpu(CpuStorage::F32(data)) = &*storage {
            return Ok(contiguous(data, layout)?.iter().map(|&v| f64::from(v)).collect());
        }
        drop(storage);
        host::numbers(&t)
    };
    let rows = if error.rank() == 0 { 1 } else { error.dim(0)? };
    let each = error.elem_count() / rows.max(1);
    let (e, b, a) = (wide(error)?, wide(before)?, wide(after)?);
    let mut sums = vec![0.0; rows];
    for (i, ((e, b), a)) in e.iter().zip(&b).zip(&a).enumerate() {
        if let Some(sum) = sums.get_mut(i / each.max(1)) {
            *sum += scaled_square(*e, *b, *a, tolerance);
        }
    }
    Ok((sums, each))
}

impl State for Tensor {
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self> {
        if let Some(sum) = fused(self, terms)? {
            return Ok(sum);
        }
        let mut sum = self.clone();
        for (c, k) in terms {
            sum = (sum + k.affine(*c, 0.0)?)?;
        }
        Ok(sum)
    }

    fn error_norm(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<f64> {
        let (sums, each) = row_squares(error, before, after, tolerance)?;
        Ok((sums.iter().sum::<f64>() / (sums.len() * each).max(1) as f64).sqrt())
    }

    fn worst(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<Option<usize>> {
        Ok(largest(&Self::error_norm_rows(error, before, after, tolerance)?))
    }
}

/// The place of the largest entry; what is not a number is largest.
fn largest(values: &[f64]) -> Option<usize> {
    let key = |i: usize| if values[i].is_nan() { f64::INFINITY } else { values[i] };
    (0..values.len()).max_by(|&a, &b| key(a).total_cmp(&key(b)))
}

impl RowState for Tensor {
    fn rows(&self) -> usize {
        self.dims().first().copied().unwrap_or(0)
    }

    fn select(&self, index: &[usize]) -> Result<Self> {
        let index: Vec<u32> = index.iter().map(|&i| i as u32).collect();
        Ok(self.contiguous()?.index_select(&Tensor::new(index, self.device())?, 0)?)
    }

    fn replace(&self, index: &[usize], rows: &Self) -> Result<Self> {
        // Both one under the other, then every row from where its newest version is.
        let count = self.rows();
        let mut from: Vec<u32> = (0..count as u32).collect();
        for (k, &i) in index.iter().enumerate() {
            match from.get_mut(i) {
                Some(slot) => *slot = (count + k) as u32,
                None => return Err(Error::config("state", format!("has {count} rows, row {i} is to be replaced"))),
            }
        }
        Ok(Tensor::cat(&[self, rows], 0)?.index_select(&Tensor::new(from, self.device())?, 0)?)
    }

    fn add_scaled_rows(&self, h: &[f64], terms: &[(f64, &Self)]) -> Result<Self> {
        let mut dims = vec![1; self.rank()];
        if let Some(first) = dims.first_mut() {
            *first = h.len();
        }
        let mut sum = self.clone();
        for (c, k) in terms {
            let factor: Vec<f64> = h.iter().map(|h| h * c).collect();
            sum = (sum + k.broadcast_mul(&host::tensor_like(&factor, dims.clone(), k)?)?)?;
        }
        Ok(sum)
    }

    fn error_norm_rows(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<Vec<f64>> {
        let (sums, each) = row_squares(error, before, after, tolerance)?;
        Ok(sums.into_iter().map(|s| (s / each.max(1) as f64).sqrt()).collect())
    }
}

/// The larger of two norms; what is not a number wins.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn combined(y: &[Tensor], terms: &[(f64, &Vec<Tensor>)]) -> Result<Vec<Tensor>> {
    let one = |(i, part): (usize, &Tensor)| {
        let terms = terms.iter().map(|(c, k)| Ok((*c, k.get(i).ok_or_else(|| mismatch(y.len(), k.len()))?)));
        part.add_scaled(&terms.collect::<Result<Vec<_>>>()?)
    };
    y.iter().enumerate().map(one).collect()
}

fn mismatch(expected: usize, found: usize) -> Error {
    Error::config("state", format!("is {expected} tensors, a slope has {found}"))
}

fn largest_norm(error: &[Tensor], before: &[Tensor], after: &[Tensor], tolerance: Tolerance) -> Result<f64> {
    let mut norm = 0.0;
    for ((e, b), a) in error.iter().zip(before).zip(after) {
        norm = larger(Tensor::error_norm(e, b, a, tolerance)?, norm);
    }
    Ok(norm)
}

fn largest_row_norms(error: &[Tensor], before: &[Tensor], after: &[Tensor], tolerance: Tolerance) -> Result<Vec<f64>> {
    let mut norms = vec![0.0; error.first().map_or(0, RowState::rows)];
    for ((e, b), a) in error.iter().zip(before).zip(after) {
        let part = Tensor::error_norm_rows(e, b, a, tolerance)?;
        norms.iter_mut().zip(part).for_each(|(n, p)| *n = larger(p, *n));
    }
    Ok(norms)
}

impl State for Vec<Tensor> {
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self> {
        combined(self, terms)
    }

    fn error_norm(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<f64> {
        largest_norm(error, before, after, tolerance)
    }

    fn worst(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<Option<usize>> {
        Ok(largest(&largest_row_norms(error, before, after, tolerance)?))
    }
}

impl RowState for Vec<Tensor> {
    fn rows(&self) -> usize {
        self.first().map_or(0, RowState::rows)
    }

    fn select(&self, index: &[usize]) -> Result<Self> {
        self.iter().map(|t| RowState::select(t, index)).collect()
    }

    fn replace(&self, index: &[usize], rows: &Self) -> Result<Self> {
        self.iter().zip(rows).map(|(t, rows)| t.replace(index, rows)).collect()
    }

    fn add_scaled_rows(&self, h: &[f64], terms: &[(f64, &Self)]) -> Result<Self> {
        let one = |(i, part): (usize, &Tensor)| {
            let terms = terms.iter().map(|(c, k)| Ok((*c, k.get(i).ok_or_else(|| mismatch(self.len(), k.len()))?)));
            part.add_scaled_rows(h, &terms.collect::<Result<Vec<_>>>()?)
        };
        self.iter().enumerate().map(one).collect()
    }

    fn error_norm_rows(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<Vec<f64>> {
        largest_row_norms(error, before, after, tolerance)
    }
}

impl State for Parts {
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self> {
        let terms: Vec<(f64, &Vec<Tensor>)> = terms.iter().map(|(c, k)| (*c, &k.y)).collect();
        Ok(Parts { y: combined(&self.y, &terms)?, counted: self.counted })
    }

    fn error_norm(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<f64> {
        let first = error.y.get(..error.counted.min(error.y.len())).unwrap_or_default();
        largest_norm(first, &before.y, &after.y, tolerance)
    }
}
