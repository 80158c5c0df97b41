//! What the example programs share.

pub mod bench;
pub mod cli;
pub mod glow;
pub mod plot;
