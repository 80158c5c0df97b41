//! Maps onto the domains of parameters, and several of them side by side.

use super::couplings::affine;
use crate::Bijector;
use crate::layers::constraint::{CorrelationCholesky, Interval, Link, Ordered, Positive, Simplex};
use crate::layers::{Blockwise, Identity, Scaling};
use crate::testing::{Case, Domain};

const OVERFLOWS: &str = "eᶻ overflows in f32 beyond 88";
const CANCELS: &str = "what is left of one, and gaps, lose digits to cancellation in f32";

pub(super) fn cases() -> Vec<Case> {
    let above = Domain::Interval(0.0, 4.0);
    let decoded = |case: Case| case.domains(Domain::Decoded, Domain::Real).looser(20.0, CANCELS);
    let exponential = |case: Case| case.reach(80.0, OVERFLOWS).far(80.0, OVERFLOWS);
    vec![
        Case::new("Positive", "soft-plus", |_| Ok(Box::new(Positive::new(&[2, 2], Link::Softplus))))
            .domains(above, Domain::Real),
        exponential(Case::new("Positive", "exponential", |_| Ok(Box::new(Positive::new(&[3], Link::Exponential)))))
            .domains(above, Domain::Real),
        Case::new("Interval", "angles", |_| Ok(Box::new(Interval::new(&[3], -3.0, 5.0)?)))
            .domains(Domain::Interval(-3.0, 5.0), Domain::Real),
        decoded(Case::new("Simplex", "four cases", |_| Ok(Box::new(Simplex::new(4)?)))),
        decoded(Case::new("Simplex", "two cases", |_| Ok(Box::new(Simplex::new(2)?)))),
        decoded(Case::new("CorrelationCholesky", "four variables", |_| Ok(Box::new(CorrelationCholesky::new(4)?)))),
        decoded(Case::new("CorrelationCholesky", "two variables", |_| Ok(Box::new(CorrelationCholesky::new(2)?)))),
        decoded(Case::new("Ordered", "soft-plus", |_| Ok(Box::new(Ordered::new(4, Link::Softplus)?)))),
        exponential(decoded(Case::new("Ordered", "exponential", |_| {
            Ok(Box::new(Ordered::new(3, Link::Exponential)?))
        }))),
        Case::new("Ordered", "one entry", |_| Ok(Box::new(Ordered::new(1, Link::Softplus)?))),
        Case::new("Identity", "image", |_| Ok(Box::new(Identity::new(&[2, 3])))),
        decoded(Case::new("Blockwise", "real, positive, ordered", |p| {
            let parts: Vec<Box<dyn Bijector>> = vec![
                Box::new(Scaling::new(p, &[2])?),
                Box::new(Positive::new(&[1], Link::Softplus)),
                Box::new(Ordered::new(2, Link::Softplus)?),
            ];
            Ok(Box::new(Blockwise::new(parts)?))
        })),
        Case::new("Blockwise", "a coupling with context", |p| {
            Ok(Box::new(Blockwise::new(vec![Box::new(Identity::new(&[1])), affine(p, 3, false, 2)?])?))
        }),
    ]
}
