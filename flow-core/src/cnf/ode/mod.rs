//! Solvers of ordinary differential equations over any state.

mod state;

pub use state::{RowState, State, Tolerance};
mod shim;
pub use shim::*;
