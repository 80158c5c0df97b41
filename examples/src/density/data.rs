//! What a density is learned from: a toy of the plane, or a table that is split and standardised.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;
use flow_core::FlowRng;
use serde::{Deserialize, Serialize};

use super::table::Table;
use super::toys::Toy;

/// Held-out points of a toy.
const VALIDATION: usize = 2000;
/// Points from which a toy's scale is measured.
const MEASURED: usize = 20_000;

/// Where data come from, as the user named it.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Points are drawn as they are needed.
    Toy(Toy),
    /// All rows of a file.
    Table(PathBuf),
}

impl Source {
    /// The source that a name on the command line means: a toy, or a path.
    pub(super) fn named(name: &str) -> Result<Self> {
        if let Ok(toy) = Toy::from_str(name, true) {
            return Ok(Source::Toy(toy));
        }
        let path = PathBuf::from(name);
        if path.extension().is_none() && !path.exists() {
            let toys: Vec<String> = Toy::value_variants().iter().map(|toy| toy.name()).collect();
            bail!("--data {name}: expected a file (.npy, .csv) or one of {}", toys.join(", "));
        }
        Ok(Source::Table(path))
    }

    /// Samples of a toy, or the rows of a file split by `seed` into training, validation and test: eight tenths, one
    /// and one.
    pub(super) fn open(&self, seed: u64) -> Result<Data> {
        match self {
            Source::Toy(toy) => Ok(Data::of_toy(*toy)),
            Source::Table(path) => {
                let table = Table::open(path)?;
                Data::of_table(&table, seed).with_context(|| path.display().to_string())
            }
        }
    }
}

/// Mean and deviation of every column; models see `(x - mean)/std`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Standard {
    pub(super) mean: Vec<f64>,
    pub(super) std: Vec<f64>,
}

impl Standard {
    fn of(values: &[f32], columns: usize) -> Result<Self> {
        let rows = (values.len() / columns) as f64;
        let column = |c: usize| values.iter().skip(c).step_by(columns).map(|&v| f64::from(v));
        let mean: Vec<f64> = (0..columns).map(|c| column(c).sum::<f64>() / rows).collect();
        let spread = |c: usize| (column(c).map(|v| (v - mean[c]).powi(2)).sum::<f64>() / rows).sqrt();
        let std: Vec<f64> = (0..columns).map(spread).collect();
        let largest = |c: usize| column(c).fold(0.0, |most, v| v.abs().max(most));
        match std.iter().enumerate().position(|(c, &s)| s <= 1e-9 * largest(c)) {
            Some(c) => bail!("column {c} holds one and the same number, which has no density"),
            None => Ok(Standard { mean, std }),
        }
    }

    /// `Σ ln std`: what to add to nats of standardised data for nats of the data.
    pub(super) fn log_scale(&self) -> f64 {
        self.std.iter().map(|s| s.ln()).sum()
    }

    /// Rows of the data as the model sees them.
    pub(super) fn apply(&self, values: &[f32], device: &Device) -> Result<Tensor> {
        let columns = self.mean.len();
        let one = |(i, &v): (usize, &f32)| ((f64::from(v) - self.mean[i % columns]) / self.std[i % columns]) as f32;
        let seen: Vec<f32> = values.iter().enumerate().map(one).collect();
        Ok(Tensor::from_vec(seen, (values.len() / columns, columns), device)?)
    }

    /// The inverse of [`Standard::apply`].
    pub(super) fn undo(&self, t: &Tensor) -> Result<Vec<f32>> {
        let columns = self.mean.len();
        let values: Vec<f32> = t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let one = |(i, &v): (usize, &f32)| (f64::from(v) * self.std[i % columns] + self.mean[i % columns]) as f32;
        Ok(values.iter().enumerate().map(one).collect())
    }
}

/// Data in their own units, and the scale of the models.
pub(super) struct Data {
    pub(super) columns: usize,
    pub(super) standard: Standard,
    /// Empty for a toy, which is drawn from.
    pub(super) train: Vec<f32>,
    pub(super) validation: Vec<f32>,
    /// Empty for a toy.
    test: Vec<f32>,
    pub(super) toy: Option<Toy>,
}

impl Data {
    fn of_toy(toy: Toy) -> Self {
        let drawn = |purpose: &str, n| flat(&toy.sample(n, &mut FlowRng::named(0, purpose)));
        let measured = drawn("scale of a toy", MEASURED);
        let standard = Standard::of(&measured, 2).unwrap_or(Standard { mean: vec![0.0; 2], std: vec![1.0; 2] });
        let validation = drawn("validation of a toy", VALIDATION);
        Data { columns: 2, standard, train: Vec::new(), validation, test: Vec::new(), toy: Some(toy) }
    }

    fn of_table(table: &Table, seed: u64) -> Result<Self> {
        let order = FlowRng::named(seed, "split").permutation(table.rows());
        let held_out = (table.rows() / 10).max(1);
        let part = |rows: &[usize]| -> Vec<f32> {
            rows.iter().flat_map(|&r| table.values[r * table.columns..(r + 1) * table.columns].to_vec()).collect()
        };
        let (test, rest) = order.split_at(held_out);
        let (validation, train) = rest.split_at(held_out);
        let train = part(train);
        let standard = Standard::of(&train, table.columns)?;
        let (validation, test) = (part(validation), part(test));
        Ok(Data { columns: table.columns, standard, train, validation, test, toy: None })
    }

    /// `most` held-out points that took no part in training; all of them for a table with fewer.
    pub(super) fn test(&self, most: usize, seed: u64) -> Vec<f32> {
        match self.toy {
            Some(toy) => flat(&toy.sample(most, &mut FlowRng::named(seed, "test of a toy"))),
            None => self.test[..self.test.len().min(most * self.columns)].to_vec(),
        }
    }
}

/// Points of the plane, one after the other.
pub(super) fn flat(points: &[[f64; 2]]) -> Vec<f32> {
    points.iter().flatten().map(|&v| v as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_split_without_overlap_and_standardised_by_its_training_rows() {
        let values: Vec<f32> = (0..100).flat_map(|i| [i as f32, 3.0 - 2.0 * i as f32]).collect();
        let data = Data::of_table(&Table { columns: 2, values }, 1).unwrap();
        let mut all: Vec<f32> = [&data.train, &data.validation, &data.test(1000, 0)].map(|v| v.as_slice()).concat();
        assert_eq!((data.train.len(), data.validation.len(), all.len()), (160, 20, 200));
        all = all.into_iter().step_by(2).collect();
        all.sort_by(f32::total_cmp);
        assert!(all.iter().enumerate().all(|(i, &v)| v == i as f32));
        let seen = data.standard.apply(&data.train, &Device::Cpu).unwrap();
        let mean = seen.mean(0).unwrap().to_vec1::<f32>().unwrap();
        assert!(mean.iter().all(|m| m.abs() < 1e-6), "{mean:?}");
        assert!((seen.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap() - 1.0).abs() < 1e-5);
        let back = data.standard.undo(&seen).unwrap();
        assert!(back.iter().zip(&data.train).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn a_constant_column_has_no_density_and_an_unknown_name_is_no_source() {
        let values: Vec<f32> = (0..40).flat_map(|i| [i as f32, 1.0]).collect();
        let error = Data::of_table(&Table { columns: 2, values }, 1).err().unwrap().to_string();
        assert!(error.contains("column 1"), "{error}");
        assert!(Source::named("9gaussians").unwrap_err().to_string().contains("8gaussians, checkerboard"));
    }
}
