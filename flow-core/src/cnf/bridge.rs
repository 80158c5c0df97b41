//! What a flow needs of a solver's configuration.

use super::direct::Coefficients;
use super::ode::{Method, SolveOptions, Stepping};

impl SolveOptions {
    /// The same options for a time that runs `factor` times as far.
    pub(super) fn scaled(&self, factor: f64) -> Self {
        let mut options = self.clone();
        for times in [&mut options.step_times, &mut options.jump_times] {
            times.iter_mut().for_each(|t| *t *= factor);
        }
        if let Stepping::Adaptive { first_step, min_step, max_step, .. } = &mut options.stepping {
            *min_step *= factor;
            for step in [first_step, max_step].into_iter().flatten() {
                *step *= factor;
            }
        }
        options
    }
}

impl Coefficients {
    /// The coefficients of a method.
    pub(super) fn of(method: Method) -> Self {
        let tableau = method.tableau();
        let a = tableau.a.iter().map(|row| row.to_vec()).collect();
        Coefficients { a, b: tableau.b.to_vec(), c: tableau.c.to_vec() }
    }
}
