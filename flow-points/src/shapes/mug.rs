//! Mugs: a cup with a thick wall and a handle towards `+x`.

use flow_core::FlowRng;

use super::parts::{between, lathe, tube};
use crate::Mesh;

/// Radius, height, flare, belly and wall of the cup; size, place, squareness and thickness of the handle.
pub(super) fn mesh(rng: &mut FlowRng) -> Mesh {
    let (r, h) = (between(rng, 0.28, 0.42), between(rng, 0.55, 0.95));
    let (flare, belly) = (between(rng, -0.12, 0.18), between(rng, -0.06, 0.14));
    let (wall, floor) = (between(rng, 0.02, 0.05), between(rng, 0.03, 0.07));
    let outside = |s: f64| r * (1.0 + flare * (s - 0.5)) + belly * r * (std::f64::consts::PI * s).sin();
    const STEPS: usize = 10;
    let steps = || (0..=STEPS).map(|k| k as f64 / STEPS as f64);
    let mut profile = vec![[0.0, 0.0]];
    profile.extend(steps().map(|s| [outside(s), s * h]));
    let start = floor / h;
    let inside = |s: f64| (start + s * (1.0 - start), outside(start + s * (1.0 - start)) - wall);
    profile.extend(steps().rev().map(|s| [inside(s).1, inside(s).0 * h]));
    profile.push([0.0, floor]);
    let mut mesh = lathe([0.0, 0.0], &profile);
    let (size, reach) = (between(rng, 0.22, 0.36) * h, between(rng, 0.16, 0.30));
    let middle = between(rng, 0.45, 0.6);
    let (thick, square) = (between(rng, 0.025, 0.05), between(rng, 0.5, 1.0));
    let path: Vec<[f64; 3]> = (0..=16)
        .map(|k| {
            let (s, c) = (std::f64::consts::PI * (k as f64 / 16.0 - 0.5)).sin_cos();
            // An exponent below one makes the arc squarer.
            let round = |v: f64| v.signum() * v.abs().powf(square);
            let y = middle * h + size * round(s);
            let from = outside((y / h).clamp(0.0, 1.0)) - 0.5 * wall;
            [from + reach * round(c.max(0.0)), y, 0.0]
        })
        .collect();
    mesh.append(&tube(&path, [thick; 2], 10));
    mesh
}
