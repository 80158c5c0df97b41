//! Names of solvers on the command line.

use clap::ValueEnum;
use flow_core::cnf::ode::Method;

/// An explicit Runge–Kutta method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SolverName {
    /// Order 1, one evaluation a step.
    Euler,
    /// Order 2, two evaluations a step.
    Midpoint,
    /// Order 2, two evaluations a step.
    Heun,
    /// Order 4, four evaluations a step.
    Rk4,
    /// Order 3, three evaluations a step.
    Bosh3,
    /// Order 5, six evaluations a step.
    Dopri5,
    /// Order 5, six evaluations a step.
    Tsit5,
    /// Order 8, thirteen evaluations a step.
    Dopri8,
}

impl SolverName {
    /// The method of this name.
    pub fn method(self) -> Method {
        match self {
            SolverName::Euler => Method::Euler,
            SolverName::Midpoint => Method::Midpoint,
            SolverName::Heun => Method::Heun,
            SolverName::Rk4 => Method::Rk4,
            SolverName::Bosh3 => Method::Bosh3,
            SolverName::Dopri5 => Method::Dopri5,
            SolverName::Tsit5 => Method::Tsit5,
            SolverName::Dopri8 => Method::Dopri8,
        }
    }
}
