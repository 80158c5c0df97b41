//! Nearest points: the Chamfer distance and the F-score.

use kiddo::{ImmutableKdTree, SquaredEuclidean};

use super::{check, squared};
use crate::{Point, Result};

/// Below this size a tree costs more than it saves.
const SMALL: usize = 64;

/// Both halves of the Chamfer distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chamfer {
    /// `mean_a min_b |a − b|²`: how far the first cloud is from the second.
    pub forward: f64,
    /// `mean_b min_a |a − b|²`.
    pub backward: f64,
}

/// `mean_a min_b |a − b|² + mean_b min_a |a − b|²` (Fan et al. 2017; PointFlow's CD).
///
/// # Errors
/// [`flow_core::Error::Config`] for an empty cloud or coordinates that are not finite.
pub fn chamfer(a: &[Point], b: &[Point]) -> Result<f64> {
    let Chamfer { forward, backward } = chamfer_parts(a, b)?;
    Ok(forward + backward)
}

/// The two halves of [`chamfer`].
///
/// # Errors
/// As [`chamfer`].
pub fn chamfer_parts(a: &[Point], b: &[Point]) -> Result<Chamfer> {
    check("Chamfer distance", a)?;
    check("Chamfer distance", b)?;
    let mean = |d: Vec<f64>| d.iter().sum::<f64>() / d.len() as f64;
    Ok(Chamfer { forward: mean(nearest(a, &Searched::new(b))), backward: mean(nearest(b, &Searched::new(a))) })
}

/// The harmonic mean of the shares of points of each cloud that lie within `threshold` of the other (Tatarchenko et al.
/// 2019); zero if no point does.
///
/// # Errors
/// As [`chamfer`].
pub fn f_score(a: &[Point], b: &[Point], threshold: f64) -> Result<f64> {
    check("F-score", a)?;
    check("F-score", b)?;
    let within = |d: Vec<f64>| d.iter().filter(|d| **d <= threshold * threshold).count() as f64 / d.len() as f64;
    let (precision, recall) = (within(nearest(a, &Searched::new(b))), within(nearest(b, &Searched::new(a))));
    Ok(if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 })
}

/// A cloud in which neighbours are looked for: build it once where it is asked often.
pub(super) struct Searched<'a> {
    points: &'a [Point],
    tree: Option<ImmutableKdTree<f32, 3>>,
}

impl<'a> Searched<'a> {
    pub fn new(points: &'a [Point]) -> Self {
        let tree = (points.len() > SMALL).then(|| ImmutableKdTree::new_from_slice(points));
        Searched { points, tree }
    }

    /// The squared distance of `p` to its nearest neighbour, computed in f64 once the neighbour is known.
    fn nearest(&self, p: &Point) -> f64 {
        match &self.tree {
            Some(tree) => {
                let found = tree.nearest_one::<SquaredEuclidean>(p);
                self.points.get(found.item as usize).map_or(f64::INFINITY, |q| squared(p, q))
            }
            None => self.points.iter().map(|q| squared(p, q)).fold(f64::INFINITY, f64::min),
        }
    }
}

/// Squared distances of the points of `from` to their nearest neighbours.
fn nearest(from: &[Point], to: &Searched<'_>) -> Vec<f64> {
    from.iter().map(|p| to.nearest(p)).collect()
}

/// The Chamfer distance of two clouds whose trees exist.
pub(super) fn between(a: &Searched<'_>, b: &Searched<'_>) -> f64 {
    let mean = |d: Vec<f64>| d.iter().sum::<f64>() / d.len() as f64;
    mean(nearest(a.points, b)) + mean(nearest(b.points, a))
}
