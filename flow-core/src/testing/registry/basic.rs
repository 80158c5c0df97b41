//! Combinators, normalisations, scalings, preprocessing and reshaping.

use super::couplings::affine;
use crate::bijector::{Chain, Inverse};
use crate::layers::{ActNorm, BatchNorm, Gaussianize, GaussianizeGuessed, Logit, Partition, Scaling, Sigmoid, Squeeze};
use crate::testing::{Case, Domain};
use crate::{Bijector, FlowRng, ParamPath, Result};

pub(super) fn cases() -> Vec<Case> {
    [combinators(), normalisations(), preprocessing(), reshaping()].into_iter().flatten().collect()
}

fn combinators() -> Vec<Case> {
    vec![
        Case::new("Chain", "actnorm and couplings", |p| Ok(Box::new(mixed(p, 3)?))),
        Case::new("Chain", "nested, with an inverse inside", |p| {
            let inner = Chain::new(vec![Box::new(Inverse(mixed(&p.pp("inner"), 3)?))])?;
            Ok(Box::new(Chain::new(vec![Box::new(mixed(&p.pp("outer"), 3)?), Box::new(inner)])?))
        }),
        Case::new("Chain", "one layer uses the context, one does not", |p| {
            let coupling = affine(&p.pp("coupling"), 3, false, 2)?;
            Ok(Box::new(Chain::new(vec![Box::new(ActNorm::new(&p.pp("norm"), &[3])?), coupling])?))
        }),
        Case::new("Inverse", "of an actnorm", |p| Ok(Box::new(Inverse(ActNorm::new(p, &[2, 3])?)))),
        Case::new("Inverse", "of a coupling with context", |p| Ok(Box::new(Inverse(affine(p, 3, true, 2)?)))),
        Case::new("Inverse", "of an inverse of a chain", |p| Ok(Box::new(Inverse(Inverse(mixed(p, 3)?))))),
    ]
}

fn normalisations() -> Vec<Case> {
    vec![
        Case::new("ActNorm", "image", |p| Ok(Box::new(ActNorm::new(p, &[3, 2, 2])?))),
        Case::new("ActNorm", "D = 1", |p| Ok(Box::new(ActNorm::new(p, &[1])?))),
        Case::new("Scaling", "image", |p| Ok(Box::new(Scaling::new(p, &[2, 1, 3])?))),
        Case::new("Scaling", "D = 1", |p| Ok(Box::new(Scaling::new(p, &[1])?))),
        Case::new("BatchNorm", "image", |p| warm(p, BatchNorm::new(p, &[3, 2, 2])?)),
        Case::new("BatchNorm", "D = 1", |p| warm(p, BatchNorm::new(p, &[1])?)),
        Case::new("BatchNorm", "vector with scale and shift", |p| warm(p, BatchNorm::new(p, &[4])?.with_affine(p)?)),
        Case::new("BatchNorm", "after a checkerboard coupling", |p| {
            warm(p, BatchNorm::new(p, &[2, 2, 2])?.on_transformed(&Partition::checkerboard(&[2, 2, 2], true)?)?)
        }),
        Case::new("BatchNorm", "after a channel coupling, with scale and shift", |p| {
            warm(p, BatchNorm::new(p, &[3, 2])?.on_transformed(&Partition::Channels { swap: true })?.with_affine(p)?)
        }),
    ]
}

fn preprocessing() -> Vec<Case> {
    let unit = Domain::Interval(0.0, 1.0);
    const ROUNDS: &str = "beyond ±16 a f32 sigmoid rounds to the end of the unit interval";
    vec![
        Case::new("Gaussianize", "two channels", |p| Ok(Box::new(Gaussianize::new(p, &[2, 3], 5, -0.5, 0.5)?)))
            .domains(Domain::Interval(-0.5, 0.5), Domain::Real),
        Case::new("Gaussianize", "one entry", |p| Ok(Box::new(Gaussianize::new(p, &[1], 3, 0.0, 2.0)?)))
            .domains(Domain::Interval(0.0, 2.0), Domain::Real),
        Case::new("GaussianizeGuessed", "two channels, three classes", |p| {
            Ok(Box::new(GaussianizeGuessed::new(p, &[2, 3], 3, 5, [-0.5, 0.5])?))
        })
        .domains(Domain::Interval(-0.5, 0.5), Domain::Real),
        Case::new("Logit", "alpha .05", |_| Ok(Box::new(Logit::new(&[2, 2], 0.05)?))).domains(unit, Domain::Real),
        Case::new("Logit", "alpha 0", |_| Ok(Box::new(Logit::new(&[3], 0.0)?))).domains(unit, Domain::Real),
        Case::new("Sigmoid", "vector", |_| Ok(Box::new(Sigmoid::new(&[3]))))
            .domains(Domain::Real, unit)
            .reach(15.0, ROUNDS),
    ]
}

fn reshaping() -> Vec<Case> {
    vec![
        Case::new("Squeeze", "2×2", |_| Ok(Box::new(Squeeze::new(&[2, 2, 4], 2)?))),
        Case::new("Squeeze", "3×3", |_| Ok(Box::new(Squeeze::new(&[1, 3, 3], 3)?))),
        Case::new("Squeeze", "in checkerboard order", |_| Ok(Box::new(Squeeze::ordered(&[2, 2, 2])?))),
    ]
}

/// A batch normalisation whose running averages are no longer zero and one.
fn warm(p: &ParamPath, layer: BatchNorm) -> Result<Box<dyn Bijector>> {
    let x = Domain::Real.draw(8, layer.event_shape(), p.store().dtype(), &mut FlowRng::seed_from(2))?;
    layer.set_training(true);
    (0..20).try_for_each(|_| layer.encode(&x.affine(2.0, 1.0)?, None).map(drop))?;
    layer.set_training(false);
    Ok(Box::new(layer))
}

/// Actnorm, then two couplings that take turns.
fn mixed(p: &ParamPath, d: usize) -> Result<Chain> {
    let layers: Vec<Box<dyn Bijector>> = vec![
        Box::new(ActNorm::new(&p.pp("norm"), &[d])?),
        affine(&p.pp("first"), d, false, 0)?,
        affine(&p.pp("second"), d, true, 0)?,
    ];
    Chain::new(layers)
}
