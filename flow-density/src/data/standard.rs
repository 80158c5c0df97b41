//! From data to what models see, and back.

use candle_core::{DType, Device, Tensor};
use flow_core::FlowRng;
use serde::{Deserialize, Serialize};

use super::lattice::Lattice;
use crate::error::Place;
use crate::{Error, Result};

/// Where the mean of a column is at most this many deviations from zero, f32 holds its numbers to the digits that matter.
const NEAR: f64 = 100.0;
/// Digits of a deviation that f32 has.
const DIGITS: f64 = 7.0;

/// Mean and deviation of every column; models see `(x - mean)/std`.
///
/// Centring and scaling are done in f64 and only their result is rounded to f32, so that a column far from zero keeps its
/// digits.
///
/// # Columns of steps
/// Numbers that lie on a [`Lattice`] have no density: a flow makes spikes of them, and the likelihood has no bound. A
/// column with a lattice is spread evenly over its steps, `y = x + h·(u - ½)` with `u` uniform in `[0, 1)`, wherever
/// noise is given (uniform dequantization: Theis et al. 2016, arXiv 1511.01844, section 3.1): the model is the density of
/// `y`. On the way back it is rounded to the lattice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standard {
    /// The mean of each column.
    pub mean: Vec<f64>,
    /// The standard deviation of each column.
    pub std: Vec<f64>,
    /// The lattice of each column that is spread over its steps; empty if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lattices: Vec<Option<Lattice>>,
}

impl Standard {
    /// The means and deviations of rows, which lie one after the other in `values`.
    ///
    /// # Errors
    /// [`Error::Table`] naming the first column that holds one and the same number, for which there is no scale, or whose
    /// deviation is no number of 64 bits.
    pub fn of<T: Copy + Into<f64>>(values: &[T], columns: usize) -> Result<Self> {
        let columns = columns.max(1);
        let rows = (values.len() / columns) as f64;
        let column = |c: usize| values.iter().skip(c).step_by(columns).map(|&v| v.into());
        let mean: Vec<f64> = (0..columns).map(|c| column(c).sum::<f64>() / rows).collect();
        let spread = |c: usize| (column(c).map(|v| (v - mean[c]).powi(2)).sum::<f64>() / rows).sqrt();
        let std: Vec<f64> = (0..columns).map(spread).collect();
        for (c, std) in std.iter().enumerate() {
            let (low, high) = column(c).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (v.min(l), v.max(h)));
            let (found, expected) = match low < high {
                true if std.is_normal() => continue,
                true => (
                    format!("numbers from {low} to {high}, whose deviation cannot be computed"),
                    "numbers of another unit, neither that large nor that small",
                ),
                false => (
                    format!("one and the same number, {low}, which has no density"),
                    "numbers that differ: leave the column out with --columns",
                ),
            };
            let (table, place) = ("table".into(), Place::Column(c + 1));
            return Err(Error::Table { table, place, found, expected: expected.into() });
        }
        Ok(Standard { mean, std, lattices: Vec::new() })
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.mean.len()
    }

    /// `Σ ln std`: what to add to nats of standardised data for nats of the data.
    pub fn log_scale(&self) -> f64 {
        self.std.iter().map(|s| s.ln()).sum()
    }

    /// Whether some column is spread over steps.
    pub fn is_dequantized(&self) -> bool {
        self.lattices.iter().any(Option::is_some)
    }

    /// `Σ ln h` over the columns that are spread over steps of `h`. The probability of a row of such numbers is the
    /// integral of the density over the cell of its steps, `ln P(x) = ln p̄ + Σ ln h` with the mean density `p̄`.
    pub fn log_steps(&self) -> f64 {
        self.lattices.iter().flatten().map(|lattice| lattice.step.ln()).sum()
    }

    fn lattice(&self, column: usize) -> Option<&Lattice> {
        self.lattices.get(column).and_then(Option::as_ref)
    }

    /// Rows of the data as the model sees them, `(B, D)` in f32.
    ///
    /// # Errors
    /// A number of values that makes no whole rows.
    pub fn apply<T: Copy + Into<f64>>(&self, values: &[T], device: &Device) -> Result<Tensor> {
        self.tensor(values.iter().enumerate().map(|(i, &v)| self.seen(i % self.columns(), v.into())), device)
    }

    /// As [`Standard::apply`], with columns of steps spread over them by noise; without such columns none is drawn.
    ///
    /// # Errors
    /// As [`Standard::apply`].
    pub fn apply_spread<T: Copy + Into<f64>>(
        &self,
        values: &[T],
        rng: &mut FlowRng,
        device: &Device,
    ) -> Result<Tensor> {
        if !self.is_dequantized() {
            return self.apply(values, device);
        }
        let columns = self.columns().max(1);
        let rows: Vec<&[T]> = values.chunks(columns).collect();
        let spread = |row: usize, rng: &mut FlowRng| {
            let one = |(column, &v): (usize, &T)| {
                let spread = self.lattice(column).map_or(0.0, |lattice| lattice.step * (rng.next_uniform() - 0.5));
                self.seen(column, v.into() + spread)
            };
            Ok::<_, Error>(rows[row].iter().enumerate().map(one).collect::<Vec<f32>>())
        };
        let seen = rng.per_row(rows.len(), spread)?.concat();
        self.tensor(seen.into_iter(), device)
    }

    fn seen(&self, column: usize, value: f64) -> f32 {
        ((value - self.mean[column]) / self.std[column]) as f32
    }

    fn tensor(&self, seen: impl Iterator<Item = f32>, device: &Device) -> Result<Tensor> {
        let (seen, columns) = (seen.collect::<Vec<f32>>(), self.columns());
        let rows = seen.len() / columns.max(1);
        Ok(Tensor::from_vec(seen, (rows, columns), device)?)
    }

    /// The inverse of [`Standard::apply`], row after row; columns of steps are rounded to them.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn undo(&self, t: &Tensor) -> Result<Vec<f64>> {
        let columns = self.columns();
        let values: Vec<f32> = t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let one = |(i, &v): (usize, &f32)| {
            let value = f64::from(v) * self.std[i % columns] + self.mean[i % columns];
            self.lattice(i % columns).map_or(value, |lattice| lattice.nearest(value))
        };
        Ok(values.iter().enumerate().map(one).collect())
    }

    /// A number of a column as text, with the digits that models of single precision can tell apart: the shortest decimals
    /// of f32 where those are enough, and as many places as the deviation asks for in a column that lies far from zero.
    pub fn text(&self, column: usize, value: f64) -> String {
        let (mean, std) = (self.mean[column % self.columns()], self.std[column % self.columns()]);
        if mean.abs() <= NEAR * std || !value.is_finite() {
            return (value as f32).to_string();
        }
        let places = (DIGITS - std.log10().floor()).clamp(0.0, 300.0) as usize;
        let text = format!("{value:.places$}");
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
            false => text,
        }
    }
}
