//! Tables.

use flow_core::FlowRng;

use super::parts::{between, chance, cuboid, hexahedron, lathe, rod};
use crate::Mesh;

/// Shape, size and thickness of the top; height; four legs, a column or side walls; a shelf or a stretcher.
pub(super) fn mesh(rng: &mut FlowRng) -> Mesh {
    let (h, t) = (between(rng, 0.35, 0.75), between(rng, 0.025, 0.07));
    let round = chance(rng, 0.35);
    let w = between(rng, 0.7, 1.3);
    let d = if round { w } else { between(rng, 0.45, 0.8) };
    let mut mesh = if round {
        let r = w / 2.0;
        lathe([0.0, 0.0], &[[0.0, h - t], [r, h - t], [r, h], [0.0, h]])
    } else {
        cuboid([0.0, h - t / 2.0, 0.0], [w, t, d])
    };
    let top = h - t;
    match rng.below(6) {
        0 => column(&mut mesh, top, w.min(d), rng),
        1 if !round => walls(&mut mesh, top, [w, d], rng),
        _ => legs(&mut mesh, top, [w, d], if round { 0.62 } else { 0.94 }, rng),
    }
    mesh
}

fn legs(mesh: &mut Mesh, top: f64, [w, d]: [f64; 2], inset: f64, rng: &mut FlowRng) {
    let (thick, splay) = (between(rng, 0.018, 0.05), between(rng, 0.0, 0.06));
    let square = chance(rng, 0.5);
    let (x, z) = (w / 2.0 * inset - thick, d / 2.0 * inset - thick);
    for (i, j) in [(-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)] {
        let (foot, head) = ([i * (x + splay), 0.0, j * (z + splay)], [i * x, top, j * z]);
        if square {
            let ring =
                |c: [f64; 3], r: f64| [(-r, -r), (r, -r), (r, r), (-r, r)].map(|(a, b)| [c[0] + a, c[1], c[2] + b]);
            mesh.append(&hexahedron(ring(foot, 0.8 * thick), ring(head, thick)));
        } else {
            mesh.append(&rod(foot, head, [0.7 * thick, thick]));
        }
    }
    if chance(rng, 0.3) {
        let y = between(rng, 0.15, 0.35) * top;
        mesh.append(&cuboid([0.0, y, 0.0], [2.0 * x, 0.025, 2.0 * z]));
    } else if chance(rng, 0.4) {
        let apron = between(rng, 0.05, 0.1);
        for j in [-1.0, 1.0] {
            mesh.append(&cuboid([0.0, top - apron / 2.0, j * z], [2.0 * x, apron, 0.02]));
            mesh.append(&cuboid([j * x, top - apron / 2.0, 0.0], [0.02, apron, 2.0 * z]));
        }
    }
}

fn column(mesh: &mut Mesh, top: f64, size: f64, rng: &mut FlowRng) {
    let (r, foot) = (between(rng, 0.03, 0.08), between(rng, 0.25, 0.4) * size);
    let base = between(rng, 0.02, 0.08);
    mesh.append(&lathe([0.0, 0.0], &[[0.0, 0.0], [foot, 0.0], [foot, 0.3 * base], [r, base], [r, top]]));
}

fn walls(mesh: &mut Mesh, top: f64, [w, d]: [f64; 2], rng: &mut FlowRng) {
    let t = between(rng, 0.025, 0.06);
    for x in [-1.0, 1.0] {
        mesh.append(&cuboid([x * (w / 2.0 - t / 2.0), top / 2.0, 0.0], [t, top, d]));
    }
    if chance(rng, 0.6) {
        let height = between(rng, 0.2, 0.7) * top;
        mesh.append(&cuboid([0.0, top - height / 2.0, -d / 2.0 + 0.02], [w - 2.0 * t, height, 0.02]));
    }
}
