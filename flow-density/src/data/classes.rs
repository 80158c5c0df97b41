//! Classes of rows: a column of words, or of numbers that stand for something, as a condition.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::fault::{Fault, Read};
use super::reading::label;
use crate::{Error, Result};

/// Classes of a column, at most: one that holds more names rows.
const MOST: usize = 256;
/// Classes are listed up to here, counted beyond.
const LISTED: usize = 8;

/// The classes that a column puts rows into. A model with classes is a density given the class, `p(x | c)`.
///
/// ```
/// use flow_density::data::{Reading, Table};
///
/// # fn main() -> flow_density::Result<()> {
/// let text = b"length,width,species\n5.1,3.5,setosa\n6.3,2.9,virginica\n4.9,3.0,setosa\n";
/// let reading = Reading { class: Some("species".into()), ..Reading::default() };
/// let table = Table::parse("iris.csv".as_ref(), text, &reading)?;
/// let classes = table.chosen().class.as_ref().unwrap();
/// assert_eq!((&classes.names[..], table.classes()), (&["setosa".to_string(), "virginica".into()][..], &[0, 1, 0][..]));
/// assert_eq!(table.columns(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// The name of the column, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Its number in the table, counted from one.
    pub number: usize,
    /// What stands in it: by the size of the numbers if all are numbers, else by the alphabet.
    pub names: Vec<String>,
    /// How many rows are of each class; of [`Data`](super::Data) and of runs, how many training rows.
    pub rows: Vec<usize>,
}

impl Classes {
    /// The classes of cells, and that of each.
    pub(super) fn of(column: Option<String>, number: usize, cells: &[&str]) -> Read<(Self, Vec<u32>)> {
        let mut names: Vec<&str> = cells.to_vec();
        let numbers = names.iter().all(|name| name.parse::<f64>().is_ok());
        let value = |name: &str| name.parse::<f64>().unwrap_or(f64::NAN);
        match numbers {
            true => names.sort_by(|a, b| value(a).total_cmp(&value(b)).then_with(|| a.cmp(b))),
            false => names.sort_unstable(),
        }
        names.dedup();
        if names.len() > MOST {
            let found = format!(
                "{} different values in {} rows of {}",
                names.len(),
                cells.len(),
                label(number, column.as_deref())
            );
            return Err(Fault::whole(found, format!("at most {MOST} classes; it may name the rows: choose another")));
        }
        let places: std::collections::HashMap<&str, u32> = names.iter().copied().zip(0..).collect();
        let of_rows: Vec<u32> = cells.iter().filter_map(|cell| places.get(cell).copied()).collect();
        let classes = Classes { column, number, names: names.iter().map(ToString::to_string).collect(), rows: vec![] };
        Ok((classes.counting(&of_rows), of_rows))
    }

    /// The same classes with the counts of other rows.
    pub(super) fn counting(mut self, of_rows: &[u32]) -> Self {
        self.rows = vec![0; self.names.len()];
        for &class in of_rows {
            if let Some(count) = self.rows.get_mut(class as usize) {
                *count += 1;
            }
        }
        self
    }

    /// The number of classes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The place of a class, counted from zero.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] with the classes that there are.
    pub fn place(&self, name: &str) -> Result<u32> {
        let place = self.names.iter().position(|known| known == name).and_then(|place| u32::try_from(place).ok());
        place.ok_or_else(|| Error::config(format!("class '{name}'"), format!("is none of {}", self.listed())))
    }

    /// How many training rows of a thousand are of each class, as parts of one.
    pub fn shares(&self) -> Vec<f64> {
        let all = self.rows.iter().sum::<usize>().max(1) as f64;
        self.rows.iter().map(|&rows| rows as f64 / all).collect()
    }

    /// What models are given of classes: `(B, K)`, one where a row's class is and zero elsewhere.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for a class that is none.
    pub fn context(&self, of_rows: &[u32], device: &Device) -> Result<Tensor> {
        let count = self.len();
        let mut values = vec![0f32; of_rows.len() * count];
        for (row, &class) in values.chunks_exact_mut(count.max(1)).zip(of_rows) {
            let Some(value) = row.get_mut(class as usize) else {
                return Err(Error::config("class", format!("must be below {count}, got {class}")));
            };
            *value = 1.0;
        }
        Ok(Tensor::from_vec(values, (of_rows.len(), count), device)?)
    }

    /// The names of the classes, the first of many.
    pub fn listed(&self) -> String {
        let names: Vec<&str> = self.names.iter().take(LISTED).map(String::as_str).collect();
        let more = if self.len() > LISTED { ", …" } else { "" };
        format!("{}{more}", names.join(", "))
    }
}

/// `3 classes by column 5 ('species'): setosa, versicolor, virginica`.
impl std::fmt::Display for Classes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} classes by {}: {}", self.len(), label(self.number, self.column.as_deref()), self.listed())
    }
}
