//! The tests of this crate from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod common;
mod data;
mod device;
mod fuzz;
mod malformed;
mod readers;
