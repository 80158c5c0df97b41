//! What a solver moves: anything that can be scaled, added and measured.

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
