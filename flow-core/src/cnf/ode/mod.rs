//! Solvers of ordinary differential equations over any state.
//!
//! A [`State`] can be scaled, added and measured: vectors, tensors, tuples of tensors. Explicit Runge–Kutta methods move it
//! with equal steps or with steps that follow the error, forward or backward in time, all rows together ([`solve`]) or each
//! with steps of its own ([`solve_rows`]). Time is in f64 whatever the state.
//!
//! ```
//! use flow_core::cnf::ode::{SolveOptions, Stepping, solve};
//!
//! # fn main() -> flow_core::Result<()> {
//! let options = SolveOptions::default().stepping(Stepping::adaptive(1e-9, 1e-9));
//! let decay = solve(&mut |_, y: &[f64; 1]| Ok([-y[0]]), &[1.0], [0.0, 2.0], &options)?;
//! assert!((decay.y[0] - (-2.0_f64).exp()).abs() < 1e-8);
//! # Ok(())
//! # }
//! ```

mod control;
mod dense;
mod event;
mod method;
mod rows;
mod solve;
mod state;
mod tensors;

pub use control::{Fallback, Pid, SolveOptions, Stepping};
pub use dense::{DenseSolution, solve_dense};
pub use event::{Crossing, Event, EventSolution, Occurrence, solve_events};
pub use method::{Method, Tableau};
pub use rows::{RowRightHandSide, RowSolution, RowStep, RowTimes, solve_rows, solve_rows_recorded, step_rows};
pub(super) use solve::stage_time;
pub use solve::{RightHandSide, Solution, Statistics, Step, solve, solve_at, solve_recorded, step};
pub use state::{RowState, State, Tolerance};
pub use tensors::Parts;
