//! Y4M out.

use std::path::Path;

use flow_image::io::{Pixels, atomic_write};

use super::write::{check_fps, fraction};
use crate::Result;

/// Frames without compression, for other programs: grey as `Cmono`, exactly; colours as 4:4:4 of full range by ITU-R
/// BT.601, which come back to within two levels.
///
/// # Errors
/// A rate outside 0.001 to 1000, or a failure of the file system; nothing half-written is left.
pub fn write_y4m(path: &Path, frames: &Pixels, fps: f64) -> Result<()> {
    check_fps(fps)?;
    let [channels, height, width] = frames.shape();
    let (numerator, denominator) = fraction(fps);
    let chroma = if channels == 1 { "mono" } else { "444" };
    let header =
        format!("YUV4MPEG2 W{width} H{height} F{numerator}:{denominator} Ip A1:1 C{chroma} XCOLORRANGE=FULL\n");
    let mut bytes = Vec::with_capacity(header.len() + frames.bytes().len() + 6 * frames.count());
    bytes.extend_from_slice(header.as_bytes());
    for frame in frames.images() {
        bytes.extend_from_slice(b"FRAME\n");
        if channels == 1 {
            bytes.extend_from_slice(frame);
            continue;
        }
        let (red, rest) = frame.split_at(height * width);
        let (green, blue) = rest.split_at(height * width);
        let planes: Vec<[u8; 3]> =
            red.iter().zip(green).zip(blue).map(|((&r, &g), &b)| yuv([r, g, b].map(f64::from))).collect();
        (0..3).for_each(|plane| bytes.extend(planes.iter().map(|pixel| pixel[plane])));
    }
    Ok(atomic_write(path, &bytes)?)
}

/// Full range, ITU-R BT.601.
fn yuv([r, g, b]: [f64; 3]) -> [u8; 3] {
    let y = 0.299 * r + 0.587 * g + 0.114 * b;
    [y, 128.0 + (b - y) / 1.772, 128.0 + (r - y) / 1.402].map(|v| v.round().clamp(0.0, 255.0) as u8)
}
