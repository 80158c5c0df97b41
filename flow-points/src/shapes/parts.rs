//! The parts that shapes are built of.

use flow_core::FlowRng;

use crate::Mesh;
use crate::mesh::{cross, norm, sub};

type V = [f64; 3];

/// Sides of round parts.
const SIDES: usize = 28;

/// Uniform in `[low, high)`.
pub(super) fn between(rng: &mut FlowRng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.next_uniform()
}

/// True with this probability.
pub(super) fn chance(rng: &mut FlowRng, probability: f64) -> bool {
    rng.next_uniform() < probability
}

fn point(v: V) -> [f32; 3] {
    v.map(|x| x as f32)
}

/// Two triangles for each pair of neighbours of two rings.
fn band(mesh: &mut Mesh, lower: u32, upper: u32, count: u32, closed: bool) {
    let last = if closed { count } else { count - 1 };
    for i in 0..last {
        let j = (i + 1) % count;
        mesh.faces.push([lower + i, upper + i, lower + j]);
        mesh.faces.push([lower + j, upper + i, upper + j]);
    }
}

/// A hexahedron from its lower and upper quadrilateral, both in the same order.
pub(super) fn hexahedron(lower: [V; 4], upper: [V; 4]) -> Mesh {
    let mut mesh = Mesh { vertices: lower.into_iter().chain(upper).map(point).collect(), ..Mesh::default() };
    band(&mut mesh, 0, 4, 4, true);
    mesh.faces.extend([[0, 1, 2], [0, 2, 3], [4, 6, 5], [4, 7, 6]]);
    mesh
}

/// An upright box by its centre and its size.
pub(super) fn cuboid(centre: V, size: V) -> Mesh {
    let [x, y, z] = centre;
    let [w, h, d] = size.map(|s| s / 2.0);
    let ring = |y: f64| [[x - w, y, z - d], [x + w, y, z - d], [x + w, y, z + d], [x - w, y, z + d]];
    hexahedron(ring(y - h), ring(y + h))
}

/// A surface of revolution about the vertical through `(x, z)`: `(radius, height)` from one end to the other.
pub(super) fn lathe([x, z]: [f64; 2], profile: &[[f64; 2]]) -> Mesh {
    let mut mesh = Mesh::default();
    for &[radius, height] in profile {
        for i in 0..SIDES {
            let (s, c) = (std::f64::consts::TAU * i as f64 / SIDES as f64).sin_cos();
            mesh.vertices.push(point([x + radius * c, height, z + radius * s]));
        }
    }
    for ring in 1..profile.len() {
        let lower = ((ring - 1) * SIDES) as u32;
        band(&mut mesh, lower, lower + SIDES as u32, SIDES as u32, true);
    }
    mesh
}

/// A rod between two points, with a radius at each, and flat ends.
pub(super) fn rod(from: V, to: V, radii: [f64; 2]) -> Mesh {
    tube(&[from, to], radii, 10)
}

/// A round tube along a path; radii go from the first to the last, ends are flat.
pub(super) fn tube(path: &[V], [first, last]: [f64; 2], sides: usize) -> Mesh {
    let mut mesh = Mesh::default();
    let count = path.len();
    for (i, &at) in path.iter().enumerate() {
        let ahead = sub(path[(i + 1).min(count - 1)], path[i.saturating_sub(1)]);
        let length = norm(ahead).max(1e-12);
        let along = ahead.map(|v| v / length);
        // Any direction across: the axis that the path follows least.
        let axis = if along[1].abs() < 0.9 { [0.0, 1.0, 0.0] } else { [1.0, 0.0, 0.0] };
        let across = cross(along, axis);
        let size = norm(across).max(1e-12);
        let u = across.map(|v| v / size);
        let v = cross(along, u);
        let radius = first + (last - first) * i as f64 / (count - 1).max(1) as f64;
        for k in 0..sides {
            let (s, c) = (std::f64::consts::TAU * k as f64 / sides as f64).sin_cos();
            mesh.vertices.push(point(std::array::from_fn(|a| at[a] + radius * (c * u[a] + s * v[a]))));
        }
    }
    for ring in 1..count {
        let lower = ((ring - 1) * sides) as u32;
        band(&mut mesh, lower, lower + sides as u32, sides as u32, true);
    }
    for ring in [0, count - 1] {
        let base = (ring * sides) as u32;
        mesh.faces.extend((1..sides as u32 - 1).map(|k| [base, base + k, base + k + 1]));
    }
    mesh
}

/// A surface of revolution lying along `z`: `(radius, z)`, squeezed in height by `flatness`.
pub(super) fn lathe_along_z([x, y]: [f64; 2], flatness: f64, profile: &[[f64; 2]]) -> Mesh {
    let mut mesh = lathe([0.0, 0.0], profile);
    for v in &mut mesh.vertices {
        let [a, h, b] = v.map(f64::from);
        *v = point([x + a, y + flatness * b, h]);
    }
    mesh
}

/// A solid wing: chords `(leading z, trailing z)` at root and tip, from `root` to `tip` in the plane across `z`.
pub(super) fn wing(root: [f64; 2], tip: [f64; 2], chords: [[f64; 2]; 2], thickness: [f64; 2]) -> Mesh {
    // The thickness lies across the span.
    let span = [tip[0] - root[0], tip[1] - root[1]];
    let length = (span[0] * span[0] + span[1] * span[1]).sqrt().max(1e-9);
    let up = [-span[1] / length, span[0] / length];
    let section = |at: [f64; 2], [lead, trail]: [f64; 2], thick: f64| -> [V; 4] {
        let corner = |side: f64, z: f64| [at[0] + side * up[0], at[1] + side * up[1], z];
        let h = thick / 2.0;
        [corner(-h, lead), corner(h, lead), corner(h * 0.3, trail), corner(-h * 0.3, trail)]
    };
    hexahedron(section(root, chords[0], thickness[0]), section(tip, chords[1], thickness[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_those_of_the_solids() {
        let close = |mesh: Mesh, area: f64, tolerance: f64| {
            assert!((mesh.area() / area - 1.0).abs() < tolerance, "{} {area}", mesh.area());
        };
        close(cuboid([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]), 2.0 * (6.0 + 8.0 + 12.0), 1e-6);
        // An open cylinder, a cone's coat, a closed rod: polygons of 28 and 10 sides are a little smaller than circles.
        close(lathe([0.0, 0.0], &[[1.0, 0.0], [1.0, 2.0]]), std::f64::consts::TAU * 2.0, 0.01);
        close(lathe([0.0, 0.0], &[[1.0, 0.0], [0.0, 1.0]]), std::f64::consts::PI * 2.0_f64.sqrt(), 0.02);
        let rod_area = std::f64::consts::TAU * 0.5 * 2.0 + 2.0 * std::f64::consts::PI * 0.25;
        close(rod([0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.5, 0.5]), rod_area, 0.07);
        close(rod([0.0, 0.0, 0.0], [1.2, 0.0, 1.6], [0.5, 0.5]), rod_area, 0.07);
    }
}
