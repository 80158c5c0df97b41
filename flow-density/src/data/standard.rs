//! From data to what models see, and back.

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::Place;
use crate::{Error, Result};

/// Mean and deviation of every column; models see `(x - mean)/std`.
///
/// Centring and scaling are done in f64, so that a column far from zero keeps its digits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standard {
    /// The mean of each column.
    pub mean: Vec<f64>,
    /// The standard deviation of each column.
    pub std: Vec<f64>,
}

impl Standard {
    /// The means and deviations of rows, which lie one after the other in `values`.
    ///
    /// # Errors
    /// [`Error::Table`] naming the first column that holds one and the same number, for which there is no scale.
    pub fn of(values: &[f32], columns: usize) -> Result<Self> {
        let columns = columns.max(1);
        let rows = (values.len() / columns) as f64;
        let column = |c: usize| values.iter().skip(c).step_by(columns).map(|&v| f64::from(v));
        let mean: Vec<f64> = (0..columns).map(|c| column(c).sum::<f64>() / rows).collect();
        let spread = |c: usize| (column(c).map(|v| (v - mean[c]).powi(2)).sum::<f64>() / rows).sqrt();
        let std: Vec<f64> = (0..columns).map(spread).collect();
        let largest = |c: usize| column(c).fold(0.0, |most, v| v.abs().max(most));
        match std.iter().enumerate().position(|(c, &s)| s.is_nan() || s <= 1e-9 * largest(c)) {
            None => Ok(Standard { mean, std }),
            Some(c) => Err(Error::Table {
                table: "table".into(),
                place: Place::Column(c),
                found: format!("one and the same number, {}, which has no density", mean[c]),
                expected: "numbers that differ".into(),
            }),
        }
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.mean.len()
    }

    /// `Σ ln std`: what to add to nats of standardised data for nats of the data.
    pub fn log_scale(&self) -> f64 {
        self.std.iter().map(|s| s.ln()).sum()
    }

    /// Rows of the data as the model sees them, `(B, D)` in f32.
    ///
    /// # Errors
    /// A number of values that makes no whole rows.
    pub fn apply(&self, values: &[f32], device: &Device) -> Result<Tensor> {
        let columns = self.columns();
        let one = |(i, &v): (usize, &f32)| ((f64::from(v) - self.mean[i % columns]) / self.std[i % columns]) as f32;
        let seen: Vec<f32> = values.iter().enumerate().map(one).collect();
        Ok(Tensor::from_vec(seen, (values.len() / columns.max(1), columns), device)?)
    }

    /// The inverse of [`Standard::apply`], row after row.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn undo(&self, t: &Tensor) -> Result<Vec<f32>> {
        let columns = self.columns();
        let values: Vec<f32> = t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let one = |(i, &v): (usize, &f32)| (f64::from(v) * self.std[i % columns] + self.mean[i % columns]) as f32;
        Ok(values.iter().enumerate().map(one).collect())
    }
}
