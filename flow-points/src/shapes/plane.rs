//! Planes, nose towards `+z`.

use flow_core::FlowRng;

use super::parts::{between, chance, lathe_along_z, wing};
use crate::Mesh;

/// Length and radius of the fuselage; span, sweep, taper, dihedral and place of the wings; tail plane and fin; engines
/// under the wings, at the tail or none.
pub(super) fn mesh(rng: &mut FlowRng) -> Mesh {
    let (length, r) = (between(rng, 1.1, 1.6), between(rng, 0.055, 0.095));
    let nose = between(rng, 0.10, 0.20);
    let tail = between(rng, 0.25, 0.40);
    let (front, back) = (length / 2.0, -length / 2.0);
    let flatness = between(rng, 0.9, 1.15);
    let span = between(rng, 0.45, 0.85);
    let chord = between(rng, 0.16, 0.34);
    let sweep = between(rng, -0.02, 0.5) * span;
    let taper = between(rng, 0.25, 0.9);
    let dihedral = between(rng, -0.03, 0.12) * span;
    let place = between(rng, -0.06, 0.16) * length;
    let high = if chance(rng, 0.3) { 0.7 * r } else { -0.4 * r };
    // The lowest part of all stands on the floor.
    let engines = rng.below(3);
    let pod = between(rng, 0.3, 0.45) * r;
    let lowest = if engines == 0 { (high - 2.6 * pod).min(-r * flatness) } else { -r * flatness };
    let y = -lowest;
    let mut mesh = fuselage([front, back], [nose, tail], r, flatness, y);
    for side in [-1.0, 1.0] {
        let root = [side * 0.5 * r, y + high];
        let tip = [side * span, y + high + dihedral];
        let lead = place + chord / 2.0;
        let tip_lead = lead - sweep;
        mesh.append(&wing(root, tip, [[lead, lead - chord], [tip_lead, tip_lead - chord * taper]], [0.03, 0.012]));
        match engines {
            0 => {
                let s = between(rng, 0.32, 0.42);
                let (x, z) = (side * s * span, lead - sweep * s + 0.03);
                let profile = [[0.6 * pod, z + 0.08], [pod, z], [pod, z - 0.06], [0.5 * pod, z - 0.14]];
                mesh.append(&lathe_along_z([x, y + high + dihedral * s - 1.5 * pod], 1.0, &profile));
            }
            1 => {
                let z = back + 0.33 * length;
                let profile = [[0.6 * pod, z + 0.08], [pod, z], [pod, z - 0.06], [0.5 * pod, z - 0.14]];
                mesh.append(&lathe_along_z([side * (r + 0.8 * pod), y + 0.5 * r], 1.0, &profile));
            }
            _ => {}
        }
    }
    empennage(&mut mesh, [back, y], r, rng);
    mesh
}

fn fuselage([front, back]: [f64; 2], [nose, tail]: [f64; 2], r: f64, flatness: f64, y: f64) -> Mesh {
    let length = front - back;
    let mut profile = Vec::new();
    for k in 0..=8 {
        let s = k as f64 / 8.0;
        profile.push([r * (1.0 - (1.0 - s).powi(2)).sqrt(), front - s * nose * length]);
    }
    for k in 0..=8 {
        let s = k as f64 / 8.0;
        profile.push([r * (1.0 - 0.85 * s * s), back + tail * length * (1.0 - s)]);
    }
    profile.push([0.0, back]);
    lathe_along_z([0.0, y], flatness, &profile)
}

fn empennage(mesh: &mut Mesh, [back, y]: [f64; 2], r: f64, rng: &mut FlowRng) {
    let (fin, chord) = (between(rng, 0.16, 0.30), between(rng, 0.11, 0.18));
    let sweep = between(rng, 0.3, 0.9) * fin;
    let lead = back + chord + 0.03;
    let top = [lead - sweep, lead - sweep - 0.6 * chord];
    mesh.append(&wing([0.0, y + 0.2 * r], [0.0, y + fin], [[lead, lead - chord], top], [0.02, 0.01]));
    let tall = chance(rng, 0.25);
    let (height, shift) = if tall { (fin, -sweep) } else { (0.3 * r, 0.0) };
    let (half, back_sweep) = (between(rng, 0.18, 0.32), between(rng, 0.1, 0.5));
    for side in [-1.0, 1.0] {
        let lead = lead + shift - 0.02;
        let tip = [lead - back_sweep * half, lead - back_sweep * half - 0.5 * chord];
        let chords = [[lead, lead - 0.8 * chord], tip];
        mesh.append(&wing([side * 0.1 * r, y + height], [side * half, y + height], chords, [0.015, 0.008]));
    }
}
