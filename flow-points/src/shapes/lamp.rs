//! Lamps: surfaces of revolution.

use flow_core::FlowRng;

use super::parts::{between, chance, lathe};
use crate::Mesh;

/// Base radius and height, a straight or bellied stem, height and opening of the shade, straight or curved.
pub(super) fn mesh(rng: &mut FlowRng) -> Mesh {
    let (base, foot) = (between(rng, 0.12, 0.24), between(rng, 0.02, 0.07));
    let (stem, height) = (between(rng, 0.012, 0.035), between(rng, 0.55, 1.05));
    let (wide, narrow) = (between(rng, 0.18, 0.38), between(rng, 0.35, 1.0));
    let shade = between(rng, 0.22, 0.42);
    let belly = if chance(rng, 0.5) { between(rng, 0.05, 0.14) } else { 0.0 };
    let middle = between(rng, 0.2, 0.5);
    let mut profile = vec![[0.0, 0.0], [base, 0.0], [base, 0.4 * foot], [stem, foot]];
    const STEPS: usize = 14;
    for k in 1..=STEPS {
        let s = k as f64 / STEPS as f64;
        // A bump of the belly's radius about its middle.
        let bump = belly * (-((s - middle) / 0.16).powi(2)).exp();
        profile.push([stem + bump, foot + s * (height - foot)]);
    }
    let mut mesh = lathe([0.0, 0.0], &profile);
    let curve = between(rng, -0.25, 0.25);
    let bottom = height - shade * between(rng, 0.4, 0.9);
    let side: Vec<[f64; 2]> = (0..=8)
        .map(|k| {
            let s = k as f64 / 8.0;
            let straight = wide * (1.0 - s + s * narrow);
            [straight * (1.0 + curve * s * (1.0 - s)), bottom + s * shade]
        })
        .collect();
    mesh.append(&lathe([0.0, 0.0], &side));
    if chance(rng, 0.4) {
        // A closed top.
        mesh.append(&lathe([0.0, 0.0], &[[wide * narrow, bottom + shade], [0.0, bottom + shade]]));
    }
    mesh
}
