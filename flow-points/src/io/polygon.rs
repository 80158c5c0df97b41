//! Polygons cut into triangles.

use earcut::Earcut;
use earcut::utils3d::project3d_to_2d;

use super::notes::Notes;
use crate::mesh::{cross, norm};

/// Collects the triangles of faces over shared vertices.
pub(super) struct Polygons<'a> {
    positions: &'a [[f64; 3]],
    faces: Vec<[u32; 3]>,
    cutter: Earcut<f64>,
    /// Faces of one or two corners, and faces whose edges cross.
    thin: usize,
    crossed: usize,
}

impl<'a> Polygons<'a> {
    pub fn new(positions: &'a [[f64; 3]]) -> Self {
        Polygons { positions, faces: Vec::new(), cutter: Earcut::new(), thin: 0, crossed: 0 }
    }

    /// Cuts one face, after its corners were checked: a convex one into a fan, another one by its ears; one or two
    /// corners have no surface.
    pub fn add(&mut self, corners: &[u64]) -> std::result::Result<(), String> {
        let vertices = self.positions.len();
        if let Some(bad) = corners.iter().find(|&&c| c >= vertices as u64 || c > u64::from(u32::MAX)) {
            return Err(format!("corner {bad} does not exist, there are {vertices} vertices counted from 0"));
        }
        match *corners {
            [] => return Err("a face has no corners".into()),
            [_] | [_, _] => self.thin += 1,
            [a, b, c] => self.faces.push([a as u32, b as u32, c as u32]),
            _ => self.cut(corners),
        }
        Ok(())
    }

    fn cut(&mut self, corners: &[u64]) {
        let places: Vec<[f64; 3]> = corners.iter().map(|&c| self.positions[c as usize]).collect();
        // About one corner, so that digits are not lost to a place far from zero.
        let near: Vec<[f64; 3]> = places.iter().map(|p| std::array::from_fn(|k| p[k] - places[0][k])).collect();
        let mut flat = Vec::new();
        let at = |i: usize| corners[i] as u32;
        let planar = project3d_to_2d(&near, near.len(), &mut flat);
        if !planar || convex(&flat) {
            // Without a plane there is no surface, unless edges that cross make up for each other.
            let surface = |w: &[[f64; 3]]| norm(cross(w[0], w[1])) > 0.0;
            self.crossed += usize::from(!planar && near[1..].windows(2).any(surface));
            self.faces.extend((1..corners.len() - 1).map(|i| [at(0), at(i), at(i + 1)]));
            return;
        }
        let mut triangles: Vec<usize> = Vec::new();
        self.cutter.earcut(flat.iter().copied(), &[], &mut triangles);
        let area = |t: &[usize]| (0..t.len()).map(|i| wedge(flat[t[i]], flat[t[(i + 1) % t.len()]])).sum::<f64>();
        let whole = area(&(0..flat.len()).collect::<Vec<_>>());
        let mut sum = 0.0;
        for &[a, b, c] in triangles.as_chunks::<3>().0 {
            let own = area(&[a, b, c]);
            sum += own.abs();
            // As the polygon runs, so do its triangles.
            self.faces.push(if own * whole < 0.0 { [at(a), at(c), at(b)] } else { [at(a), at(b), at(c)] });
        }
        self.crossed += usize::from((sum - whole.abs()).abs() > 1e-6 * whole.abs());
    }

    /// The triangles.
    pub fn finish(self, notes: &mut Notes) -> Vec<[u32; 3]> {
        notes.count(self.thin, "faces of one or two corners have no surface");
        notes.count(self.crossed, "polygons cross themselves: their surface is a guess");
        self.faces
    }
}

fn wedge(a: [f64; 2], b: [f64; 2]) -> f64 {
    0.5 * (a[0] * b[1] - a[1] * b[0])
}

/// Whether a polygon turns one way only, and once around.
fn convex(polygon: &[[f64; 2]]) -> bool {
    let n = polygon.len();
    let edge = |i: usize| {
        let (a, b) = (polygon[i % n], polygon[(i + 1) % n]);
        [b[0] - a[0], b[1] - a[1]]
    };
    let edges: Vec<[f64; 2]> = (0..n).map(edge).filter(|e| *e != [0.0; 2]).collect();
    let (mut sum, mut left, mut right) = (0.0, false, false);
    for (i, a) in edges.iter().enumerate() {
        let b = edges[(i + 1) % edges.len()];
        let (sine, cosine) = (a[0] * b[1] - a[1] * b[0], a[0] * b[0] + a[1] * b[1]);
        let turn = sine.atan2(cosine);
        // Straight on is no turn, whatever rounding says.
        left |= turn > 1e-9;
        right |= turn < -1e-9;
        sum += turn;
    }
    !(left && right) && sum.abs() < 1.5 * std::f64::consts::TAU
}
