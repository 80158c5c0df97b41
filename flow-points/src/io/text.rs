//! Plain text: one point a line.

use std::path::Path;

use super::words::{Line, lines};
use crate::{Cloud, Error, Point, Result};

/// Reads `x y z`, with `nx ny nz` or `r g b` (whole numbers up to 255) after it if every line has six numbers. A first line
/// of one whole number, the count of a PTS file, is checked; PTS lines of four or seven numbers have an intensity after
/// the position, which is dropped.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Cloud> {
    let mut lines = lines(path, bytes)?;
    let mut announced = None;
    if let Some(first) = lines.first()
        && first.words.len() == 1
    {
        announced = Some((first.count(0, "the number of points")?, first.number));
        lines.remove(0);
    }
    let Some(width) = lines.first().map(|l| l.words.len()) else {
        return Err(Error::File { path: path.to_path_buf(), reason: "has no points".into() });
    };
    if let Some((count, line)) = announced
        && count != lines.len() as u64
    {
        let reason = format!("announces {count} points, there are {}", lines.len());
        return Err(Error::Line { path: path.to_path_buf(), line, reason });
    }
    if !matches!(width, 3 | 4 | 6 | 7) {
        return Err(lines[0].fault(format!("expected 3, 4, 6 or 7 numbers, found {width}")));
    }
    let mut points = Vec::with_capacity(lines.len());
    let mut extra: Vec<Point> = Vec::new();
    for line in &lines {
        if line.words.len() != width {
            return Err(
                line.fault(format!("expected {width} numbers as on the first line, found {}", line.words.len()))
            );
        }
        points.push(line.point(0, "a coordinate")?);
        if width >= 6 {
            extra.push(line.point(width - 3, "a normal or a colour")?);
        }
    }
    Ok(with_extra(Cloud::new(points), extra, &lines))
}

/// Colours if all numbers are whole, from 0 to 255 and written without a point; else normals.
fn with_extra(mut cloud: Cloud, extra: Vec<Point>, lines: &[Line<'_>]) -> Cloud {
    if extra.is_empty() {
        return cloud;
    }
    let whole = |line: &Line<'_>| line.words.iter().rev().take(3).all(|w| w.parse::<u8>().is_ok());
    if lines.iter().all(whole) {
        cloud.colors = Some(extra.iter().map(|c| c.map(|v| v as u8)).collect());
    } else {
        cloud.normals = Some(extra);
    }
    cloud
}
