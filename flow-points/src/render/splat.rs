//! Drawing: balls into a depth buffer.

use image::{Rgb, RgbImage};

use super::{Extent, RenderOptions};
use crate::Cloud;

/// The part of the picture's half that the shape's radius takes.
const FILL: f64 = 0.92;

/// Towards the light, of length one: from above, the left and the viewer.
const LIGHT: [f64; 3] = [-0.42, 0.66, 0.62];

/// The colours of heights, from the lowest to the highest.
const HEIGHTS: [[f64; 3]; 4] = [[0.16, 0.27, 0.55], [0.11, 0.52, 0.60], [0.45, 0.70, 0.47], [0.96, 0.74, 0.33]];

/// One cloud in a picture whose scale another extent may give.
pub(super) fn draw(cloud: &Cloud, extent: Extent, options: &RenderOptions) -> RgbImage {
    let side = options.size * options.supersampling;
    let mut canvas = Canvas::new(side, options.background.map(|v| f64::from(v) / 255.0));
    // As many balls as cover about the picture of a closed surface.
    let radius = options.radius.unwrap_or((1.1 / (cloud.len() as f64).sqrt()).clamp(0.006, 0.08));
    let (low, high) = heights(cloud);
    for (i, p) in cloud.points.iter().enumerate() {
        let relative: [f64; 3] = std::array::from_fn(|k| (f64::from(p[k]) - extent.centre[k]) / extent.radius);
        let color = match &cloud.colors {
            Some(colors) => colors[i].map(|v| f64::from(v) / 255.0),
            None => colour_of_height((f64::from(p[1]) - low) / (high - low).max(1e-12)),
        };
        let seen = options.camera.project(relative);
        let half = f64::from(side) / 2.0;
        let centre = [half + half * FILL * seen.x, half - half * FILL * seen.y];
        // Further away is paler, so that what is in front stands out.
        let haze = (0.22 * (0.6 - seen.depth)).clamp(0.0, 0.4);
        canvas.ball(centre, half * FILL * radius * seen.scale, seen.depth, radius, color, haze);
    }
    canvas.into_image(options)
}

fn heights(cloud: &Cloud) -> (f64, f64) {
    let all = || cloud.points.iter().map(|p| f64::from(p[1]));
    (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max))
}

fn colour_of_height(s: f64) -> [f64; 3] {
    let at = s.clamp(0.0, 1.0) * (HEIGHTS.len() - 1) as f64;
    let below = (at as usize).min(HEIGHTS.len() - 2);
    let part = at - below as f64;
    std::array::from_fn(|k| HEIGHTS[below][k] * (1.0 - part) + HEIGHTS[below + 1][k] * part)
}

/// Colours with depths.
struct Canvas {
    side: u32,
    colors: Vec<[f64; 3]>,
    depths: Vec<f64>,
    background: [f64; 3],
}

impl Canvas {
    fn new(side: u32, background: [f64; 3]) -> Self {
        let pixels = side as usize * side as usize;
        Canvas { side, colors: vec![background; pixels], depths: vec![f64::NEG_INFINITY; pixels], background }
    }

    /// A shaded ball: `radius` in pixels, `thickness` the same in the unit of depth.
    fn ball(&mut self, [x, y]: [f64; 2], radius: f64, depth: f64, thickness: f64, color: [f64; 3], haze: f64) {
        let radius = radius.max(0.75);
        let range = |c: f64| {
            let last = f64::from(self.side) - 1.0;
            ((c - radius).ceil().clamp(0.0, last) as u32)..=((c + radius).floor().clamp(0.0, last) as u32)
        };
        if x + radius < 0.0
            || y + radius < 0.0
            || x - radius > f64::from(self.side)
            || y - radius > f64::from(self.side)
        {
            return;
        }
        for row in range(y) {
            for column in range(x) {
                let (u, v) = ((f64::from(column) - x) / radius, (y - f64::from(row)) / radius);
                let square = u * u + v * v;
                if square > 1.0 {
                    continue;
                }
                let w = (1.0 - square).sqrt();
                let at = (row * self.side + column) as usize;
                let surface = depth + thickness * w;
                if surface <= self.depths[at] {
                    continue;
                }
                self.depths[at] = surface;
                let facing = (u * LIGHT[0] + v * LIGHT[1] + w * LIGHT[2]).max(0.0);
                let shade = 0.42 + 0.62 * facing;
                let background = self.background;
                self.colors[at] = std::array::from_fn(|k| {
                    let lit = (color[k] * shade).min(1.0);
                    lit + (background[k] - lit) * haze
                });
            }
        }
    }

    /// Averages the samples of each pixel.
    fn into_image(self, options: &RenderOptions) -> RgbImage {
        let n = options.supersampling;
        RgbImage::from_fn(options.size, options.size, |x, y| {
            let mut sum = [0.0; 3];
            for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let color = self.colors[((y * n + i) * self.side + x * n + j) as usize];
                sum.iter_mut().zip(color).for_each(|(s, c)| *s += c);
            }
            Rgb(sum.map(|s| (255.0 * s / f64::from(n * n)).round().clamp(0.0, 255.0) as u8))
        })
    }
}
