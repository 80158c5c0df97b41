//! Couplings: partition × transformer, even, odd and degenerate sizes, with and without context.

use crate::layers::Partition;
use crate::testing::{Case, smooth_coupling};
use crate::transformer::{Additive, Affine, LogisticMixture, RationalQuadraticSpline, ScaleBound, Transformer};
use crate::{Bijector, ParamPath, Result};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("Coupling", "affine with context", |p| affine(p, 4, false, 3)),
        Case::new("Coupling", "affine, alternating mask with context", |p| {
            smooth_coupling(p, &[5], Partition::alternating(5, false)?, Affine::new(ScaleBound::SoftClamp(2.0)), 2)
        }),
    ];
    for d in [2, 3, 5] {
        for swap in [false, true] {
            let case = Case::new("Coupling", &format!("affine, D = {d}, swap {swap}"), move |p| affine(p, d, swap, 0));
            let kept = if swap { d / 2..d } else { 0..d.div_ceil(2) };
            cases.push(case.pattern(move |i, j| i == j || (kept.contains(&j) && !kept.contains(&i))));
        }
    }
    cases.extend(each_partition("additive", || Ok(Additive)));
    cases.extend(each_partition("affine (sigmoid)", || Ok(Affine::new(ScaleBound::Sigmoid))));
    cases.extend(each_partition("affine (soft clamp)", || Ok(Affine::new(ScaleBound::SoftClamp(1.5)))));
    cases.extend(
        each_partition("spline", || RationalQuadraticSpline::new(5, 2.5))
            .into_iter()
            .map(|case| case.knots(&spline_knots(5, 2.5))),
    );
    cases.extend(each_partition("logistic mixture", || LogisticMixture::new(3)));
    cases.push(
        Case::new("Coupling", "spline of two bins with context", |p| {
            smooth_coupling(p, &[5], Partition::Channels { swap: true }, RationalQuadraticSpline::new(2, 3.0)?, 2)
        })
        .knots(&spline_knots(2, 3.0)),
    );
    cases.push(Case::new("Coupling", "logistic mixture of one with context", |p| {
        smooth_coupling(p, &[5], Partition::Channels { swap: false }, LogisticMixture::new(1)?, 2)
    }));
    cases
}

/// The knots of a spline whose parameters are zero; those of the linear tails stay whatever the parameters are.
pub(super) fn spline_knots(bins: usize, bound: f64) -> Vec<f64> {
    (0..=bins).map(|k| bound * (2.0 * k as f64 / bins as f64 - 1.0)).collect()
}

/// One transformer under every kind of partition.
pub(super) fn each_partition<T: Transformer + 'static>(
    name: &str,
    transformer: impl Fn() -> Result<T> + Clone + Send + Sync + 'static,
) -> Vec<Case> {
    type MakePartition = fn() -> Result<Partition>;
    let image: &[usize] = &[3, 2, 2];
    let partitions: [(&str, &[usize], MakePartition); 6] = [
        ("channels", image, || Ok(Partition::Channels { swap: false })),
        ("channels, swapped", image, || Ok(Partition::Channels { swap: true })),
        ("checkerboard", &[1, 2, 3], || Partition::checkerboard(&[1, 2, 3], false)),
        ("checkerboard, swapped", &[2, 2, 2], || Partition::checkerboard(&[2, 2, 2], true)),
        ("alternating", &[4], || Partition::alternating(4, false)),
        ("alternating, odd, swapped", &[3], || Partition::alternating(3, true)),
    ];
    let case = |(label, shape, partition): (&str, &'static [usize], MakePartition)| {
        let transformer = transformer.clone();
        Case::new("Coupling", &format!("{name}, {label}"), move |p| {
            smooth_coupling(p, shape, partition()?, transformer()?, 0)
        })
    };
    partitions.into_iter().map(case).collect()
}

/// A softly clamped affine coupling of a vector, with a context of `context` entries if not zero.
pub(super) fn affine(p: &ParamPath, d: usize, swap: bool, context: usize) -> Result<Box<dyn Bijector>> {
    smooth_coupling(p, &[d], Partition::Channels { swap }, Affine::new(ScaleBound::SoftClamp(2.0)), context)
}
