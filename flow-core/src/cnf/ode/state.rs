//! What a solver moves: anything that can be scaled, added and measured.

use serde::{Deserialize, Serialize};

use crate::Result;

/// How large the local error of a step may be: `atol + rtol·|y|` for each entry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Tolerance {
    /// Relative part.
    pub rtol: f64,
    /// Absolute part.
    pub atol: f64,
}

impl Tolerance {
    /// A relative and an absolute part.
    pub const fn new(rtol: f64, atol: f64) -> Self {
        Tolerance { rtol, atol }
    }
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

/// The square of an entry's error relative to its tolerance.
#[inline]
pub(super) fn scaled_square(error: f64, before: f64, after: f64, tolerance: Tolerance) -> f64 {
    let scaled = error / (tolerance.atol + tolerance.rtol * before.abs().max(after.abs()));
    // `max` drops what is not a number; the sum must not.
    scaled * scaled + 0.0 * (before + after)
}

fn root_mean_square(squares: impl Iterator<Item = f64>, count: usize) -> f64 {
    (squares.sum::<f64>() / count.max(1) as f64).sqrt()
}

fn slice_norm(error: &[f64], before: &[f64], after: &[f64], tolerance: Tolerance) -> f64 {
    let square = |((e, b), a): ((&f64, &f64), &f64)| scaled_square(*e, *b, *a, tolerance);
    root_mean_square(error.iter().zip(before).zip(after).map(square), error.len())
}

impl State for Vec<f64> {
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self> {
        let mut sum = self.clone();
        for (c, k) in terms {
            sum.iter_mut().zip(*k).for_each(|(s, k)| *s += c * k);
        }
        Ok(sum)
    }

    fn error_norm(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<f64> {
        Ok(slice_norm(error, before, after, tolerance))
    }
}

impl<const N: usize> State for [f64; N] {
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self> {
        let mut sum = *self;
        for (c, k) in terms {
            sum.iter_mut().zip(*k).for_each(|(s, k)| *s += c * k);
        }
        Ok(sum)
    }

    fn error_norm(error: &Self, before: &Self, after: &Self, tolerance: Tolerance) -> Result<f64> {
        Ok(slice_norm(error, before, after, tolerance))
    }
}
