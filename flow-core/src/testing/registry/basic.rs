//! Elementwise layers and the combinators.

use super::couplings::affine;
use crate::chain::{Chain, Inverse};
use crate::layers::ActNorm;
use crate::testing::Case;
use crate::{Bijector, ParamPath, Result};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("ActNorm", "image", |p| Ok(Box::new(ActNorm::new(p, &[3, 2, 2])?))),
        Case::new("ActNorm", "D = 1", |p| Ok(Box::new(ActNorm::new(p, &[1])?))),
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

/// Actnorm, then two couplings that take turns.
fn mixed(p: &ParamPath, d: usize) -> Result<Chain> {
    let layers: Vec<Box<dyn Bijector>> = vec![
        Box::new(ActNorm::new(&p.pp("norm"), &[d])?),
        affine(&p.pp("first"), d, false, 0)?,
        affine(&p.pp("second"), d, true, 0)?,
    ];
    Chain::new(layers)
}
