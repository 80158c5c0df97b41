//! Continuous flows and the normalization that goes with them.

use crate::cnf::ode::{Method, SolveOptions, Stepping};
use crate::cnf::{
    Cnf, CnfConfig, Concat, ConcatConfig, EndTime, FieldActivation, MlpField, MlpFieldConfig, VectorField,
};
use crate::layers::{MovingBatchNorm, MovingStatistics};
use crate::testing::Case;
use crate::{Bijector, FlowRng, ParamPath, Result};

pub(super) fn cases() -> Vec<Case> {
    [flows(), normalisations()].into_iter().flatten().collect()
}

fn flows() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dim, context) in [(1, None), (2, None), (3, None), (1, Some(2)), (2, Some(2)), (3, Some(2))] {
        // One network with each, and each network with every size.
        let activation = [FieldActivation::Tanh, FieldActivation::Softplus, FieldActivation::Swish][dim % 3];
        let learned = context.is_some();
        let label = |net: &str| format!("{net}, D = {dim}, {}", if learned { "with context" } else { "no context" });
        cases.push(Case::new("Cnf", &label("concat"), move |p| {
            let config = ConcatConfig { activation, context, ..ConcatConfig::new(&[4]) };
            flow(p, Concat::new(&p.pp("field"), dim, &config)?, learned, false)
        }));
        cases.push(Case::new("Cnf", &label("mlp"), move |p| {
            let config = MlpFieldConfig { activation, context, time_frequencies: 1, ..MlpFieldConfig::new(&[4]) };
            flow(p, MlpField::new(&p.pp("field"), dim, &config)?, learned, false)
        }));
    }
    cases.push(Case::new("Cnf", "steps of its own for each row", |p| {
        flow(p, Concat::new(&p.pp("field"), 2, &ConcatConfig::new(&[4]))?, false, true)
    }));
    cases
}

/// Four steps of order eight over a short time: both directions agree to the kit's tolerance, at little cost.
fn flow<F: VectorField + 'static>(
    path: &ParamPath,
    field: F,
    learned: bool,
    per_group_steps: bool,
) -> Result<Box<dyn Bijector>> {
    let end_time = if learned { EndTime::Learned { initial: 0.3 } } else { EndTime::Fixed(0.3) };
    let solver = SolveOptions { method: Method::Dopri8, stepping: Stepping::fixed(4), ..SolveOptions::default() };
    let config = CnfConfig { solver, end_time, per_group_steps, ..CnfConfig::default() };
    Ok(Box::new(Cnf::new(path, field, config)?))
}

fn normalisations() -> Vec<Case> {
    let case = |label: &str, dim: usize, kind| {
        Case::new("MovingBatchNorm", label, move |p| warm(p, MovingBatchNorm::new(p, dim, kind)?))
            .pattern(|i, j| i == j)
    };
    vec![
        case("D = 1", 1, MovingStatistics::PerAxis),
        case("D = 3", 3, MovingStatistics::PerAxis),
        case("mixed axes", 3, MovingStatistics::MixedAxes { points: 3 }),
    ]
}

/// Moves the running statistics away from zero and one.
fn warm(path: &ParamPath, norm: MovingBatchNorm) -> Result<Box<dyn Bijector>> {
    let (store, dim) = (path.store(), norm.event_shape()[0]);
    let x = FlowRng::seed_from(3).normal((9, dim), store.dtype(), store.device())?.affine(1.5, 0.7)?;
    for _ in 0..5 {
        norm.encode(&x, None)?;
    }
    Ok(Box::new(norm))
}
