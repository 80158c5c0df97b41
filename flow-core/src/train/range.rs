//! One message for every field outside its range.

use crate::{Error, Result};

/// An [`Error::Config`] for `field` unless `legal`.
pub(super) fn in_range(field: &str, value: f64, legal: bool, range: &str) -> Result<()> {
    if legal { Ok(()) } else { Err(Error::config(field, format!("is {value}, must be {range}"))) }
}
