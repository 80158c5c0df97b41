//! The tests of this crate from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod device;
mod formats;
mod fuzz;
mod malformed;
mod mel;
mod open;
mod real_clips;
mod support;
mod wav;
mod waveflow;
mod waveglow;
