//! Pictures into files.

use std::fmt::Write;
use std::io::Cursor;
use std::path::Path;

use flow_core::files::atomic_write;
use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, DynamicImage, Frame, ImageFormat, RgbImage};

use crate::{Cloud, Error, Result};

/// Milliseconds between the frames of an animation.
const FRAME_MS: u32 = 70;

/// Writes a picture as PNG.
///
/// # Errors
/// [`Error::File`] when it cannot be encoded, or a failure of the file system, which leaves nothing behind.
pub fn write_png(path: &Path, picture: &RgbImage) -> Result<()> {
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(|e| unwritten(path, &e))?;
    Ok(atomic_write(path, &bytes)?)
}

/// Writes frames as an endless animation.
///
/// # Errors
/// As [`write_png`], and for no frames.
pub fn write_gif(path: &Path, frames: &[RgbImage]) -> Result<()> {
    if frames.is_empty() {
        return Err(Error::File { path: path.to_path_buf(), reason: "an animation needs at least one frame".into() });
    }
    let mut bytes = Vec::new();
    {
        let mut encoder = GifEncoder::new_with_speed(&mut bytes, 10);
        encoder.set_repeat(Repeat::Infinite).map_err(|e| unwritten(path, &e))?;
        for frame in frames {
            let picture = DynamicImage::from(frame.clone()).into_rgba8();
            let frame = Frame::from_parts(picture, 0, 0, Delay::from_numer_denom_ms(FRAME_MS, 1));
            encoder.encode_frame(frame).map_err(|e| unwritten(path, &e))?;
        }
    }
    Ok(atomic_write(path, &bytes)?)
}

fn unwritten(path: &Path, error: &image::ImageError) -> Error {
    Error::File { path: path.to_path_buf(), reason: format!("cannot be written: {error}") }
}

/// A scene for the Mitsuba 3 renderer, with which the literature makes its figures: a ball for each point, scaled into the
/// unit cube, on a white floor.
pub fn mitsuba_xml(cloud: &Cloud) -> String {
    let extent = super::Extent::of(std::iter::once(cloud));
    let mut scene = String::from(HEAD);
    for p in &cloud.points {
        let [x, y, z]: [f64; 3] = std::array::from_fn(|k| (f64::from(p[k]) - extent.centre[k]) / (2.0 * extent.radius));
        // Writing to a string does not fail.
        let _ = writeln!(
            scene,
            "  <shape type=\"sphere\"><float name=\"radius\" value=\"0.012\"/>\
             <point name=\"center\" x=\"{z:.5}\" y=\"{x:.5}\" z=\"{y:.5}\"/>\
             <bsdf type=\"diffuse\"><rgb name=\"reflectance\" value=\"0.25, 0.45, 0.7\"/></bsdf></shape>"
        );
    }
    scene + "</scene>\n"
}

const HEAD: &str = r#"<scene version="3.0.0">
  <integrator type="path"><integer name="max_depth" value="8"/></integrator>
  <sensor type="perspective">
    <float name="fov" value="25"/>
    <transform name="to_world"><lookat origin="3, 3, 2" target="0, 0, 0" up="0, 0, 1"/></transform>
    <sampler type="independent"><integer name="sample_count" value="128"/></sampler>
    <film type="hdrfilm"><integer name="width" value="800"/><integer name="height" value="800"/></film>
  </sensor>
  <shape type="rectangle">
    <transform name="to_world"><scale x="10" y="10"/><translate z="-0.5"/></transform>
  </shape>
  <emitter type="constant"><rgb name="radiance" value="0.9, 0.9, 0.9"/></emitter>
"#;
