//! How straight the paths of a continuous flow are: what the verbs `straighten` report.

use std::path::Path;

use anyhow::Result;
use candle_core::Tensor;
use flow_core::cnf::VectorField;
use flow_core::cnf::matching::{FewSteps, sample_few_steps, straightness};
use flow_core::cnf::ode::Method;
use flow_core::files::atomic_write;
use serde::Serialize;

/// Steps in which a teacher is solved, and paths are measured.
pub(crate) const SOLVED: usize = 64;

/// Paths before and after.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) before: Paths,
    pub(crate) after: Paths,
}

impl Report {
    /// A table on stdout, and `report.json` in the folder.
    pub(crate) fn print_and_write(&self, out: &Path) -> Result<()> {
        println!("        bend     RMS distance from the teacher's samples after 1, 2, 4, 8 Euler steps");
        println!("before  {}\nafter   {}", self.before, self.after);
        Ok(atomic_write(&out.join("report.json"), serde_json::to_string_pretty(self)?.as_bytes())?)
    }
}

/// The paths of a flow.
#[derive(Debug, Serialize)]
pub(crate) struct Paths {
    /// The share of the squared velocity that is not along the mean velocity; 0 for straight paths.
    bend: f64,
    /// The root mean square distance to the teacher's samples after 1, 2, 4, 8 Euler steps, in the units of the noise.
    few_steps: [f64; 4],
}

impl Paths {
    /// Of a field from `noise`, of which the teacher made `samples`, both `(B, D)`. Pause the tracking of the store.
    pub(crate) fn of(
        field: &dyn VectorField,
        noise: &Tensor,
        samples: &Tensor,
        context: Option<&Tensor>,
        end_time: f64,
    ) -> Result<Self> {
        let bend = straightness(field, noise, context, FewSteps { steps: SOLVED, method: Method::Heun, end_time })?;
        let mut few_steps = [0.0; 4];
        for (slot, steps) in few_steps.iter_mut().zip([1, 2, 4, 8]) {
            let made = sample_few_steps(field, noise, context, FewSteps { steps, method: Method::Euler, end_time })?;
            let square = (made - samples)?.sqr()?.sum(1)?.mean(0)?.to_scalar::<f32>()?;
            *slot = f64::from(square).sqrt();
        }
        Ok(Paths { bend, few_steps })
    }
}

impl std::fmt::Display for Paths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.4}  ", self.bend)?;
        self.few_steps.iter().try_for_each(|error| write!(f, " {error:.4}"))
    }
}
