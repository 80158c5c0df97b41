//! The numbers of the literature on point clouds.
//!
//! Three incompatible distances are called EMD there; here each has the name of what it is. Sums are in f64 and in a fixed
//! order, so results do not depend on the number of threads.

mod approximate;
mod chamfer;
mod divergence;
mod emd;
mod evaluate;
mod matrix;
mod nearest_emd;
mod neighbours;

pub use approximate::{emd_approx_pointflow, emd_approx_squared};
pub use chamfer::{Chamfer, chamfer, chamfer_parts, f_score};
pub use divergence::{Frame, jensen_shannon};
pub use emd::{emd_exact, emd_exact_squared};
pub use evaluate::{EmdKind, EvaluateOptions, Row, Table, evaluate};
pub use matrix::{Distances, Matrix};
pub use neighbours::{
    Nearest, Neighbour, Neighbours, coverage, minimum_matching_distance, one_nearest_neighbour,
    one_nearest_neighbour_interval,
};

use crate::{Error, Point, Result};

/// Refuses an empty cloud, and coordinates that are not finite.
fn check(what: &str, cloud: &[Point]) -> Result<()> {
    if cloud.is_empty() {
        return Err(Error::config(what, "the cloud has no points"));
    }
    match cloud.iter().position(|p| !p.iter().all(|v| v.is_finite())) {
        None => Ok(()),
        Some(i) => Err(Error::config(what, format!("point {i}, {:?}, is not finite", cloud[i]))),
    }
}

/// Refuses clouds of different sizes.
fn check_pair(what: &str, a: &[Point], b: &[Point]) -> Result<()> {
    check(what, a)?;
    check(what, b)?;
    if a.len() != b.len() {
        return Err(Error::config(what, format!("needs clouds of one size, got {} and {} points", a.len(), b.len())));
    }
    Ok(())
}

/// `|a − b|²`.
fn squared(a: &Point, b: &Point) -> f64 {
    (0..3).map(|k| (f64::from(a[k]) - f64::from(b[k])).powi(2)).sum()
}

#[cfg(test)]
mod tests;
