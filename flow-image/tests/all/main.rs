//! The tests of this crate from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod device;
mod houses;
mod malformed;
mod real_data;
