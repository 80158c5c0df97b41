//! Planar, radial and Sylvester flows, closed in one direction, and their inverses, closed in the other.

use crate::layers::{Planar, PlanarChain, Radial, RadialChain, Sylvester, SylvesterChain};
use crate::testing::Case;
use crate::{Bijector, Inverse, ParamPath, Result};

const SIGN: &str = "a reflection of the line is its sign, whatever the vector";
const UPPER: &str = "a triangle of one row has nothing above its diagonal";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for d in [1, 2, 5] {
        cases.extend(both("Planar", &format!("D = {d}"), move |p| Planar::new(p, d)));
        cases.extend(both("Radial", &format!("D = {d}"), move |p| Radial::new(p, d)));
    }
    for (d, k) in [(1, 1), (2, 3), (5, 2)] {
        let label = |what: &str| format!("D = {d}, K = {k}, {what}");
        cases.extend(both("PlanarChain", &label("shared"), move |p| PlanarChain::new(p, d, k)));
        cases.extend(both("PlanarChain", &label("amortized"), move |_| PlanarChain::amortized(d, k)));
        let layers = move |p: &ParamPath| (0..k).map(|i| Planar::new(&p.pp(i), d)).collect::<Result<Vec<_>>>();
        cases.extend(both("PlanarChain", &label("of layers"), move |p| PlanarChain::of_layers(layers(p)?)));
        cases.extend(both("RadialChain", &label("shared"), move |p| RadialChain::new(p, d, k)));
        cases.extend(both("RadialChain", &label("amortized"), move |_| RadialChain::amortized(d, k)));
    }
    for (d, m) in [(1, 1), (2, 2), (5, 3), (3, 1)] {
        let pair = both("Sylvester", &format!("D = {d}, M = {m}"), move |p| Sylvester::new(p, d, m));
        cases.extend(pair.map(|case| if d == 1 { case.idle("v", SIGN) } else { case }).map(|case| match m {
            1 => case.idle("r", UPPER),
            _ => case,
        }));
    }
    for (d, m, k) in [(1, 1, 1), (4, 2, 2), (3, 3, 1)] {
        let label = format!("D = {d}, M = {m}, K = {k}, amortized");
        cases.extend(both("SylvesterChain", &label, move |_| SylvesterChain::amortized(d, m, k)));
    }
    cases
}

/// The layer and its inverse.
fn both<B: Bijector + 'static>(
    name: &str,
    label: &str,
    build: impl Fn(&ParamPath) -> Result<B> + Clone + Send + Sync + 'static,
) -> [Case; 2] {
    let again = build.clone();
    [
        Case::new(name, label, move |p| Ok(Box::new(build(p)?))),
        Case::new("Inverse", &format!("of {name}, {label}"), move |p| Ok(Box::new(Inverse(again(p)?)))),
    ]
}
