//! Point clouds as flows: PointFlow on `flow-core`.

mod cloud;
pub mod data;
mod error;
pub mod io;
mod mesh;
pub mod metrics;
pub mod model;
pub mod render;
pub mod shapes;
pub mod trainer;

pub use cloud::{Cloud, Mesh, Point};
pub use error::{Error, Result};
