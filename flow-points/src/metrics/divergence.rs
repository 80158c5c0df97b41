//! The Jensen–Shannon divergence of occupied space.

use super::check;
use crate::{Error, Point, Result};

/// Cells along one side of the grid.
const SIDE: usize = 28;

/// How clouds are brought into the unit cube about the origin: `(p − centre) · scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// What becomes the origin.
    pub centre: [f64; 3],
    /// The factor.
    pub scale: f64,
}

impl Frame {
    /// The frame in which all points of some clouds lie within radius one half.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when there are no points.
    pub fn around(clouds: &[Vec<Point>]) -> Result<Self> {
        let points = || clouds.iter().flatten();
        let bound = |k: usize, start: f32, pick: fn(f32, f32) -> f32| points().map(|p| p[k]).fold(start, pick);
        let centre: [f64; 3] = std::array::from_fn(|k| {
            0.5 * f64::from(bound(k, f32::INFINITY, f32::min) + bound(k, f32::NEG_INFINITY, f32::max))
        });
        let square = |p: &Point| (0..3).map(|k| (f64::from(p[k]) - centre[k]).powi(2)).sum::<f64>();
        let radius = points().map(square).fold(0.0, f64::max).sqrt();
        if !(radius > 0.0 && radius.is_finite()) {
            return Err(Error::config("frame", "the clouds have no extent"));
        }
        Ok(Frame { centre, scale: 0.5 / radius })
    }
}

/// The Jensen–Shannon divergence, base 2, between the shares of points that fall nearest to each cell of a 28³ grid in the
/// unit cube, cut to the ball of radius one half (Achlioptas et al. 2018, section 3). In `[0, 1]`.
///
/// # Errors
/// [`flow_core::Error::Config`] for no clouds, empty ones, or coordinates that are not finite.
pub fn jensen_shannon(a: &[Vec<Point>], b: &[Vec<Point>], frame: &Frame) -> Result<f64> {
    let (p, q) = (occupancy(a, frame)?, occupancy(b, frame)?);
    let entropy = |v: &mut dyn Iterator<Item = f64>| -> f64 { v.filter(|x| *x > 0.0).map(|x| -x * x.log2()).sum() };
    let mixed = entropy(&mut p.iter().zip(&q).map(|(p, q)| 0.5 * (p + q)));
    Ok((mixed - 0.5 * (entropy(&mut p.iter().copied()) + entropy(&mut q.iter().copied()))).max(0.0))
}

/// The centre of a cell along one axis.
fn coordinate(i: usize) -> f64 {
    i as f64 / (SIDE - 1) as f64 - 0.5
}

/// The share of points nearest to each cell of the ball; zero for cells outside.
fn occupancy(clouds: &[Vec<Point>], frame: &Frame) -> Result<Vec<f64>> {
    if clouds.is_empty() {
        return Err(Error::config("Jensen-Shannon divergence", "needs at least one cloud on both sides"));
    }
    let mut counts = vec![0.0; SIDE * SIDE * SIDE];
    let mut total = 0.0;
    for cloud in clouds {
        check("Jensen-Shannon divergence", cloud)?;
        for p in cloud {
            let at: [f64; 3] = std::array::from_fn(|k| (f64::from(p[k]) - frame.centre[k]) * frame.scale);
            counts[nearest_cell(at)] += 1.0;
            total += 1.0;
        }
    }
    counts.iter_mut().for_each(|c| *c /= total);
    Ok(counts)
}

/// The nearest cell of the ball: the rounded one where it lies inside, else the best of those about it.
fn nearest_cell(at: [f64; 3]) -> usize {
    let index = |[i, j, k]: [usize; 3]| (i * SIDE + j) * SIDE + k;
    let inside = |c: [usize; 3]| c.iter().map(|&i| coordinate(i).powi(2)).sum::<f64>() <= 0.25;
    let round = |v: f64| ((v + 0.5) * (SIDE - 1) as f64).round().clamp(0.0, (SIDE - 1) as f64) as usize;
    let rounded = at.map(round);
    if inside(rounded) {
        return index(rounded);
    }
    // The nearest cell of a ball lies near the point's projection onto it.
    let norm = at.iter().map(|v| v * v).sum::<f64>().sqrt();
    let on_ball = at.map(|v| round(v * (0.5 / norm).min(1.0)));
    let around = |i: usize| i.saturating_sub(2)..=(i + 2).min(SIDE - 1);
    let mut best = (f64::INFINITY, index(on_ball));
    for i in around(on_ball[0]) {
        for j in around(on_ball[1]) {
            for k in around(on_ball[2]) {
                let cell = [i, j, k];
                let distance: f64 = (0..3).map(|a| (coordinate(cell[a]) - at[a]).powi(2)).sum();
                if inside(cell) && distance < best.0 {
                    best = (distance, index(cell));
                }
            }
        }
    }
    best.1
}
