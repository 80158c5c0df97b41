//! What a density is learned from: a toy of the plane, or a table that is split and standardised.
//!
//! ```
//! use flow_density::data::{Data, Table};
//!
//! # fn main() -> flow_density::Result<()> {
//! let rows: Vec<f32> = (0..100).flat_map(|i| [i as f32, 3.0 - 2.0 * i as f32]).collect();
//! let data = Data::from_table(&Table::new(2, rows)?, 1)?;
//! assert_eq!((data.train().len(), data.validation().len(), data.columns()), (160, 20, 2));
//! # Ok(())
//! # }
//! ```

mod standard;
mod table;
mod toys;

use std::path::PathBuf;

use flow_core::FlowRng;

use crate::error::Place;
use crate::{Error, Result};

pub use standard::Standard;
pub use table::Table;
pub use toys::Toy;

/// Held-out points of a toy.
const VALIDATION: usize = 2000;
/// Points from which a toy's scale is measured.
const MEASURED: usize = 20_000;
/// Rows of a table, at least: a tenth of them must be a row.
const FEWEST_ROWS: usize = 10;

/// Where data come from, as a user named it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Source {
    /// Points are drawn as they are needed.
    Toy(Toy),
    /// All rows of a file.
    Table(PathBuf),
}

impl Source {
    /// The source that a name means: a toy, or a path.
    ///
    /// # Errors
    /// [`Error::UnknownData`] for a name that is neither that of a toy nor has an ending, and is no file.
    pub fn named(name: &str) -> Result<Self> {
        if let Some(toy) = Toy::named(name) {
            return Ok(Source::Toy(toy));
        }
        let path = PathBuf::from(name);
        if path.extension().is_none() && !path.exists() {
            let expected = format!("a file (.npy, .csv) or one of {}", Toy::ALL.map(Toy::name).join(", "));
            return Err(Error::UnknownData { name: name.into(), expected });
        }
        Ok(Source::Table(path))
    }

    /// Samples of a toy, or the rows of a file, split by `seed` as [`Data::from_table`] does.
    ///
    /// # Errors
    /// As [`Table::open`] and [`Data::from_table`].
    pub fn open(&self, seed: u64) -> Result<Data> {
        match self {
            Source::Toy(toy) => Ok(Data::from_toy(*toy)),
            Source::Table(path) => Data::from_table(&Table::open(path)?, seed),
        }
    }
}

/// Data in their own units, and the scale of the models.
///
/// Rows lie one after the other.
#[derive(Debug, Clone)]
pub struct Data {
    standard: Standard,
    train: Vec<f32>,
    validation: Vec<f32>,
    test: Vec<f32>,
    toy: Option<Toy>,
}

impl Data {
    /// A toy: training points are drawn as they are needed, 2000 are set aside for validation.
    pub fn from_toy(toy: Toy) -> Self {
        let drawn = |purpose: &str, n| toy.rows(n, &mut FlowRng::named(0, purpose));
        let measured = drawn("scale of a toy", MEASURED);
        let standard = Standard::of(&measured, 2).unwrap_or(Standard { mean: vec![0.0; 2], std: vec![1.0; 2] });
        let validation = drawn("validation of a toy", VALIDATION);
        Data { standard, train: Vec::new(), validation, test: Vec::new(), toy: Some(toy) }
    }

    /// The rows of a table, shuffled by `seed`: eight tenths for training, one for validation and one as test set. They
    /// are standardised by the training rows.
    ///
    /// # Errors
    /// [`Error::Table`] for fewer than ten rows, or a column that holds one and the same number.
    pub fn from_table(table: &Table, seed: u64) -> Result<Self> {
        let of_table = |place, found, expected: &str| Error::Table {
            table: table.name().into(),
            place,
            found,
            expected: expected.into(),
        };
        if table.rows() < FEWEST_ROWS {
            let expected = format!("at least {FEWEST_ROWS} to split");
            return Err(of_table(Place::Whole, format!("{} rows", table.rows()), &expected));
        }
        let order = FlowRng::named(seed, "split").permutation(table.rows());
        let held_out = table.rows() / 10;
        let part = |rows: &[usize]| -> Vec<f32> { rows.iter().flat_map(|&r| table.row(r)).copied().collect() };
        let (test, rest) = order.split_at(held_out);
        let (validation, train) = rest.split_at(held_out);
        let train = part(train);
        let standard = Standard::of(&train, table.columns()).map_err(|error| match error {
            Error::Table { place, found, expected, .. } => of_table(place, found, &expected),
            other => other,
        })?;
        Ok(Data { standard, train, validation: part(validation), test: part(test), toy: None })
    }

    /// Numbers of a row.
    pub fn columns(&self) -> usize {
        self.standard.columns()
    }

    /// From data to what models see, and back.
    pub fn standard(&self) -> &Standard {
        &self.standard
    }

    /// The training rows of a table; empty for a toy, which is drawn from.
    pub fn train(&self) -> &[f32] {
        &self.train
    }

    /// Training rows of a table, none of a toy.
    pub fn train_rows(&self) -> usize {
        self.train.len() / self.columns()
    }

    /// Some of the training rows, one after the other; indices beyond the last one are left out.
    pub fn pick(&self, indices: &[usize]) -> Vec<f32> {
        let columns = self.columns();
        let row = |&i: &usize| self.train.get(i * columns..(i + 1) * columns).unwrap_or_default();
        indices.iter().flat_map(row).copied().collect()
    }

    /// Held-out rows to decide by.
    pub fn validation(&self) -> &[f32] {
        &self.validation
    }

    /// The toy that points are drawn from, if it is one.
    pub fn toy(&self) -> Option<Toy> {
        self.toy
    }

    /// `most` held-out rows that no decision was made by: fresh ones of a toy, drawn from `seed`, else the first rows
    /// of the test set, all of them if there are fewer.
    pub fn test(&self, most: usize, seed: u64) -> Vec<f32> {
        match self.toy {
            Some(toy) => toy.rows(most, &mut FlowRng::named(seed, "test of a toy")),
            None => self.test[..self.test.len().min(most.saturating_mul(self.columns()))].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_table_is_split_without_overlap_and_standardised_by_its_training_rows() {
        let values: Vec<f32> = (0..100).flat_map(|i| [i as f32, 3.0 - 2.0 * i as f32]).collect();
        let data = Data::from_table(&Table::new(2, values).unwrap(), 1).unwrap();
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

    /// A deviation of one around ten million: in f32 arithmetic the centred numbers would keep one digit.
    #[test]
    fn columns_far_from_zero_keep_the_digits_that_they_were_given() {
        let values: Vec<f32> = (0..100).map(|i| 1e7 + (i % 4) as f32).collect();
        let standard = Standard::of(&values, 1).unwrap();
        assert_eq!((standard.mean[0], standard.std[0]), (1e7 + 1.5, 1.25_f64.sqrt()));
        let seen = standard.apply(&values[..4], &Device::Cpu).unwrap();
        let expected = [-1.5, -0.5, 0.5, 1.5].map(|v: f64| (v / 1.25_f64.sqrt()) as f32);
        assert_eq!(seen.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
        assert_eq!(standard.undo(&seen).unwrap(), values[..4]);
    }

    #[test]
    fn what_has_no_density_cannot_be_split_or_is_no_source() {
        let values: Vec<f32> = (0..40).flat_map(|i| [i as f32, 1.0]).collect();
        let error = Data::from_table(&Table::new(2, values).unwrap(), 1).unwrap_err().to_string();
        assert!(error.starts_with("table: column 1: one and the same number, 1"), "{error}");
        let error = Data::from_table(&Table::new(1, vec![1.0; 3]).unwrap(), 1).unwrap_err().to_string();
        assert!(error.contains("3 rows, expected at least 10"), "{error}");
        assert!(Source::named("9gaussians").unwrap_err().to_string().contains("8gaussians, checkerboard"));
        assert!(matches!(Source::named("2Spirals"), Ok(Source::Toy(Toy::TwoSpirals))));
    }
}
