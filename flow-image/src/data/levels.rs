//! How the numbers of an array become integer levels: which values mean black and white.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::array::{Array, Kind};
use crate::{Error, Result};

/// The values between which the floats of an array lie; integers are levels as they are, truth values 0 and 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Range {
    /// By the values of the training images: [`Range::Unit`] if all lie in `[0, 1]`; [`Range::Bytes`] if all are whole
    /// numbers 0 to 255, or lie in `[0, 255]` and some above 64; [`Range::Signed`] if all lie in `[-1, 1]`. Others are
    /// refused.
    #[default]
    Auto,
    /// `[0, 1]`: the level is `round(255 x)`.
    Unit,
    /// `[-1, 1]`: the level is `round(127.5 (x + 1))`.
    Signed,
    /// `[0, 255]`: the level is `round(x)`.
    Bytes,
}

/// Above `[0, 1]`, values need one beyond this to be taken for bytes that are not whole.
const BYTES_REACH: f64 = 64.0;

/// Integers that all lie below this are nearly black among 256 levels, and worth a word.
const DARK: f64 = 32.0;

/// Rounding errors of whoever scaled the values.
const SLACK: f64 = 1e-6;

/// Levels of 256, the range that they were read by if the array has floats, and a word about it.
#[derive(Debug)]
pub struct Levels {
    /// A level for each element, in their order.
    pub values: Vec<u8>,
    /// The range of floats.
    pub range: Option<Range>,
    /// What was rounded, or looks strange.
    pub note: Option<String>,
}

/// The levels of all elements, in their order.
///
/// # Errors
/// A value that is no level under the rule, named with its index, with the remedy.
pub fn levels(path: &Path, array: &Array, range: Range) -> Result<Levels> {
    if let Some(bytes) = array.as_bytes() {
        return Ok(Levels { values: bytes.to_vec(), range: None, note: dark(bytes) });
    }
    match array.scalar().kind() {
        Kind::Bool => {
            let values = array.values().map(|v| if v == 0.0 { 0 } else { 255 }).collect();
            let note = "truth values: False became level 0, True level 255 of 256".to_string();
            Ok(Levels { values, range: None, note: Some(note) })
        }
        Kind::Unsigned | Kind::Signed => integers(path, array),
        Kind::Float => floats(path, array, range),
    }
}

fn integers(path: &Path, array: &Array) -> Result<Levels> {
    let level = |(index, value): (usize, f64)| {
        if (0.0..=255.0).contains(&value) {
            return Ok(value as u8);
        }
        let remedy = match value {
            v if v < 0.0 => "shift the values to 0 to 255, or save floats in -1 to 1",
            _ => "16-bit pictures: (x // 257).astype('uint8'); others: scale the values to 0 to 255",
        };
        Err(refused(
            path,
            format!("element {index} is {value}, {} are levels 0 to 255; {remedy}", array.scalar().name()),
        ))
    };
    let values = array.values().enumerate().map(level).collect::<Result<Vec<u8>>>()?;
    let note = dark(&values);
    Ok(Levels { values, range: None, note })
}

/// A word about integers that use only the first of 256 levels.
fn dark(values: &[u8]) -> Option<String> {
    let most = values.iter().copied().max()?;
    (f64::from(most) < DARK && most > 0)
        .then(|| format!("the integers reach only {most} of 255, nearly black; multiply them if {most} is to be white"))
}

/// The least and the greatest value, and whether all are whole.
struct Extent {
    low: f64,
    high: f64,
    whole: bool,
}

fn floats(path: &Path, array: &Array, range: Range) -> Result<Levels> {
    let mut extent = Extent { low: f64::INFINITY, high: f64::NEG_INFINITY, whole: true };
    for (index, value) in array.values().enumerate() {
        if !value.is_finite() {
            return Err(refused(path, format!("element {index} is {value}, expected a finite number")));
        }
        extent.low = extent.low.min(value);
        extent.high = extent.high.max(value);
        extent.whole &= value.fract() == 0.0;
    }
    let range = match range {
        Range::Auto => rule(&extent).ok_or_else(|| ambiguous(path, &extent))?,
        given => given,
    };
    let (low, high, name) = match range {
        Range::Signed => (-1.0, 1.0, "[-1, 1], level = round(127.5 (x + 1))"),
        Range::Bytes => (0.0, 255.0, "[0, 255], level = round(x)"),
        Range::Unit | Range::Auto => (0.0, 1.0, "[0, 1], level = round(255 x)"),
    };
    if extent.low < low - SLACK || extent.high > high + SLACK {
        let inside = |v: &f64| (low - SLACK..=high + SLACK).contains(v);
        let found = array.values().enumerate().find(|(_, v)| !inside(v));
        let (index, value) = found.unwrap_or_default();
        let value = value as f32;
        let reason = format!("element {index} is {value}, expected {low} to {high} as in the training images");
        return Err(refused(path, format!("{reason} or as --range says")));
    }
    let mut rounded = 0usize;
    let level = |value: f64| {
        let exact = (value.clamp(low, high) - low) * 255.0 / (high - low);
        // What single precision leaves of a whole level is no rounding.
        rounded += usize::from((exact - exact.round()).abs() > 2e-3);
        exact.round() as u8
    };
    let values = array.values().map(level).collect();
    let mut note = format!("{} read as {name}", array.scalar().name());
    if rounded > 0 {
        note += &format!("; {rounded} of {} values lay between two levels and were rounded", array.len());
    }
    Ok(Levels { values, range: Some(range), note: Some(note) })
}

/// The rule of [`Range::Auto`].
fn rule(extent: &Extent) -> Option<Range> {
    let &Extent { low, high, whole } = extent;
    if low >= -SLACK && high <= 1.0 + SLACK {
        Some(Range::Unit)
    } else if low >= 0.0 && high <= 255.0 && (whole || high > BYTES_REACH) {
        Some(Range::Bytes)
    } else if low >= -1.0 - SLACK && high <= 1.0 + SLACK {
        Some(Range::Signed)
    } else {
        None
    }
}

fn ambiguous(path: &Path, extent: &Extent) -> Error {
    // As many digits as the numbers had.
    let (low, high) = (extent.low as f32, extent.high as f32);
    let found = format!("floats from {low} to {high}, neither in 0 to 1, -1 to 1 nor 0 to 255");
    let remedy = match low < 0.0 {
        true => "undo the standardisation, or scale them: (x - x.min()) / (x.max() - x.min())",
        false => "scale them to 0 to 1, or say --range bytes",
    };
    refused(path, format!("{found}; {remedy}"))
}

fn refused(path: &Path, reason: String) -> Error {
    Error::config(path.display().to_string(), reason)
}
