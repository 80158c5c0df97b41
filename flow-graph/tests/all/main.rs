//! The tests of this crate from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod common;
mod data_files;
mod data_kinds;
mod data_real;
mod device;
mod smiles_data;
mod smiles_fuzz;
