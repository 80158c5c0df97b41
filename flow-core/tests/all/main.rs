//! The tests of this crate from outside, one program: building and linking one is quicker than a dozen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod cnf;
mod common;
mod continuous;
mod density;
mod device;
mod integral;
#[cfg(unix)]
mod kill;
mod last_validation;
mod matching;
#[cfg(all(unix, feature = "mpi"))]
mod mpi;
mod ode;
mod ranks;
mod registry;
mod resume;
mod stability;
mod straighten;
mod toy;
mod training;
mod trust;
