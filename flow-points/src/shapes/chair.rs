//! Chairs.

use flow_core::FlowRng;

use super::parts::{between, chance, cuboid, hexahedron, lathe, rod};
use crate::Mesh;

/// Width, depth and height of the seat; thickness; legs, a pedestal or a sled; a straight or leaning back, solid, slatted
/// or barred; arms.
pub(super) fn mesh(rng: &mut FlowRng) -> Mesh {
    let (w, d) = (between(rng, 0.40, 0.62), between(rng, 0.40, 0.60));
    let (h, t) = (between(rng, 0.36, 0.50), between(rng, 0.025, 0.09));
    let mut mesh = cuboid([0.0, h - t / 2.0, 0.0], [w, t, d]);
    match rng.below(10) {
        0 | 1 => pedestal(&mut mesh, h - t, w.min(d), rng),
        2 => sled(&mut mesh, h - t, [w, d], rng),
        _ => legs(&mut mesh, h - t, [w, d], rng),
    }
    let back = between(rng, 0.36, 0.62);
    let lean = between(rng, 0.0, 0.16);
    backrest(&mut mesh, h, [w, d], back, lean, rng);
    if chance(rng, 0.4) {
        arms(&mut mesh, h, [w, d], rng);
    }
    mesh
}

fn legs(mesh: &mut Mesh, top: f64, [w, d]: [f64; 2], rng: &mut FlowRng) {
    let (thick, splay, taper) = (between(rng, 0.015, 0.035), between(rng, 0.0, 0.07), between(rng, 0.6, 1.0));
    let square = chance(rng, 0.4);
    for (x, z) in [(-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)] {
        let at = |out: f64, y: f64| [x * (w / 2.0 - thick + out), y, z * (d / 2.0 - thick + out)];
        if square {
            let ring =
                |c: [f64; 3], r: f64| [(-r, -r), (r, -r), (r, r), (-r, r)].map(|(a, b)| [c[0] + a, c[1], c[2] + b]);
            mesh.append(&hexahedron(ring(at(splay, 0.0), thick * taper), ring(at(0.0, top), thick)));
        } else {
            mesh.append(&rod(at(splay, 0.0), at(0.0, top), [thick * taper, thick]));
        }
    }
    if chance(rng, 0.3) {
        let y = between(rng, 0.3, 0.6) * top;
        for x in [-1.0, 1.0] {
            let x = x * (w / 2.0 - thick);
            mesh.append(&rod([x, y, -d / 2.0 + thick], [x, y, d / 2.0 - thick], [0.6 * thick; 2]));
        }
    }
}

fn pedestal(mesh: &mut Mesh, top: f64, size: f64, rng: &mut FlowRng) {
    let (r, foot) = (between(rng, 0.02, 0.04), between(rng, 0.36, 0.52) * size);
    let base = between(rng, 0.03, 0.07);
    mesh.append(&lathe([0.0, 0.0], &[[r, base], [r, top]]));
    if chance(rng, 0.5) {
        mesh.append(&lathe([0.0, 0.0], &[[0.0, 0.0], [foot, 0.0], [foot, 0.4 * base], [r, base]]));
    } else {
        let arms = 4 + rng.below(2);
        for k in 0..arms {
            let (s, c) = (std::f64::consts::TAU * k as f64 / arms as f64).sin_cos();
            mesh.append(&rod([0.0, base, 0.0], [foot * c, 0.018, foot * s], [0.024, 0.018]));
        }
    }
}

fn sled(mesh: &mut Mesh, top: f64, [w, d]: [f64; 2], rng: &mut FlowRng) {
    let r = between(rng, 0.013, 0.025);
    for x in [-1.0, 1.0] {
        let x = x * (w / 2.0 - r);
        let (front, back) = (d / 2.0 - r, -d / 2.0 + r);
        mesh.append(&rod([x, r, back], [x, r, front], [r; 2]));
        mesh.append(&rod([x, r, front], [x, top, front], [r; 2]));
        mesh.append(&rod([x, r, back], [x, top, back], [r; 2]));
    }
}

fn backrest(mesh: &mut Mesh, h: f64, [w, d]: [f64; 2], height: f64, lean: f64, rng: &mut FlowRng) {
    let t = between(rng, 0.02, 0.05);
    let z = |y: f64| -d / 2.0 + t / 2.0 - lean * (y - h) / height;
    let slab = |x: f64, width: f64, low: f64, high: f64| {
        let ring = |y: f64| {
            let (c, h) = (z(y), t / 2.0);
            [
                [x - width / 2.0, y, c - h],
                [x + width / 2.0, y, c - h],
                [x + width / 2.0, y, c + h],
                [x - width / 2.0, y, c + h],
            ]
        };
        hexahedron(ring(low), ring(high))
    };
    match rng.below(3) {
        0 => {
            let low = h + between(rng, 0.0, 0.14);
            mesh.append(&slab(0.0, w, low, h + height));
            if low > h + 0.02 {
                for x in [-0.4, 0.4] {
                    mesh.append(&slab(x * w, 0.035, h, low));
                }
            }
        }
        kind => {
            let post = between(rng, 0.03, 0.05);
            for x in [-1.0, 1.0] {
                mesh.append(&slab(x * (w - post) / 2.0, post, h, h + height));
            }
            let bars = 2 + rng.below(4);
            for k in 0..bars {
                if kind == 1 {
                    let y = h + height * (k as f64 + 1.0) / bars as f64;
                    mesh.append(&slab(0.0, w, y - 0.055, y));
                } else {
                    let x = w * ((k as f64 + 1.0) / (bars as f64 + 1.0) - 0.5);
                    mesh.append(&slab(x, 0.032, h, h + height));
                }
            }
            if kind == 2 {
                mesh.append(&slab(0.0, w, h + height - 0.06, h + height));
            }
        }
    }
}

fn arms(mesh: &mut Mesh, h: f64, [w, d]: [f64; 2], rng: &mut FlowRng) {
    let (rise, width) = (between(rng, 0.16, 0.25), between(rng, 0.03, 0.07));
    let length = between(rng, 0.7, 1.0) * d;
    for x in [-1.0, 1.0] {
        let x = x * (w / 2.0 + width / 4.0);
        mesh.append(&cuboid([x, h + rise, -d / 2.0 + length / 2.0], [width, 0.03, length]));
        let z = -d / 2.0 + length - 0.03;
        mesh.append(&rod([x, h - 0.02, z], [x, h + rise, z], [0.016; 2]));
    }
}
