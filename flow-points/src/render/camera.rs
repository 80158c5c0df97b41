//! Where a shape is seen from.

/// A camera that looks at the centre of the shape.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Camera {
    /// Angle about the vertical axis `y` in radians; 0 looks along `-z`, from the front.
    pub azimuth: f64,
    /// Angle above the horizon in radians.
    pub elevation: f64,
    /// Distance in radii of the shape; infinite for a parallel projection.
    pub distance: f64,
}

impl Default for Camera {
    /// Half from the side, a little from above, with mild perspective.
    fn default() -> Self {
        Camera { azimuth: 0.65, elevation: 0.42, distance: 6.0 }
    }
}

/// A point on the picture's plane: the shape's radius is one, `depth` grows towards the viewer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub x: f64,
    pub y: f64,
    pub depth: f64,
    /// By how much perspective enlarges there.
    pub scale: f64,
}

impl Camera {
    /// Projects a point that is given relative to the centre and in radii.
    pub(super) fn project(&self, [x, y, z]: [f64; 3]) -> Seen {
        let (sa, ca) = self.azimuth.sin_cos();
        let (se, ce) = self.elevation.sin_cos();
        let (right, ahead) = (ca * x - sa * z, sa * x + ca * z);
        let (up, depth) = (ce * y - se * ahead, se * y + ce * ahead);
        let scale = if self.distance.is_finite() { self.distance / (self.distance - depth).max(0.1) } else { 1.0 };
        Seen { x: right * scale, y: up * scale, depth, scale }
    }
}
