//! Cells of a column as numbers or words.

use std::sync::Arc;

use ::parquet::basic::{ConvertedType, LogicalType, Type};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use ::parquet::data_type::DataType;
use ::parquet::errors::Result;
use ::parquet::file::reader::RowGroupReader;
use ::parquet::schema::types::ColumnDescriptor;
use flow_core::files::numpy::half;

use super::super::raw::RawColumn;
use super::contained::Checked;

/// Rows that are decoded at once.
const BATCH: usize = 1024;
/// The numbers up to here are exact in 64 bits.
const EXACT: u128 = 1 << 53;
/// The most of a word that is kept to be shown.
const SHOWN: usize = 40;

/// What the values of a column stand for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Meaning {
    /// What the physical type says.
    Plain,
    Unsigned,
    /// Whole numbers, to be divided by this power of ten.
    Decimal(i32),
    /// A float of two bytes.
    Half,
    Text,
    /// No numbers and no text: what it is, in the plural.
    Other(&'static str),
}

impl Meaning {
    pub(super) fn of(column: &ColumnDescriptor) -> Self {
        use ConvertedType as Old;
        if column.max_rep_level() > 0 || column.path().parts().len() != 1 {
            return Meaning::Other("lists or records");
        }
        // Files of old writers have converted types alone.
        match (column.logical_type_ref(), column.converted_type()) {
            (Some(LogicalType::Integer(kind)), _) if !kind.is_signed => Meaning::Unsigned,
            (Some(LogicalType::Integer(_)), _) => Meaning::Plain,
            (Some(LogicalType::Decimal(_)), _) | (None, Old::DECIMAL) => Meaning::Decimal(column.type_scale()),
            (Some(LogicalType::Float16), _) => Meaning::Half,
            (Some(LogicalType::String | LogicalType::Enum | LogicalType::Json), _)
            | (None, Old::UTF8 | Old::ENUM | Old::JSON) => Meaning::Text,
            (Some(LogicalType::Date), _) | (None, Old::DATE) => Meaning::Other("dates"),
            (Some(LogicalType::Time(_)), _) | (None, Old::TIME_MILLIS | Old::TIME_MICROS) => Meaning::Other("times"),
            (Some(LogicalType::Timestamp(_)), _) | (None, Old::TIMESTAMP_MILLIS | Old::TIMESTAMP_MICROS) => {
                Meaning::Other("timestamps")
            }
            (Some(LogicalType::Unknown) | None, Old::NONE) => match column.physical_type() {
                Type::INT96 => Meaning::Other("timestamps"),
                Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => Meaning::Other("bytes"),
                _ => Meaning::Plain,
            },
            (None, Old::INT_8 | Old::INT_16 | Old::INT_32 | Old::INT_64) => Meaning::Plain,
            (None, Old::UINT_8 | Old::UINT_16 | Old::UINT_32 | Old::UINT_64) => Meaning::Unsigned,
            _ => Meaning::Other("values of another kind"),
        }
    }

    /// What stands in a column that is not read.
    pub(super) fn kind(&self) -> Option<&'static str> {
        match self {
            Meaning::Other(kind) => Some(kind),
            _ => None,
        }
    }
}

/// A value of any physical type.
enum Value<'a> {
    Truth(bool),
    Narrow(i32),
    Wide(i64),
    Real(f64),
    Bytes(&'a [u8]),
}

/// Reads the cells of a column in a group of rows, up to row `end` of the table.
pub(super) fn read(
    group: &dyn RowGroupReader,
    place: usize,
    descriptor: &Arc<ColumnDescriptor>,
    meaning: &Meaning,
    end: usize,
    column: &mut RawColumn,
) -> Result<()> {
    if let Some(kind) = meaning.kind() {
        (column.values.len()..end).for_each(|row| word(column, row, kind));
        return Ok(());
    }
    let pages = Box::new(Checked(group.get_column_page_reader(place)?));
    let level = descriptor.max_def_level();
    let mut push = |value: Option<Value<'_>>| push(column, end, meaning, value);
    match get_column_reader(descriptor.clone(), pages) {
        ColumnReader::BoolColumnReader(cells) => each(cells, level, |v| push(v.map(|&v| Value::Truth(v)))),
        ColumnReader::Int32ColumnReader(cells) => each(cells, level, |v| push(v.map(|&v| Value::Narrow(v)))),
        ColumnReader::Int64ColumnReader(cells) => each(cells, level, |v| push(v.map(|&v| Value::Wide(v)))),
        ColumnReader::FloatColumnReader(cells) => each(cells, level, |v| push(v.map(|&v| Value::Real(v.into())))),
        ColumnReader::DoubleColumnReader(cells) => each(cells, level, |v| push(v.map(|&v| Value::Real(v)))),
        ColumnReader::ByteArrayColumnReader(cells) => each(cells, level, |v| push(v.map(|v| Value::Bytes(v.data())))),
        ColumnReader::FixedLenByteArrayColumnReader(cells) => {
            each(cells, level, |v| push(v.map(|v| Value::Bytes(v.data()))))
        }
        // Columns of times are not read.
        ColumnReader::Int96ColumnReader(_) => Ok(()),
    }
}

/// Calls `push` with every value, or with `None` where there is a null; it says whether it takes more.
fn each<T: DataType>(
    mut cells: ColumnReaderImpl<T>,
    level: i16,
    mut push: impl FnMut(Option<&T::T>) -> bool,
) -> Result<()> {
    loop {
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let (rows, ..) = cells.read_records(BATCH, Some(&mut levels), None, &mut values)?;
        let mut values = values.iter();
        let mut next = |row: usize| levels.get(row).is_none_or(|&l| l == level).then(|| values.next()).flatten();
        if rows == 0 || !(0..rows).all(|row| push(next(row))) {
            return Ok(());
        }
    }
}

/// Adds a cell, and says whether the column is not full.
fn push(column: &mut RawColumn, end: usize, meaning: &Meaning, value: Option<Value<'_>>) -> bool {
    let row = column.values.len();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ");
    let (number, exact) = match (value, meaning) {
        _ if row >= end => return false,
        (None, _) => {
            column.missing.add(row, "null");
            column.values.push(f64::NAN);
            return true;
        }
        (Some(Value::Truth(value)), _) => (f64::from(u8::from(value)), true),
        (Some(Value::Narrow(value)), Meaning::Unsigned) => whole(value.cast_unsigned().into(), 0),
        (Some(Value::Narrow(value)), Meaning::Decimal(scale)) => whole(value.into(), *scale),
        (Some(Value::Narrow(value)), _) => (f64::from(value), true),
        (Some(Value::Wide(value)), Meaning::Unsigned) => whole(value.cast_unsigned().into(), 0),
        (Some(Value::Wide(value)), Meaning::Decimal(scale)) => whole(value.into(), *scale),
        (Some(Value::Wide(value)), _) => whole(value.into(), 0),
        (Some(Value::Real(value)), _) => (value, true),
        (Some(Value::Bytes(&[low, high])), Meaning::Half) => (half(u16::from_le_bytes([low, high])), true),
        (Some(Value::Bytes(bytes)), Meaning::Decimal(scale)) if (1..=16).contains(&bytes.len()) => {
            // Big-endian, with the sign of the first byte in those that are not there.
            let sign = if bytes[0] < 0x80 { 0 } else { -1 };
            whole(bytes.iter().fold(sign, |all, &byte| all << 8 | i128::from(byte)), *scale)
        }
        (Some(Value::Bytes(bytes)), _) => {
            word(column, row, &text(bytes));
            return true;
        }
    };
    if number.is_nan() {
        column.missing.add(row, "NaN");
    } else if !exact {
        column.rounded.add(row, &number.to_string());
    }
    column.values.push(number);
    true
}

fn word(column: &mut RawColumn, row: usize, text: &str) {
    column.words.add(row, &text.chars().take(SHOWN).collect::<String>());
    column.values.push(f64::NAN);
    if let Some(texts) = &mut column.texts {
        texts.push((row, text.into()));
    }
}

/// A number that is to be divided by ten to the power of `scale`, rounded once, and whether it is a whole number that 64
/// bits hold, or none.
fn whole(value: i128, scale: i32) -> (f64, bool) {
    match scale {
        0 => (value as f64, value.unsigned_abs() <= EXACT || value as f64 as i128 == value),
        _ => (format!("{value}e{}", -i64::from(scale)).parse().unwrap_or(f64::NAN), true),
    }
}
