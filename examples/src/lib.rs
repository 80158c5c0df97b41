//! What the example programs share.

pub mod cli;
pub mod glow;
pub mod plot;
