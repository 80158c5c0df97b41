//! How a table is to be read, and which of its columns a run was made from.

use serde::{Deserialize, Serialize};

use super::Classes;

/// What is done with rows that lack a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Missing {
    /// The table is refused, with the number and the places of missing values.
    #[default]
    Refuse,
    /// Rows that lack a value in a column that is read are left out, and counted.
    Drop,
}

/// Whether the first line of text holds the names of the columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Header {
    /// The cells tell: words above numbers are names. What could be either is refused.
    #[default]
    Auto,
    /// It does, even if the names are numbers.
    Yes,
    /// It is a row like the others.
    No,
}

/// How a table is read: all columns, nothing left out, unless told.
///
/// ```
/// use flow_density::data::{Missing, Reading, Table};
///
/// # fn main() -> flow_density::Result<()> {
/// let text = b"length,width,species\n5.1,3.5,setosa\n,2.9,virginica\n4.9,3.0,setosa\n";
/// let reading = Reading { columns: vec!["length".into(), "2".into()], missing: Missing::Drop, ..Reading::default() };
/// let table = Table::parse("iris.csv".as_ref(), text, &reading)?;
/// assert_eq!(table.values(), &[5.1, 3.5, 4.9, 3.0]);
/// assert_eq!((table.names(), table.row_number(1)?), (&["length".to_string(), "width".to_string()][..], 3));
/// assert!(table.notes()[0].contains("1 of 3 rows"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reading {
    /// The columns to read, in this order: each a name, a number counted from one, or a range of numbers, `2-4`. All of
    /// them if the list is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// What is done with rows that lack a value.
    #[serde(skip_serializing_if = "is_default")]
    pub missing: Missing,
    /// Whether the first line of text holds names.
    #[serde(skip_serializing_if = "is_default")]
    pub header: Header,
    /// The column that puts rows into classes, by its name or its number; it is none of the columns that are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The array of an NPZ archive, if it holds several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
}

impl Reading {
    /// Whether nothing is said of it.
    pub fn is_plain(&self) -> bool {
        is_default(self)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Which columns of which table rows consist of: enough to find them again in another file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// Their names; empty if the table has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Their numbers in the table, counted from one.
    pub numbers: Vec<usize>,
    /// The number of columns of the table.
    pub of: usize,
    /// The classes that a further column puts rows into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Classes>,
}

impl Columns {
    /// All columns of a table without names.
    pub fn unnamed(count: usize) -> Self {
        Columns { names: Vec::new(), numbers: (1..=count).collect(), of: count, class: None }
    }

    /// The number of columns.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The place among these of a column, by its name or its number in the table.
    pub fn place(&self, entry: &str) -> Option<usize> {
        let by_name = self.names.iter().position(|name| name == entry);
        by_name.or_else(|| self.numbers.iter().position(|number| entry.parse() == Ok(*number)))
    }

    /// A column in words, by its place among these: `column 3 ('width')`.
    pub fn label(&self, place: usize) -> String {
        let number = self.numbers.get(place).copied().unwrap_or(place + 1);
        label(number, self.names.get(place).map(String::as_str))
    }
}

/// `2 columns (length, width)`, or `2 columns` without names.
impl std::fmt::Display for Columns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 8;
        let count = self.len();
        write!(f, "{count} column{}", if count == 1 { "" } else { "s" })?;
        let some = count < self.of;
        if some {
            write!(f, " of {}", self.of)?;
        }
        let shown: Vec<String> = match self.names.is_empty() {
            false => self.names.iter().take(SHOWN).cloned().collect(),
            true if some => self.numbers.iter().take(SHOWN).map(usize::to_string).collect(),
            true => Vec::new(),
        };
        if !shown.is_empty() {
            write!(f, " ({}{})", shown.join(", "), if count > SHOWN { ", …" } else { "" })?;
        }
        match &self.class {
            Some(classes) => write!(f, " and {classes}"),
            None => Ok(()),
        }
    }
}

/// `column 3 ('width')`, or `column 3` without a name.
pub(super) fn label(number: usize, name: Option<&str>) -> String {
    name.filter(|name| !name.is_empty())
        .map_or(format!("column {number}"), |name| format!("column {number} ('{name}')"))
}
