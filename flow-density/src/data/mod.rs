//! What a density is learned from: a toy of the plane, or a table that is split and standardised.
//!
//! ```
//! use flow_density::data::{Data, Table};
//!
//! # fn main() -> flow_density::Result<()> {
//! let rows: Vec<f64> = (0..100).flat_map(|i| [f64::from(i), 3.0 - 2.0 * f64::from(i)]).collect();
//! let data = Data::from_table(&Table::new(2, rows)?, 1)?;
//! assert_eq!((data.train().len(), data.validation().len(), data.columns()), (160, 20, 2));
//! # Ok(())
//! # }
//! ```

mod classes;
mod fault;
mod lattice;
mod numpy;
#[cfg(feature = "parquet")]
mod parquet;
mod raw;
mod reading;
mod source;
mod split;
mod standard;
mod table;
mod text;
mod toys;

use flow_core::FlowRng;
use flow_core::hash::Fnv;
use flow_core::train::Fingerprint;
use lattice::Census;
use rayon::prelude::*;

use crate::error::Place;
use crate::{Error, Result};

pub use classes::Classes;
pub use lattice::Lattice;
pub use reading::{Columns, Header, Missing, Reading};
pub use source::Source;
pub use split::{Rows, Split};
pub use standard::Standard;
pub use table::Table;
pub use toys::Toy;

/// Held-out points of a toy.
const VALIDATION: usize = 2000;
/// Points from which a toy's scale is measured.
const MEASURED: usize = 20_000;
/// Rows of a table, at least: a tenth of them must be a row.
const FEWEST_ROWS: usize = 10;

/// Data in their own units, and the scale of the models.
///
/// Rows lie one after the other.
#[derive(Debug, Clone)]
pub struct Data {
    name: String,
    standard: Standard,
    chosen: Columns,
    train: Rows,
    validation: Rows,
    test: Rows,
    toy: Option<Toy>,
    census: Vec<Census>,
    notes: Vec<String>,
}

impl Data {
    /// A toy: training points are drawn as they are needed, 2000 are set aside for validation.
    pub fn from_toy(toy: Toy) -> Self {
        let drawn = |purpose: &str, n| toy.rows(n, &mut FlowRng::named(0, purpose));
        let measured = drawn("scale of a toy", MEASURED);
        let usual = Standard { mean: vec![0.0; 2], std: vec![1.0; 2], ..Standard::default() };
        Data {
            name: toy.name().into(),
            standard: Standard::of(&measured, 2).unwrap_or(usual),
            chosen: Columns::unnamed(2),
            train: Rows::new(2),
            validation: Rows::drawn(2, &drawn("validation of a toy", VALIDATION)),
            test: Rows::new(2),
            toy: Some(toy),
            census: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The rows of a table, shuffled by `seed`: eight tenths for training, one for validation and one as test set. They
    /// are standardised by the training rows.
    ///
    /// # Errors
    /// [`Error::Table`] for fewer than ten rows, or a column that holds one and the same number.
    pub fn from_table(table: &Table, seed: u64) -> Result<Self> {
        let of_table = |place, found, expected| Error::Table { table: table.name().into(), place, found, expected };
        if table.rows() < FEWEST_ROWS {
            let expected = format!("at least {FEWEST_ROWS} to split");
            return Err(of_table(Place::Whole, format!("{} rows", table.rows()), expected));
        }
        if let Some(classes) = table.chosen().class.as_ref().filter(|classes| classes.len() < 2) {
            let expected = "at least two: leave --class-column out".into();
            return Err(of_table(Place::Column(classes.number), format!("one class, {}", classes.listed()), expected));
        }
        let order = FlowRng::named(seed, "split").permutation(table.rows());
        let held_out = table.rows() / 10;
        let (test, rest) = order.split_at(held_out);
        let (validation, train) = rest.split_at(held_out);
        let train = Rows::of(table, train)?;
        let standard = Standard::of(train.values(), table.columns()).map_err(|error| match error {
            Error::Table { place: Place::Column(number), found, expected, .. } => {
                let place = table.chosen().numbers.get(number - 1).map_or(number, |&number| number);
                of_table(Place::Column(place), found, expected)
            }
            other => other,
        })?;
        let mut chosen = table.chosen().clone();
        chosen.class = chosen.class.map(|classes| classes.counting(train.classes()));
        let census = (0..table.columns()).into_par_iter().map(|column| census(table, &standard, column)).collect();
        Ok(Data {
            name: table.name().into(),
            standard,
            chosen,
            train,
            validation: Rows::of(table, validation)?,
            test: Rows::of(table, test)?,
            toy: None,
            census,
            notes: table.notes().to_vec(),
        })
    }

    /// The same data with columns of steps spread over them: those of these places, counted from zero, or all of which
    /// numbers repeat if none is named. See [`Standard`].
    ///
    /// # Errors
    /// [`Error::Table`] naming a column whose numbers do not lie at equal distances, or a table without a column whose
    /// numbers repeat; [`flow_core::Error::Config`] for a toy or a place that is none.
    pub fn dequantized(mut self, columns: &[usize]) -> Result<Self> {
        let found = |found: String, expected: &str| Error::Table {
            table: self.name.clone(),
            place: Place::Whole,
            found,
            expected: expected.into(),
        };
        if self.toy.is_some() {
            return Err(Error::config("dequantization", "is for tables, a toy has no steps"));
        }
        let discrete = |&column: &usize| self.census[column].is_discrete();
        let chosen: Vec<usize> = match columns.is_empty() {
            true => (0..self.columns()).filter(discrete).collect(),
            false => columns.to_vec(),
        };
        if chosen.is_empty() {
            return Err(found(
                "no column whose numbers repeat".into(),
                "one to dequantize; leave it out, or name columns",
            ));
        }
        let mut lattices = vec![None; self.columns()];
        for column in chosen {
            let Some(census) = self.census.get(column) else {
                let reason = format!("has no column at place {column}, there are {}", self.columns());
                return Err(Error::config("dequantization", reason));
            };
            let Some(lattice) = census.lattice else {
                let said = format!("{} with {census}", self.chosen.label(column));
                return Err(found(said, "numbers at equal distances to dequantize; name other columns"));
            };
            lattices[column] = Some(lattice);
        }
        self.standard.lattices = lattices;
        Ok(self)
    }

    /// The same data with the scale of a run, and its columns that are spread over their steps.
    #[must_use]
    pub fn scaled_as(mut self, standard: &Standard) -> Self {
        self.standard = standard.clone();
        self
    }

    /// The table's file, or the toy.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Numbers of a row.
    pub fn columns(&self) -> usize {
        self.standard.columns()
    }

    /// Which columns of the file these are.
    pub fn chosen(&self) -> &Columns {
        &self.chosen
    }

    /// The classes of the rows, with the number of training rows of each.
    pub fn classes(&self) -> Option<&Classes> {
        self.chosen.class.as_ref()
    }

    /// From data to what models see, and back.
    pub fn standard(&self) -> &Standard {
        &self.standard
    }

    /// The training rows of a table; empty for a toy, which is drawn from.
    pub fn train(&self) -> &[f64] {
        self.train.values()
    }

    /// Training rows of a table, none of a toy.
    pub fn train_rows(&self) -> usize {
        self.train.len()
    }

    /// Some of the training rows, one after the other.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for an index beyond the last one.
    pub fn pick(&self, indices: &[usize]) -> Result<Vec<f64>> {
        let columns = self.columns();
        let mut picked = Vec::with_capacity(indices.len() * columns);
        for &index in indices {
            let Some(row) = self.train().get(index * columns..(index + 1) * columns) else {
                let reason = format!("must be below {}, the number of training rows, got {index}", self.train_rows());
                return Err(Error::config("index of a row", reason));
            };
            picked.extend_from_slice(row);
        }
        Ok(picked)
    }

    /// The classes of these training rows; nothing without classes.
    pub fn pick_classes(&self, indices: &[usize]) -> Vec<u32> {
        indices.iter().filter_map(|&index| self.train.classes().get(index).copied()).collect()
    }

    /// Held-out rows to decide by.
    pub fn validation(&self) -> &[f64] {
        self.validation.values()
    }

    /// The toy that points are drawn from, if it is one.
    pub fn toy(&self) -> Option<Toy> {
        self.toy
    }

    /// By what a run knows its table again, in its parts; `None` for a toy, which is known by its name.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        if self.toy().is_some() {
            return None;
        }
        let parts = [("train", &self.train), ("validation", &self.validation), ("test", &self.test)];
        let print = parts.iter().fold(Fingerprint::new("rows"), |print, (name, rows)| {
            let words = rows.values().iter().map(|v| v.to_bits()).flat_map(|bits| [bits as u32, (bits >> 32) as u32]);
            print.part(name, rows.len(), Fnv::new().words(words).words(rows.classes().iter().copied()))
        });
        Some(print)
    }

    /// A part of a table, with the numbers of its rows in the file; nothing of a toy but its validation points.
    pub fn rows(&self, split: Split) -> Rows {
        match split {
            Split::Train => self.train.clone(),
            Split::Validation => self.validation.clone(),
            Split::Test => self.test.clone(),
            Split::All => Rows::sorted(&[&self.train, &self.validation, &self.test]),
        }
    }

    /// The number of rows in a part, as [`Data::rows`] has them.
    pub fn count(&self, split: Split) -> usize {
        match split {
            Split::Train => self.train.len(),
            Split::Validation => self.validation.len(),
            Split::Test => self.test.len(),
            Split::All => self.train.len() + self.validation.len() + self.test.len(),
        }
    }

    /// `most` held-out rows that no decision was made by: fresh ones of a toy, drawn from `seed`, else the first rows
    /// of the test set, all of them if there are fewer.
    pub fn test(&self, most: usize, seed: u64) -> Rows {
        match self.toy {
            Some(toy) => Rows::drawn(2, &toy.rows(most, &mut FlowRng::named(seed, "test of a toy"))),
            None => self.test.first(most),
        }
    }

    /// What there is and how it is split, in a line: `t.csv: 150 rows of 2 columns (a, b); 120 for training, …`.
    pub fn describe(&self) -> String {
        match self.toy {
            Some(toy) => {
                format!("{}: a toy, points are drawn as they are needed; {VALIDATION} for validation", toy.name())
            }
            None => format!(
                "{}: {} rows of {}; {} for training, {} for validation, {} as test set",
                self.name,
                self.count(Split::All),
                self.chosen,
                self.train.len(),
                self.validation.len(),
                self.test.len()
            ),
        }
    }

    /// What was left out or rounded when the table was read, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What makes likelihoods of these data mean less than they seem to, a sentence each: columns whose numbers repeat, and
    /// numbers that single precision does not tell apart.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(classes) = self.classes() {
            let unseen = classes.names.iter().zip(&classes.rows).filter(|(_, rows)| **rows == 0);
            let unseen: Vec<String> = unseen.map(|(name, _)| format!("'{name}'")).collect();
            if !unseen.is_empty() {
                warnings.push(format!(
                    "no training row is of class {}: what a model says of it is arbitrary",
                    unseen.join(", ")
                ));
            }
        }
        for (column, census) in self.census.iter().enumerate() {
            let label = self.chosen.label(column);
            let spread = self.standard.lattices.get(column).is_some_and(Option::is_some);
            if census.is_discrete() && !spread {
                let way_out = match census.lattice {
                    Some(_) => "dequantize it, or read the numbers as a comparison at best",
                    None => "they lie at no equal distances, so that it cannot be dequantized",
                };
                warnings.push(format!(
                    "{label} repeats its numbers: {census}; no density of it has a bound, a flow can make spikes of them: \
                     {way_out}"
                ));
            }
            if census.is_blurred() {
                warnings.push(format!(
                    "{label} keeps {} of its {} distinct values in single precision, after centring and scaling: a few far \
                     outliers? clip them, or take logarithms",
                    census.seen, census.distinct
                ));
            }
        }
        warnings
    }
}

fn census(table: &Table, standard: &Standard, column: usize) -> Census {
    let values = table.values().iter().skip(column).step_by(table.columns()).copied().collect();
    let (mean, std) = (standard.mean[column], standard.std[column]);
    Census::of(values, |value| ((value - mean) / std) as f32)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn line(rows: usize) -> Table {
        Table::new(2, (0..rows).flat_map(|i| [i as f64, 3.0 - 2.0 * i as f64]).collect()).unwrap()
    }

    #[test]
    fn a_table_is_split_without_overlap_and_standardised_by_its_training_rows() {
        let data = Data::from_table(&line(100), 1).unwrap();
        let mut all = [data.train(), data.validation(), data.test(1000, 0).values()].concat();
        assert_eq!((data.train().len(), data.validation().len(), all.len()), (160, 20, 200));
        all = all.into_iter().step_by(2).collect();
        all.sort_by(f64::total_cmp);
        assert!(all.iter().enumerate().all(|(i, &v)| v == i as f64));
        let seen = data.standard.apply(data.train(), &Device::Cpu).unwrap();
        let mean = seen.mean(0).unwrap().to_vec1::<f32>().unwrap();
        assert!(mean.iter().all(|m| m.abs() < 1e-6), "{mean:?}");
        assert!((seen.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap() - 1.0).abs() < 1e-5);
        let back = data.standard.undo(&seen).unwrap();
        assert!(back.iter().zip(data.train()).all(|(a, b)| (a - b).abs() < 1e-4));
        assert_eq!(data.describe(), "table: 100 rows of 2 columns; 80 for training, 10 for validation, 10 as test set");
    }

    #[test]
    fn parts_know_the_numbers_of_their_rows() {
        let data = Data::from_table(&line(100), 1).unwrap();
        for split in [Split::Train, Split::Validation, Split::Test, Split::All] {
            let rows = data.rows(split);
            assert_eq!((rows.len(), rows.values().len()), (data.count(split), 2 * data.count(split)), "{split}");
            assert!(rows.iter().all(|(number, row)| row[0] == number as f64 - 1.0), "{split}");
        }
        assert!(data.rows(Split::All).numbers().iter().copied().eq(1..=100));
        assert_eq!(data.test(4, 0), data.rows(Split::Test).first(4));
    }

    #[test]
    fn indices_beyond_the_last_row_are_refused() {
        let data = Data::from_table(&line(100), 1).unwrap();
        assert_eq!(data.pick(&[79, 0]).unwrap(), [&data.train()[158..], &data.train()[..2]].concat());
        let error = data.pick(&[0, 80]).unwrap_err();
        assert!(matches!(error, Error::Core(flow_core::Error::Config { .. })), "{error}");
        assert!(error.to_string().contains("below 80, the number of training rows, got 80"), "{error}");
    }

    /// A deviation of one around ten million: in f32 arithmetic the centred numbers would keep one digit.
    #[test]
    fn columns_far_from_zero_keep_the_digits_that_they_were_given() {
        let values: Vec<f64> = (0..100).map(|i| 1e7 + f64::from(i % 4)).collect();
        let standard = Standard::of(&values, 1).unwrap();
        assert_eq!((standard.mean[0], standard.std[0]), (1e7 + 1.5, 1.25_f64.sqrt()));
        let seen = standard.apply(&values[..4], &Device::Cpu).unwrap();
        let expected = [-1.5, -0.5, 0.5, 1.5].map(|v: f64| (v / 1.25_f64.sqrt()) as f32);
        assert_eq!(seen.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
        let back = standard.undo(&seen).unwrap();
        assert!(back.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-6), "{back:?}");
        let text: Vec<String> = back.iter().map(|&v| standard.text(0, v)).collect();
        assert_eq!(text, ["10000000", "10000001", "10000002", "10000003"]);
        // Near zero the digits are those of single precision.
        assert_eq!(Standard::of(&[0.0, 1.0], 1).unwrap().text(0, f64::from(0.1_f32)), "0.1");
    }

    #[test]
    fn what_has_no_density_cannot_be_split_or_is_no_source() {
        let values: Vec<f64> = (0..40).flat_map(|i| [f64::from(i), 1.0]).collect();
        let error = Data::from_table(&Table::new(2, values).unwrap(), 1).unwrap_err().to_string();
        assert!(error.starts_with("table: column 2: one and the same number, 1"), "{error}");
        // A number beside the others that are all one: its deviation is no number of 64 bits.
        let error = Standard::of(&[0.0, 1e-310], 1).unwrap_err().to_string();
        assert!(error.contains("whose deviation cannot be computed"), "{error}");
        let error = Standard::of(&[-1e300, 1e300], 1).unwrap_err().to_string();
        assert!(error.contains("whose deviation cannot be computed"), "{error}");
        // Far from zero a small deviation is one nevertheless.
        assert!(Standard::of(&[1e12, 1e12 + 1.0], 1).is_ok());
        let error = Data::from_table(&Table::new(1, vec![1.0; 3]).unwrap(), 1).unwrap_err().to_string();
        assert!(error.contains("3 rows, expected at least 10"), "{error}");
        assert!(Source::named("9gaussians").unwrap_err().to_string().contains("8gaussians, checkerboard"));
        assert!(matches!(Source::named("2Spirals"), Ok(Source::Toy(Toy::TwoSpirals))));
        let drop = Reading { missing: Missing::Drop, ..Reading::default() };
        assert!(Source::Toy(Toy::Moons).open_with(&drop, 0).is_err());
    }
}
