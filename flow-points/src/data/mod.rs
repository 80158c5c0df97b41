//! Data sets of shapes: files and folders, splits, normalization, the points of a step.

mod normalization;
mod open;
mod points;
mod splits;

pub use normalization::{Normalization, NormalizeMode};
pub use open::{Attributes, Loaded, OpenOptions, PointSet, built_in, open};
pub use points::{rotate_about_y, train_places, train_points, warp};
pub use splits::SplitSource;
