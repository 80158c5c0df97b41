//! Point clouds and triangle meshes in memory.

/// A point or a direction: `[x, y, z]`.
pub type Point = [f32; 3];

/// A set of points; their order carries no meaning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cloud {
    /// Positions.
    pub points: Vec<Point>,
    /// One unit normal for each point, if known.
    pub normals: Option<Vec<Point>>,
    /// One colour for each point, if known.
    pub colors: Option<Vec<[u8; 3]>>,
}

impl Cloud {
    /// A cloud of bare positions.
    pub fn new(points: Vec<Point>) -> Self {
        Cloud { points, normals: None, colors: None }
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
    /// Corner positions.
    pub vertices: Vec<Point>,
    /// Three indices into `vertices` for each triangle.
    pub faces: Vec<[u32; 3]>,
}
