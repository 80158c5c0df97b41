//! Point clouds and triangle meshes in memory.
//!
//! Coordinates are single precision relative to an origin in double precision, which is zero unless points lie far from
//! zero for their size, as in maps: there single precision would round them onto a few places.

/// A point or a direction: `[x, y, z]`.
pub type Point = [f32; 3];

/// A set of points; their order carries no meaning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cloud {
    /// Positions, relative to `origin`.
    pub points: Vec<Point>,
    /// One unit normal for each point, if known.
    pub normals: Option<Vec<Point>>,
    /// One colour for each point, if known.
    pub colors: Option<Vec<[u8; 3]>>,
    /// Where the points' coordinates are counted from: zero, or a place near points that lie far from zero.
    pub origin: [f64; 3],
}

impl Cloud {
    /// A cloud of bare positions.
    pub fn new(points: Vec<Point>) -> Self {
        Cloud { points, ..Cloud::default() }
    }

    /// A cloud of positions in double precision; its origin is chosen so that they keep their shape.
    pub fn of_f64(points: &[[f64; 3]]) -> Self {
        let origin = origin_of(bounds(points.iter().copied()));
        Cloud { points: relative(points, origin), origin, ..Cloud::default() }
    }

    /// Counts the points from another origin.
    #[must_use]
    pub fn with_origin(mut self, origin: [f64; 3]) -> Self {
        rebase(&mut self.points, self.origin, origin);
        Cloud { origin, ..self }
    }

    /// The positions in double precision.
    pub fn positions(&self) -> impl Iterator<Item = [f64; 3]> + Clone {
        absolute(&self.points, self.origin)
    }

    /// Some of the points, by their places, with their normals and colours.
    ///
    /// Places beyond the end are left out.
    #[must_use]
    pub fn select(&self, places: &[usize]) -> Self {
        fn some<T: Copy>(all: &[T], places: &[usize]) -> Vec<T> {
            places.iter().filter_map(|&i| all.get(i).copied()).collect()
        }
        Cloud {
            points: some(&self.points, places),
            normals: self.normals.as_ref().map(|all| some(all, places)),
            colors: self.colors.as_ref().map(|all| some(all, places)),
            origin: self.origin,
        }
    }

    /// Number of points.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

/// Triangles over shared vertices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mesh {
    /// Corner positions, relative to `origin`.
    pub vertices: Vec<Point>,
    /// Three indices into `vertices` for each triangle.
    pub faces: Vec<[u32; 3]>,
    /// One colour for each vertex, if known.
    pub colors: Option<Vec<[u8; 3]>>,
    /// Where the vertices' coordinates are counted from, as in a [`Cloud`].
    pub origin: [f64; 3],
}

/// The lowest and the highest coordinates of points.
pub(crate) fn bounds(points: impl Iterator<Item = [f64; 3]>) -> ([f64; 3], [f64; 3]) {
    points.fold(([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]), |(low, high), p| {
        (std::array::from_fn(|k| low[k].min(p[k])), std::array::from_fn(|k| high[k].max(p[k])))
    })
}

/// Where to count coordinates from: on every axis zero, or a round number near the centre of bounds that lie so far away
/// that single precision would leave fewer than sixteen bits for the shape. Round, so that numbers which single precision
/// held already stay what they are.
pub(crate) fn origin_of((low, high): ([f64; 3], [f64; 3])) -> [f64; 3] {
    const FAR: f64 = 256.0;
    let widest = (0..3).map(|k| high[k] - low[k]).fold(0.0, f64::max);
    std::array::from_fn(|k| {
        let own = high[k] - low[k];
        let size = if own > 0.0 { own } else { widest };
        let centre = 0.5 * low[k] + 0.5 * high[k];
        if !(size > 0.0 && centre.abs() > FAR * size) {
            return 0.0;
        }
        let unit = size.log2().floor().exp2();
        let round = (centre / unit).round() * unit;
        if round.is_finite() { round } else { 0.0 }
    })
}

/// Coordinates counted from `origin`, in single precision.
pub(crate) fn relative(points: &[[f64; 3]], origin: [f64; 3]) -> Vec<Point> {
    points.iter().map(|p| std::array::from_fn(|k| (p[k] - origin[k]) as f32)).collect()
}

/// The inverse of [`relative`].
pub(crate) fn absolute(points: &[Point], origin: [f64; 3]) -> impl Iterator<Item = [f64; 3]> + Clone {
    points.iter().map(move |p| std::array::from_fn(|k| f64::from(p[k]) + origin[k]))
}

/// Coordinates that were counted from one origin, counted from another.
pub(crate) fn rebase(points: &mut [Point], from: [f64; 3], to: [f64; 3]) {
    if from != to {
        for p in points {
            *p = std::array::from_fn(|k| (f64::from(p[k]) + (from[k] - to[k])) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_far_from_zero_keep_their_shape_and_others_their_bits() {
        let far = [[694_386.212, 5_155_487.512, 381.036], [694_386.213, 5_155_487.514, 381.039]];
        let cloud = Cloud::of_f64(&far);
        for (a, b) in cloud.positions().zip(far) {
            assert!((0..3).all(|k| (a[k] - b[k]).abs() < 2e-9), "{a:?} {b:?}");
        }
        let near = [[0.1, -0.2, 100.0], [0.4, 7.0, 101.0]];
        assert_eq!(Cloud::of_f64(&near), Cloud::new(relative(&near, [0.0; 3])));
        // What single precision holds is held exactly after a shift too; so is a cloud that is flat in one axis.
        let single = [[5_155_487.5_f32, 1.0, 7e6], [5_155_488.0, 3.0, 7e6], [5_155_490.5, 2.0, 7e6]];
        let shifted = Cloud::of_f64(&single.map(|p| p.map(f64::from)));
        assert!(shifted.origin[0] != 0.0 && shifted.origin[1] == 0.0 && shifted.origin[2] != 0.0);
        assert_eq!(shifted.with_origin([0.0; 3]).points, single);
        // One place has no size; opposite ends of the range have no room.
        for odd in [vec![[1e30; 3]; 2], vec![[-3e38; 3], [3e38; 3]], vec![[5e-324; 3], [1.0; 3]], vec![]] {
            assert_eq!(Cloud::of_f64(&odd).origin, [0.0; 3]);
        }
    }
}
