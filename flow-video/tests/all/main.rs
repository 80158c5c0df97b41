//! The tests of this crate from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod actions;
mod device;
#[cfg(feature = "ffmpeg")]
mod ffmpeg;
mod formats;
mod fuzz;
mod malformed;
mod model;
mod open;
mod parity;
mod real_clips;
mod support;
