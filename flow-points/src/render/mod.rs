//! Pictures of clouds without a window: every point a small shaded ball, in the style of the literature's figures.

mod camera;
mod files;
mod splat;

use image::{Rgb, RgbImage};
use rayon::prelude::*;

use crate::{Cloud, Error, Result};

pub use camera::Camera;
pub use files::{mitsuba_xml, write_gif, write_png};

/// How to draw.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RenderOptions {
    /// Pixels of a square picture's side.
    pub size: u32,
    /// Where it is seen from.
    pub camera: Camera,
    /// Radius of a point's ball, in parts of the shape's radius; `None` lets it follow the number of points.
    pub radius: Option<f64>,
    /// Pixels are averages of so many by so many samples.
    pub supersampling: u32,
    /// The colour behind the shape.
    pub background: [u8; 3],
}

impl Default for RenderOptions {
    fn default() -> Self {
        RenderOptions {
            size: 240,
            camera: Camera::default(),
            radius: None,
            supersampling: 2,
            background: [255, 255, 255],
        }
    }
}

/// Centre and radius of what is to be seen.
#[derive(Debug, Clone, Copy)]
struct Extent {
    centre: [f64; 3],
    radius: f64,
}

impl Extent {
    /// The ball about the centre of the bounding box that holds all points: it stays in view from every side.
    fn of<'a>(clouds: impl Iterator<Item = &'a Cloud> + Clone) -> Extent {
        let points = || clouds.clone().flat_map(|c| &c.points);
        let bound = |k: usize, start: f32, pick: fn(f32, f32) -> f32| points().map(|p| p[k]).fold(start, pick);
        let centre: [f64; 3] = std::array::from_fn(|k| {
            0.5 * f64::from(bound(k, f32::INFINITY, f32::min) + bound(k, f32::NEG_INFINITY, f32::max))
        });
        let square = |p: &[f32; 3]| (0..3).map(|k| (f64::from(p[k]) - centre[k]).powi(2)).sum::<f64>();
        let radius = points().map(square).fold(0.0, f64::max).sqrt();
        Extent { centre, radius: if radius > 0.0 { radius } else { 1.0 } }
    }
}

/// A picture of one cloud, which fills it.
///
/// # Errors
/// [`flow_core::Error::Config`] for an empty cloud, coordinates that are not finite, colours of another number than points,
/// or a size or supersampling of zero.
pub fn render(cloud: &Cloud, options: &RenderOptions) -> Result<RgbImage> {
    check(cloud, options)?;
    Ok(splat::draw(cloud, Extent::of(std::iter::once(cloud)), options))
}

fn check(cloud: &Cloud, options: &RenderOptions) -> Result<()> {
    if cloud.is_empty() {
        return Err(Error::config("picture", "the cloud has no points"));
    }
    if !cloud.points.iter().flatten().all(|v| v.is_finite()) {
        return Err(Error::config("picture", "a coordinate is not a finite number"));
    }
    if cloud.colors.as_ref().is_some_and(|c| c.len() != cloud.len()) {
        return Err(Error::config("picture", "there is not one colour for each point"));
    }
    let legal = |name: &str, value: u32, most: u32| match (1..=most).contains(&value) {
        true => Ok(()),
        false => Err(Error::config(name, format!("is {value}, must be 1 to {most}"))),
    };
    legal("picture size", options.size, 8192)?;
    legal("supersampling", options.supersampling, 8)
}

/// Clouds side by side, each filling its cell.
///
/// # Errors
/// As [`render`], and for no clouds or no columns.
pub fn contact_sheet(clouds: &[Cloud], columns: usize, options: &RenderOptions) -> Result<RgbImage> {
    if clouds.is_empty() || columns == 0 {
        return Err(Error::config("contact sheet", "needs at least one cloud and one column"));
    }
    let cells: Vec<RgbImage> = clouds.par_iter().map(|cloud| render(cloud, options)).collect::<Result<_>>()?;
    Ok(tile(&cells, columns.min(clouds.len()), options))
}

fn tile(cells: &[RgbImage], columns: usize, options: &RenderOptions) -> RgbImage {
    let rows = cells.len().div_ceil(columns);
    let size = options.size;
    let mut sheet = RgbImage::from_pixel(size * columns as u32, size * rows as u32, Rgb(options.background));
    for (i, cell) in cells.iter().enumerate() {
        let (x, y) = ((i % columns) as u32 * size, (i / columns) as u32 * size);
        image::imageops::replace(&mut sheet, cell, i64::from(x), i64::from(y));
    }
    sheet
}

/// One turn about the vertical axis, clouds side by side.
///
/// # Errors
/// As [`contact_sheet`], and for no frames.
pub fn turntable(clouds: &[Cloud], frames: usize, options: &RenderOptions) -> Result<Vec<RgbImage>> {
    if frames == 0 {
        return Err(Error::config("turntable", "needs at least one frame"));
    }
    let turned = |k: usize| {
        let mut options = options.clone();
        options.camera.azimuth += std::f64::consts::TAU * k as f64 / frames as f64;
        contact_sheet(clouds, clouds.len().max(1), &options)
    };
    (0..frames).into_par_iter().map(turned).collect()
}

/// One picture for each cloud, all at the same scale: the frames of a walk.
///
/// # Errors
/// As [`render`].
pub fn frames(clouds: &[Cloud], options: &RenderOptions) -> Result<Vec<RgbImage>> {
    clouds.iter().try_for_each(|cloud| check(cloud, options))?;
    let extent = Extent::of(clouds.iter());
    Ok(clouds.par_iter().map(|cloud| splat::draw(cloud, extent, options)).collect())
}

#[cfg(test)]
mod tests;
