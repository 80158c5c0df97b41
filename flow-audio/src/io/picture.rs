//! Pictures of waveforms, spectrograms and curves, without axes: programs label.

use std::path::Path;

use super::heat;
use crate::mel::Mel;
use crate::{Error, Result};

/// Sides beyond this are mistakes.
const MAX_SIDE: usize = 1 << 15;

const GROUND: [u8; 3] = [255, 255, 255];
const LINE: [u8; 3] = [31, 78, 121];
const ZERO: [u8; 3] = [200, 200, 200];

/// A picture in memory.
///
/// # Shapes
/// - pixels `[height, width, 3]`, red, green and blue, the upper row first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    fn new(width: usize, height: usize, colour: [u8; 3]) -> Result<Self> {
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(Error::config("picture", format!("sides must be 1 to {MAX_SIDE}, got {width} x {height}")));
        }
        Ok(Picture { width, height, pixels: colour.repeat(width * height) })
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All pixels.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Red, green and blue of a pixel, if there is one.
    pub fn pixel(&self, column: usize, row: usize) -> Option<[u8; 3]> {
        let inside = column < self.width && row < self.height;
        let at = 3 * (row * self.width + column);
        match self.pixels.get(at..at + 3) {
            Some([r, g, b]) if inside => Some([*r, *g, *b]),
            _ => None,
        }
    }

    /// Pictures of one width, the first at the top, with a line of the ground between them.
    ///
    /// # Errors
    /// No picture, widths that differ, or more than 32,768 rows.
    pub fn stacked(pictures: &[Picture]) -> Result<Self> {
        let width = pictures.first().map_or(0, Picture::width);
        if pictures.iter().any(|picture| picture.width != width) {
            return Err(Error::config("pictures", "of different widths do not fit one above the other"));
        }
        let height = pictures.iter().map(|picture| picture.height + 1).sum::<usize>().saturating_sub(1);
        let mut all = Picture::new(width, height, GROUND)?;
        let mut row = 0;
        for picture in pictures {
            let at = 3 * row * width;
            if let Some(place) = all.pixels.get_mut(at..at + picture.pixels.len()) {
                place.copy_from_slice(&picture.pixels);
            }
            row += picture.height + 1;
        }
        Ok(all)
    }

    fn set(&mut self, column: usize, row: usize, colour: [u8; 3]) {
        let at = 3 * (row * self.width + column);
        if column < self.width
            && let Some(pixel) = self.pixels.get_mut(at..at + 3)
        {
            pixel.copy_from_slice(&colour);
        }
    }

    /// A vertical stroke between two rows, in either order.
    fn stroke(&mut self, column: usize, from: usize, to: usize, colour: [u8; 3]) {
        (from.min(to)..=from.max(to)).for_each(|row| self.set(column, row, colour));
    }

    /// Writes a PNG; complete or not there at all.
    ///
    /// # Errors
    /// A failure of the file system.
    pub fn write_png(&self, path: &Path) -> Result<()> {
        let failed = |error: png::EncodingError| Error::config(path.display().to_string(), error.to_string());
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&self.pixels).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(flow_core::files::atomic_write(path, &bytes)?)
    }
}

/// The values of a column when `count` values are spread over `width` columns: at least one.
fn share(column: usize, width: usize, count: usize) -> std::ops::Range<usize> {
    let from = (column * count / width).min(count.saturating_sub(1));
    from..((column + 1) * count / width).max(from + 1)
}

/// A waveform between −1, at the bottom, and 1: in every column the range of its samples.
///
/// # Errors
/// No sample, one that is not finite, or sides outside 1 to 32,768.
pub fn waveform_picture(samples: &[f32], width: usize, height: usize) -> Result<Picture> {
    let mut picture = Picture::new(width, height, GROUND)?;
    finite("waveform", samples)?;
    let row = |x: f32| ((1.0 - x.clamp(-1.0, 1.0)) / 2.0 * (height - 1) as f32).round() as usize;
    for column in 0..width {
        picture.set(column, row(0.0), ZERO);
        let own = samples.get(share(column, width, samples.len())).unwrap_or_default();
        let (low, high) = own.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
        picture.stroke(column, row(high), row(low), LINE);
    }
    Ok(picture)
}

/// A mel spectrogram, time to the right, low frequencies at the bottom, `scale` pixels for a value; the colours of
/// [`heat`] from the floor of the logarithm, or the loudest value less 12 nats if that is higher, to the loudest value.
///
/// # Errors
/// Sides outside 1 to 32,768.
pub fn mel_picture(mel: &Mel, scale: usize) -> Result<Picture> {
    let scale = scale.max(1);
    let (width, height) = (mel.frames().saturating_mul(scale), mel.mels().saturating_mul(scale));
    let mut picture = Picture::new(width, height, GROUND)?;
    let loudest = mel.values().iter().copied().fold(f32::MIN, f32::max);
    let floor = (crate::mel::LOG_FLOOR.ln() as f32).max(loudest - 12.0);
    let colour = |value: f32| heat((value - floor) / (loudest - floor).max(1e-6));
    for row in 0..height {
        let band = mel.band(mel.mels() - 1 - row / scale);
        for (frame, &value) in band.iter().enumerate() {
            let colour = colour(value);
            (0..scale).for_each(|step| picture.set(frame * scale + step, row, colour));
        }
    }
    Ok(picture)
}

/// A curve over time, a log-likelihood for example, between the least and the greatest value or those of `range`; in
/// every column the range of its values, joined to the column before.
///
/// # Errors
/// No value, one that is not finite, an empty range, or sides outside 1 to 32,768.
pub fn curve_picture(values: &[f32], range: Option<(f32, f32)>, width: usize, height: usize) -> Result<Picture> {
    let mut picture = Picture::new(width, height, GROUND)?;
    finite("curve", values)?;
    let least = values.iter().copied().fold(f32::MAX, f32::min);
    let greatest = values.iter().copied().fold(f32::MIN, f32::max);
    let (low, high) = match range {
        // Written so that NaN is refused as well.
        Some((low, high)) if low < high => (low, high),
        Some((low, high)) => return Err(Error::config("curve", format!("the range {low} to {high} is empty"))),
        // A constant lies in the middle.
        None if least == greatest => (least - 1.0, greatest + 1.0),
        None => (least, greatest),
    };
    let row = |x: f32| ((1.0 - ((x - low) / (high - low)).clamp(0.0, 1.0)) * (height - 1) as f32).round() as usize;
    let mut before = None;
    for column in 0..width {
        if low < 0.0 && high > 0.0 {
            picture.set(column, row(0.0), ZERO);
        }
        let own = values.get(share(column, width, values.len())).unwrap_or_default();
        let (bottom, top) = own.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
        let (mut top, mut bottom) = (row(top), row(bottom));
        if let Some(row) = before {
            (top, bottom) = (top.min(row), bottom.max(row));
        }
        picture.stroke(column, top, bottom, LINE);
        before = own.last().map(|&x| row(x));
    }
    Ok(picture)
}

fn finite(what: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|x| !x.is_finite()) {
        Some(place) => Err(Error::config(format!("picture of a {what}"), format!("value {place} is not finite"))),
        None if values.is_empty() => Err(Error::config(format!("picture of a {what}"), "there is no value")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mel::MelConfig;

    fn rows(picture: &Picture, column: usize) -> Vec<usize> {
        (0..picture.height()).filter(|&row| picture.pixel(column, row) == Some(LINE)).collect()
    }

    #[test]
    fn a_waveform_fills_the_range_of_its_samples() {
        let samples: Vec<f32> = (0..1000)
            .map(|n| {
                if n < 500 {
                    1.0
                } else if n % 2 == 0 {
                    0.5
                } else {
                    -0.5
                }
            })
            .collect();
        let picture = waveform_picture(&samples, 100, 41).unwrap();
        assert_eq!(rows(&picture, 10), [0]);
        assert_eq!(rows(&picture, 70), (10..=30).collect::<Vec<_>>());
        assert_eq!(rows(&waveform_picture(&[0.25], 7, 5).unwrap(), 6).len(), 1);
        assert!(waveform_picture(&[], 7, 5).is_err() && waveform_picture(&[f32::NAN], 7, 5).is_err());
        assert!(waveform_picture(&[0.0], 0, 5).is_err() && waveform_picture(&[0.0], usize::MAX, 5).is_err());
    }

    #[test]
    fn low_frequencies_are_at_the_bottom_and_loud_is_light() {
        let config = MelConfig { mels: 2, ..MelConfig::tacotron2() };
        let mel = Mel::new(config, 3, vec![0.0, 0.0, 0.0, -11.0, -11.0, 0.0]).unwrap();
        let picture = mel_picture(&mel, 2).unwrap();
        assert_eq!((picture.width(), picture.height()), (6, 4));
        assert_eq!(picture.pixel(0, 3), Some(heat(1.0)));
        assert_eq!(picture.pixel(1, 1), Some(heat(0.5 / 11.512_925)));
        assert_eq!(picture.pixel(5, 0), Some(heat(1.0)));
        assert_eq!(picture.pixel(6, 0), None);
    }

    #[test]
    fn a_curve_is_one_line_between_its_ends() {
        let picture = curve_picture(&[0.0, 1.0, 2.0, 3.0], None, 4, 31).unwrap();
        assert_eq!([rows(&picture, 0), rows(&picture, 3)], [vec![30], (0..=10).collect()]);
        for column in 1..4 {
            let (here, before) = (rows(&picture, column), rows(&picture, column - 1));
            assert!(here.iter().any(|row| before.contains(row)), "column {column} does not touch the one before");
        }
        assert_eq!(rows(&curve_picture(&[5.0; 9], None, 3, 11).unwrap(), 1), [5]);
        assert_eq!(rows(&curve_picture(&[5.0], Some((0.0, 1.0)), 3, 11).unwrap(), 2), [0]);
        assert!(curve_picture(&[1.0], Some((1.0, 1.0)), 3, 3).is_err());
        assert!(curve_picture(&[1.0], Some((0.0, f32::NAN)), 3, 3).is_err());
    }

    #[test]
    fn stacked_pictures_keep_their_pixels() {
        let (above, below) = (waveform_picture(&[1.0], 5, 3).unwrap(), waveform_picture(&[-1.0], 5, 4).unwrap());
        let both = Picture::stacked(&[above.clone(), below.clone()]).unwrap();
        assert_eq!((both.width(), both.height()), (5, 8));
        assert_eq!([both.pixel(2, 0), both.pixel(2, 3), both.pixel(2, 7)], [Some(LINE), Some(GROUND), Some(LINE)]);
        assert!(Picture::stacked(&[]).is_err());
        assert!(Picture::stacked(&[above, waveform_picture(&[0.0], 6, 3).unwrap()]).is_err());
    }

    #[test]
    fn the_png_holds_these_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        let picture = curve_picture(&[0.0, -1.0, 2.0], None, 5, 7).unwrap();
        picture.write_png(&path).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height, &pixels[..]), (5, 7, picture.pixels()));
    }
}
