//! The two approximations that published tables were made with.
//!
//! Both move mass in rounds. Round `j = 7, 6, …, −1` weighs a pair by `e^(−4^j d²)`, the last round all pairs alike. In a round
//! every source offers what it has left in proportion to the weights times what the targets still want; targets that are
//! offered too much scale down. The result is a feasible plan, not the best one: it is some 20 % too costly between shapes,
//! and worse between samplings of one shape.
//!
//! That is what the published CUDA code computes. Where PointFlow's code finds its CUDA kernel not compiled it solves the
//! assignment exactly ([`super::emd_exact`]), so its tables may have been made either way.

use super::{check_pair, squared};
use crate::{Point, Result};

/// PointFlow's approximation: the mean Euclidean cost of the plan.
///
/// # Errors
/// [`flow_core::Error::Config`] for clouds that are empty, of different sizes or not finite.
pub fn emd_approx_pointflow(a: &[Point], b: &[Point]) -> Result<f64> {
    check_pair("approximate EMD", a, b)?;
    Ok(plan_cost(a, b, f64::sqrt) / a.len() as f64)
}

/// The approximation in the code of PVD and LION: the same plan, the mean squared cost.
///
/// # Errors
/// As [`emd_approx_pointflow`].
pub fn emd_approx_squared(a: &[Point], b: &[Point]) -> Result<f64> {
    check_pair("approximate EMD", a, b)?;
    Ok(plan_cost(a, b, |square| square) / a.len() as f64)
}

/// The total cost of the annealed plan, `cost` being a function of the squared distance.
fn plan_cost(a: &[Point], b: &[Point], cost: impl Fn(f64) -> f64) -> f64 {
    const NONE_LEFT: f64 = 1e-9;
    let n = a.len();
    let distances: Vec<f64> = a.iter().flat_map(|p| b.iter().map(move |q| squared(p, q))).collect();
    let (mut have, mut want) = (vec![1.0; n], vec![1.0; n]);
    let mut total = 0.0;
    for round in (-2..=7).rev() {
        let level = if round == -2 { 0.0 } else { -(4.0_f64.powi(round)) };
        let weight = |i: usize, k: usize| (level * distances[i * n + k]).exp();
        // What each source offers for one unit of weighted demand.
        let offers: Vec<f64> = (0..n)
            .map(|i| {
                let demand: f64 = (0..n).map(|k| weight(i, k) * want[k]).sum();
                have[i] / (demand + NONE_LEFT)
            })
            .collect();
        // What a target takes of each offer, so that it gets no more than it wants.
        let takes: Vec<f64> = (0..n)
            .map(|k| {
                let offered: f64 = (0..n).map(|i| weight(i, k) * offers[i]).sum::<f64>() * want[k];
                let share = (want[k] / (offered + NONE_LEFT)).min(1.0);
                want[k] * share
            })
            .collect();
        let mut received = vec![0.0; n];
        for i in 0..n {
            let mut given = 0.0;
            for k in 0..n {
                let moved = weight(i, k) * offers[i] * takes[k];
                given += moved;
                received[k] += moved;
                total += moved * cost(distances[i * n + k]);
            }
            have[i] = (have[i] - given).max(0.0);
        }
        want.iter_mut().zip(&received).for_each(|(w, r)| *w = (*w - r).max(0.0));
    }
    total
}
