//! The exact earth mover's distance.

use flow_core::numerics::transport::{Cost, assign_points};

use super::check_pair;
use crate::{Point, Result};

/// `min_π mean_i |a_i − b_π(i)|` over permutations, exactly: what the papers mean by EMD and scipy's assignment computes.
///
/// # Errors
/// [`flow_core::Error::Config`] for clouds that are empty, of different sizes or not finite.
pub fn emd_exact(a: &[Point], b: &[Point]) -> Result<f64> {
    check_pair("exact EMD", a, b)?;
    Ok(assign_points(a, b, Cost::Euclidean)?.cost / a.len() as f64)
}

/// `min_π mean_i |a_i − b_π(i)|²`: exact, with squared cost.
///
/// # Errors
/// As [`emd_exact`].
pub fn emd_exact_squared(a: &[Point], b: &[Point]) -> Result<f64> {
    check_pair("exact EMD", a, b)?;
    Ok(assign_points(a, b, Cost::Squared)?.cost / a.len() as f64)
}
