//! Points on meshes.

use flow_core::FlowRng;

use crate::cloud::rebase;
use crate::{Cloud, Error, Mesh, Point, Result};

impl Mesh {
    /// `count` points spread uniformly over the surface, with the normals of their triangles and the colours between
    /// those of the corners.
    ///
    /// A triangle is chosen with probability proportional to its area, then a point in it uniformly
    /// (Osada et al. 2002, section 4.1). Triangles without area are never chosen.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when the total area is zero or not finite, or an index points nowhere.
    pub fn sample(&self, count: usize, rng: &mut FlowRng) -> Result<Cloud> {
        if self.colors.as_ref().is_some_and(|c| c.len() != self.vertices.len()) {
            return Err(Error::config("mesh", "there is not one colour for each vertex"));
        }
        let mut triangles = Vec::with_capacity(self.faces.len());
        let mut ends = Vec::with_capacity(self.faces.len());
        let mut total = 0.0;
        for (i, face) in self.faces.iter().enumerate() {
            let corner = |k: usize| self.vertices.get(face[k] as usize).map(|p| p.map(f64::from));
            let (Some(a), Some(b), Some(c)) = (corner(0), corner(1), corner(2)) else {
                return Err(Error::config("mesh", format!("triangle {i} names a vertex that does not exist")));
            };
            let normal = cross(sub(b, a), sub(c, a));
            total += 0.5 * norm(normal);
            ends.push(total);
            triangles.push((a, b, c, normal));
        }
        if !(total > 0.0 && total.is_finite()) {
            return Err(Error::config("mesh", format!("its {} triangles have area {total}", self.faces.len())));
        }
        let mut cloud = Cloud { normals: Some(Vec::with_capacity(count)), origin: self.origin, ..Cloud::default() };
        for _ in 0..count {
            let at = rng.next_uniform() * total;
            let chosen = ends.partition_point(|&end| end <= at).min(triangles.len() - 1);
            let (a, b, c, normal) = triangles[chosen];
            let (u, v) = (rng.next_uniform().sqrt(), rng.next_uniform());
            let weights = [1.0 - u, u * (1.0 - v), u * v];
            let point: Point =
                std::array::from_fn(|k| (weights[0] * a[k] + weights[1] * b[k] + weights[2] * c[k]) as f32);
            cloud.points.push(point);
            if let Some(colors) = &self.colors {
                let corners = self.faces[chosen].map(|i| colors[i as usize]);
                let mixed = |k: usize| (0..3).map(|c| weights[c] * f64::from(corners[c][k])).sum::<f64>().round() as u8;
                cloud.colors.get_or_insert_default().push(std::array::from_fn(mixed));
            }
            let length = norm(normal);
            if let Some(normals) = &mut cloud.normals {
                normals.push(normal.map(|v| (v / length) as f32));
            }
        }
        Ok(cloud)
    }

    /// The area of the surface.
    pub fn area(&self) -> f64 {
        let area = |face: &[u32; 3]| {
            let corner = |k: usize| self.vertices.get(face[k] as usize).map(|p| p.map(f64::from));
            match (corner(0), corner(1), corner(2)) {
                (Some(a), Some(b), Some(c)) => 0.5 * norm(cross(sub(b, a), sub(c, a))),
                _ => 0.0,
            }
        };
        self.faces.iter().map(area).sum()
    }

    /// Adds another mesh.
    pub fn append(&mut self, other: &Mesh) {
        let first = self.vertices.len() as u32;
        let place = self.vertices.len();
        self.vertices.extend_from_slice(&other.vertices);
        rebase(&mut self.vertices[place..], other.origin, self.origin);
        // Colours are of all vertices or of none.
        self.colors = match (self.colors.take(), &other.colors) {
            (Some(own), Some(more)) => Some([&own[..], more].concat()),
            (None, Some(more)) if place == 0 => Some(more.clone()),
            _ => None,
        };
        self.faces.extend(other.faces.iter().map(|f| f.map(|i| i + first)));
    }
}

pub(crate) fn sub(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|k| a[k] - b[k])
}

pub(crate) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

pub(crate) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(crate) fn norm(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two triangles in the plane z = 0, one three times as large, and one without area.
    fn mesh() -> Mesh {
        Mesh {
            vertices: vec![
                [0.0, 0.0, 0.0],
                [1.0, 0.0, 0.0],
                [0.0, 1.0, 0.0],
                [10.0, 0.0, 0.0],
                [13.0, 0.0, 0.0],
                [10.0, 1.0, 0.0],
            ],
            faces: vec![[0, 1, 2], [3, 4, 5], [1, 1, 2]],
            ..Mesh::default()
        }
    }

    #[test]
    fn points_fall_on_triangles_in_proportion_to_their_area_and_uniformly_within() {
        const COUNT: usize = 40_000;
        let cloud = mesh().sample(COUNT, &mut FlowRng::seed_from(1)).unwrap();
        assert!((mesh().area() - 2.0).abs() < 1e-12);
        let on_first = cloud.points.iter().filter(|p| p[0] < 5.0).count() as f64 / COUNT as f64;
        // Four standard errors of a share of a quarter.
        assert!((on_first - 0.25).abs() < 4.0 * (0.25 * 0.75 / COUNT as f64).sqrt(), "{on_first}");
        // Half of the height of a triangle holds a quarter of it above.
        let above = cloud.points.iter().filter(|p| p[1] > 0.5).count() as f64 / COUNT as f64;
        assert!((above - 0.25).abs() < 4.0 * (0.25 * 0.75 / COUNT as f64).sqrt(), "{above}");
        assert!(cloud.normals.unwrap().iter().all(|n| *n == [0.0, 0.0, 1.0]));
        assert!(cloud.points.iter().all(|p| p[2] == 0.0 && p[1] >= 0.0));
    }

    #[test]
    fn a_mesh_without_area_or_with_a_wrong_index_is_refused() {
        let flat = Mesh { faces: vec![[1, 1, 2]], ..mesh() };
        assert!(flat.sample(3, &mut FlowRng::seed_from(1)).unwrap_err().to_string().contains("area"));
        let wrong = Mesh { faces: vec![[0, 1, 9]], ..mesh() };
        assert!(wrong.sample(3, &mut FlowRng::seed_from(1)).unwrap_err().to_string().contains("does not exist"));
    }
}
