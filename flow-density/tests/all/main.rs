//! The crate from outside: every builder under the test kit, integrals, and runs that were made before the crate was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod before;
mod builders;
mod classes;
mod device;
mod far;
mod fuzz;
mod integral;
#[cfg(feature = "parquet")]
mod parquet;
mod posterior;
mod variational;
