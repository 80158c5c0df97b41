//! What a solver moves: anything that can be scaled, added and measured.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::Result;

/// How large the local error of a step may be: `atol + rtol·|y|` for each entry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// Relative part.
    pub rtol: f64,
    /// Absolute part.
    pub atol: f64,
}

/// A state of an ordinary differential equation.
pub trait State: Clone {
    /// `self + Σ c·k` in one pass.
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self>;

    /// `√mean((error / (atol + rtol·max(|before|, |after|)))²)`; of a tuple of tensors the largest of its parts.
    ///
    /// Not finite if any entry is not.
    fn error_norm(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<f64>;

    /// The row with the largest error, for messages, where the state has rows.
    fn worst(_error: &Self, _before: &Self, _after: &Self, _tolerance: Tolerance) -> Result<Option<usize>> {
        Ok(None)
    }
}

/// A state whose rows (samples) can each have a time and a step of their own.
pub trait RowState: State {
    /// Number of rows.
    fn rows(&self) -> usize;

    /// The rows at `index`, in that order.
    fn select(&self, index: &[usize]) -> Result<Self>;

    /// A copy in which the rows at `index` are those of `rows`.
    fn replace(&self, index: &[usize], rows: &Self) -> Result<Self>;

    /// As [`State::add_scaled`], with one more factor for each row: row `i` gets `Σ h_i·c·k_i`.
    fn add_scaled_rows(&self, h: &[f64], terms: &[(f64, &Self)]) -> Result<Self>;

    /// As [`State::error_norm`], for each row by itself.
    fn error_norm_rows(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<Vec<f64>>;
}

impl State for Tensor {
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self> {
        let mut sum = self.clone();
        for (c, k) in terms {
            sum = (sum + k.affine(*c, 0.0)?)?;
        }
        Ok(sum)
    }

    fn error_norm(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<f64> {
        let squares = scaled_squares(error, before, after, tolerance)?;
        Ok(squares.flatten_all()?.mean(0)?.to_scalar::<f64>()?.sqrt())
    }

    fn worst(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<Option<usize>> {
        let squares = scaled_squares(error, before, after, tolerance)?;
        if squares.rank() == 0 {
            return Ok(None);
        }
        let rows: Vec<f64> = squares.flatten_from(0)?.reshape((squares.dim(0)?, ()))?.mean(1)?.to_vec1()?;
        let key = |v: f64| if v.is_nan() { f64::INFINITY } else { v };
        Ok((0..rows.len()).max_by(|&a, &b| key(rows[a]).total_cmp(&key(rows[b]))))
    }
}

/// `(error / (atol + rtol·max(|before|, |after|)))²` of every entry, in f64.
fn scaled_squares(error: &Tensor, before: &Tensor, after: &Tensor, tolerance: Tolerance) -> Result<Tensor> {
    let wide = |t: &Tensor| t.detach().to_dtype(DType::F64);
    let scale = wide(before)?.abs()?.maximum(&wide(after)?.abs()?)?.affine(tolerance.rtol, tolerance.atol)?;
    Ok((wide(error)? / scale)?.sqr()?)
}
