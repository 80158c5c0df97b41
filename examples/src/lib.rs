//! What the example programs share.

pub mod bench;
pub mod cli;
pub mod density;
pub mod engine;
pub mod glow;
pub mod graphaf;
pub mod info;
mod paths;
pub mod plot;
pub mod pointflow;
pub mod solver;
pub mod training;
