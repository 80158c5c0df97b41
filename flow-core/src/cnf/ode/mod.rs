//! Solvers of ordinary differential equations over any state.

mod control;
mod method;
mod solve;
mod state;

pub use control::{Fallback, Pid, SolveOptions, Stepping};
pub use method::{Method, Tableau};
pub use solve::{RightHandSide, Solution, Statistics, Step, solve, solve_at, solve_recorded, step};
pub use state::{RowState, State, Tolerance};
