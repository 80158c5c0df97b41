//! The programs from outside: every verb, bad input, runs that are killed, and checkpoints of former versions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod checkpoints;
mod density;
mod dlgm;
mod glow;
mod graphaf;
mod pointflow;
mod ranks;
mod resume;
mod shared;
mod videoflow;
mod waveflow;
