//! From the data's coordinates to the model's, and back.

use serde::{Deserialize, Serialize};

use crate::{Error, Point, Result};

/// `(p − mean) / std`, entry by entry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Of every axis.
    pub mean: [f64; 3],
    /// Of every axis.
    pub std: [f64; 3],
}

/// What a [`Normalization`] is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormalizeMode {
    /// The mean of each axis and one deviation of all coordinates (PointFlow).
    Set,
    /// The mean and deviation of each axis.
    Axis,
    /// Nothing: data stay as they are.
    Nothing,
}

impl Normalization {
    /// Of all points of a training set.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when there are no points, or all lie at one place.
    pub fn of(clouds: &[Vec<Point>], mode: NormalizeMode) -> Result<Self> {
        if mode == NormalizeMode::Nothing {
            return Ok(Normalization { mean: [0.0; 3], std: [1.0; 3] });
        }
        let count = clouds.iter().map(Vec::len).sum::<usize>() as f64;
        let sum = |f: &dyn Fn(&Point, usize) -> f64| -> [f64; 3] {
            std::array::from_fn(|axis| clouds.iter().flatten().map(|p| f(p, axis)).sum())
        };
        let mean = sum(&|p, axis| f64::from(p[axis])).map(|s| s / count);
        let variance = sum(&|p, axis| (f64::from(p[axis]) - mean[axis]).powi(2)).map(|s| s / count);
        let std = match mode {
            NormalizeMode::Axis => variance.map(f64::sqrt),
            _ => [(variance.iter().sum::<f64>() / 3.0).sqrt(); 3],
        };
        if !std.iter().all(|s| *s > 0.0 && s.is_finite()) {
            let reason = format!("the training points have deviation {std:?} per axis; every one must be positive");
            return Err(Error::config("normalization", reason));
        }
        Ok(Normalization { mean, std })
    }

    /// To the model's coordinates.
    pub fn apply(&self, cloud: &[Point]) -> Vec<Point> {
        let one = |p: &Point| std::array::from_fn(|k| ((f64::from(p[k]) - self.mean[k]) / self.std[k]) as f32);
        cloud.iter().map(one).collect()
    }

    /// Back to the data's coordinates.
    pub fn undo(&self, cloud: &[Point]) -> Vec<Point> {
        let one = |p: &Point| std::array::from_fn(|k| (f64::from(p[k]) * self.std[k] + self.mean[k]) as f32);
        cloud.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_scale_for_all_axes_or_one_for_each() {
        let clouds = vec![vec![[0.0, 0.0, 5.0], [2.0, 4.0, 5.0]], vec![[0.0, 4.0, 7.0], [2.0, 0.0, 7.0]]];
        let set = Normalization::of(&clouds, NormalizeMode::Set).unwrap();
        assert_eq!((set.mean, set.std), ([1.0, 2.0, 6.0], [2.0_f64.sqrt(); 3]));
        let axis = Normalization::of(&clouds, NormalizeMode::Axis).unwrap();
        assert_eq!(axis.std, [1.0, 2.0, 1.0]);
        for n in [set, axis, Normalization::of(&clouds, NormalizeMode::Nothing).unwrap()] {
            let back = n.undo(&n.apply(&clouds[0]));
            assert!(back.iter().flatten().zip(clouds[0].iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-5));
        }
        let flat = vec![vec![[1.0, 2.0, 3.0]; 4]];
        assert!(Normalization::of(&flat, NormalizeMode::Set).unwrap_err().to_string().contains("positive"));
    }
}
