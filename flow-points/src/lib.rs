//! Point clouds as flows: PointFlow on `flow-core`.

mod cloud;
mod error;
pub mod model;

pub use cloud::{Cloud, Mesh, Point};
pub use error::{Error, Result};
