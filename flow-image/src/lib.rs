//! Image

pub mod model;
