//! Charts of a run: learning curves and histograms as PNG files.
//!
//! Charts are drawn at twice their size and reduced, which is what smooths the lines; the font is
//! compiled in, so that they look the same on every machine.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flow_core::train::{LogRecord, RecordKind, read_log};
use image::RgbImage;
use plotters::prelude::*;

mod chart;
mod labels;

pub use chart::SIZE;
pub use labels::{Names, labelled};

use chart::{FONT, INK, KEY, KEY_RISE, PALETTE, SCALE, axes, colour, curve, draw, legend, register_font};

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A thin, pale line: every measured value.
    Raw,
    /// A thick line: the trend. The n-th trend has the colour of the n-th raw series.
    Smooth,
    /// Dots joined by a line: few values that each count, such as validation.
    Marked,
}

/// One curve of a chart.
#[derive(Debug, Clone)]
pub struct Series {
    /// The name in the legend; an empty name stays out of it.
    pub name: String,
    /// `(x, y)` in the order of x; values that are not finite leave a gap.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub look: Look,
}

impl Series {
    /// A curve from its parts.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>, look: Look) -> Self {
        Series { name: name.into(), points, look }
    }
}

/// The trend of a noisy curve: the mean, of x as well as of y, over `window` points around each one.
///
/// The window is centred, so that the trend does not lag behind the values; where an end cuts it, the
/// mean of x moves with the mean of y, and a straight line stays straight.
pub fn smoothed(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> = points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let mut sums = vec![(0.0, 0.0)];
    for (index, (x, y)) in finite.iter().enumerate() {
        sums.push((sums[index].0 + x, sums[index].1 + y));
    }
    let mean = |index: usize| {
        let (from, to) = (index.saturating_sub(window / 2), finite.len().min(index.saturating_add(window / 2 + 1)));
        let count = (to - from) as f64;
        ((sums[to].0 - sums[from].0) / count, (sums[to].1 - sums[from].1) / count)
    };
    (0..finite.len()).map(mean).collect()
}

/// Curves over a common x axis, such as the loss over training steps.
///
/// The y axis leaves out the highest two per cent of the values, which belong to the first steps and
/// would flatten everything after them.
///
/// # Errors
/// No finite point at all, or a failure of the file system.
pub fn loss_curve(series: &[Series], title: &str, x_label: &str, y_label: &str, path: &Path) -> Result<()> {
    let (x, y) = ranges(series).with_context(|| format!("{}: nothing to draw", path.display()))?;
    draw(path, |canvas| {
        let mut chart = axes(canvas, title, x_label, y_label, x.clone(), y.clone())?;
        for look in [Look::Raw, Look::Smooth, Look::Marked] {
            let mut same = series.iter().filter(|s| s.look == look).enumerate();
            same.try_for_each(|(index, s)| curve(&mut chart, s, colour(series, look, index), &y))?;
        }
        legend(&mut chart, ends_above(series, &x, &y))
    })
}

/// Whether curves run through the upper right corner, where the legend would hide them, and not through the lower one.
fn ends_above(series: &[Series], x: &Range<f64>, y: &Range<f64>) -> bool {
    let at = |value: f64, range: &Range<f64>| (value - range.start) / (range.end - range.start);
    let right =
        || series.iter().flat_map(|s| &s.points).filter(|point| at(point.0, x) > 0.7).map(|point| at(point.1, y));
    right().any(|height| height > 0.75) && !right().any(|height| height < 0.3)
}

/// Draws one metric of a run's log, in training and in validation, as `loss.png` in the run's folder; a run that was
/// stopped before it logged anything has none to draw, which is said.
///
/// # Errors
/// A log that cannot be read, or a picture that cannot be written.
pub fn plot_log(out: &Path, metric: &str, unit: &str) -> Result<()> {
    let records = read_log(&out.join("log.jsonl"))?;
    let points = |kind: RecordKind| -> Vec<(f64, f64)> {
        let named = |r: &LogRecord| r.get(metric).map(|v| (r.step as f64, v));
        records.iter().filter(|r| r.kind == kind).filter_map(named).collect()
    };
    let (train, validation) = (points(RecordKind::Train), points(RecordKind::Validation));
    if train.iter().chain(&validation).all(|(_, y)| !y.is_finite()) {
        eprintln!("{}: not drawn, no step has been logged yet", out.join("loss.png").display());
        return Ok(());
    }
    let window = (train.len() / 40).max(1);
    let series = [
        Series::new("training", train.clone(), Look::Raw),
        Series::new("training, smoothed", smoothed(&train, window), Look::Smooth),
        Series::new("validation", validation, Look::Marked),
    ];
    loss_curve(&series, "Training", "step", unit, &out.join("loss.png"))
}

/// A named sample for a [`histogram`].
#[derive(Debug, Clone)]
pub struct Sample {
    /// The name in the legend.
    pub name: String,
    /// The values; those that are not finite are left out.
    pub values: Vec<f64>,
}

/// Overlaid histograms on common bins, each as a share of its own sample, with the means in the legend.
///
/// # Errors
/// No finite value at all, or a failure of the file system.
pub fn histogram(samples: &[Sample], title: &str, x_label: &str, path: &Path) -> Result<()> {
    let finite: Vec<Vec<f64>> =
        samples.iter().map(|s| s.values.iter().copied().filter(|v| v.is_finite()).collect()).collect();
    let all: Vec<f64> = finite.concat();
    let x = span(&all, 0.02).with_context(|| format!("{}: nothing to draw", path.display()))?;
    let shares: Vec<Vec<f64>> = finite.iter().map(|values| bin_shares(values, &x)).collect();
    let top = shares.iter().flatten().copied().fold(0.0, f64::max) * 1.12;
    draw(path, |canvas| {
        let mut chart = axes(canvas, title, x_label, "share of images (%)", x.clone(), 0.0..top)?;
        for (index, (sample, shares)) in samples.iter().zip(&shares).enumerate() {
            let colour = PALETTE[index % PALETTE.len()];
            let outline = outline(shares, &x);
            chart.draw_series(AreaSeries::new(outline.iter().copied(), 0.0, colour.mix(0.25)))?;
            let line = LineSeries::new(outline, colour.stroke_width(2 * SCALE));
            let mean = finite[index].iter().sum::<f64>() / finite[index].len().max(1) as f64;
            let key = move |(x, y)| {
                let y = y + KEY_RISE;
                Rectangle::new([(x, y - KEY / 3), (x + KEY, y + KEY / 3)], colour.mix(0.6).filled())
            };
            chart.draw_series(line)?.label(format!("{}, mean {mean:.3}", sample.name)).legend(key);
        }
        legend(&mut chart, false)
    })
}

/// Pictures of one size side by side on white, `columns` to a row, each under its caption.
///
/// # Errors
/// No picture, pictures of different sizes, or a font that cannot be read.
pub fn panels(pictures: &[(String, RgbImage)], columns: usize) -> Result<RgbImage> {
    const GAP: u32 = 12;
    const CAPTION: u32 = 26;
    register_font()?;
    let (width, height) = pictures.first().context("nothing to draw")?.1.dimensions();
    ensure!(pictures.iter().all(|(_, p)| p.dimensions() == (width, height)), "the pictures differ in size");
    let columns = (columns as u32).clamp(1, pictures.len() as u32);
    let rows = (pictures.len() as u32).div_ceil(columns);
    let (cell_width, cell_height) = (width + GAP, height + CAPTION + GAP);
    let size = (columns * cell_width + GAP, rows * cell_height + GAP);
    let mut pixels = vec![255; (size.0 * size.1 * 3) as usize];
    let places = (0..pictures.len() as u32).map(|k| (k % columns * cell_width + GAP, k / columns * cell_height + GAP));
    let places: Vec<(u32, u32)> = places.collect();
    {
        let canvas = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        let style = (FONT, 17).into_font().color(&INK);
        for ((caption, _), &(x, y)) in pictures.iter().zip(&places) {
            canvas.draw_text(caption, &style, (x as i32, y as i32))?;
        }
        canvas.present()?;
    }
    let mut sheet = RgbImage::from_raw(size.0, size.1, pixels).context("the sheet has another size")?;
    for ((_, picture), &(x, y)) in pictures.iter().zip(&places) {
        image::imageops::replace(&mut sheet, picture, i64::from(x), i64::from(y + CAPTION));
    }
    Ok(sheet)
}

const BINS: usize = 60;

/// Per cent of the values in each of [`BINS`] equal bins.
fn bin_shares(values: &[f64], range: &Range<f64>) -> Vec<f64> {
    let mut shares = vec![0.0; BINS];
    for value in values {
        let bin = (value - range.start) / (range.end - range.start) * BINS as f64;
        shares[(bin as usize).min(BINS - 1)] += 100.0 / values.len() as f64;
    }
    shares
}

/// The stairs over the bins, from the first that is not empty to the last.
fn outline(shares: &[f64], range: &Range<f64>) -> Vec<(f64, f64)> {
    let width = (range.end - range.start) / shares.len() as f64;
    let edge = |bin: usize| range.start + bin as f64 * width;
    let first = shares.iter().position(|&s| s > 0.0).unwrap_or(0);
    let end = shares.iter().rposition(|&s| s > 0.0).map_or(0, |last| last + 1);
    let stairs = (first..end).flat_map(|bin| [(edge(bin), shares[bin]), (edge(bin + 1), shares[bin])]);
    std::iter::once((edge(first), 0.0)).chain(stairs).chain([(edge(end), 0.0)]).collect()
}

/// The extent of the axes; `None` without a finite point.
fn ranges(series: &[Series]) -> Option<(Range<f64>, Range<f64>)> {
    let points = || series.iter().flat_map(|s| &s.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let mut ys: Vec<f64> = points().map(|p| p.1).collect();
    ys.sort_by(f64::total_cmp);
    ys.truncate((ys.len() as f64 * 0.98).ceil() as usize);
    let marked = series.iter().filter(|s| s.look == Look::Marked).flat_map(|s| &s.points).map(|p| p.1);
    ys.extend(marked.filter(|y| y.is_finite()));
    let xs: Vec<f64> = points().map(|p| p.0).collect();
    Some((span(&xs, 0.0)?, span(&ys, 0.06)?))
}

/// From the least to the greatest value with a margin, never empty.
fn span(values: &[f64], margin: f64) -> Option<Range<f64>> {
    let low = values.iter().copied().reduce(f64::min)?;
    let high = values.iter().copied().reduce(f64::max)?;
    let width = if high > low { high - low } else { low.abs().max(1.0) * 0.1 };
    let high = if high > low { high } else { low + width };
    Some(low - margin * width..high + margin * width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legend_leaves_the_corner_that_curves_run_through() {
        let line =
            |end: f64| [Series::new("line", vec![(0.0, 1.0 - end), (0.8, 0.2 + 0.6 * end), (1.0, end)], Look::Smooth)];
        let whole = 0.0..1.0;
        assert!(ends_above(&line(1.0), &whole, &whole) && !ends_above(&line(0.0), &whole, &whole));
        let both: Vec<_> = line(1.0).into_iter().chain(line(0.0)).collect();
        assert!(!ends_above(&both, &whole, &whole));
    }

    /// A curve that decays from 8 to 3.6 bits/dim with noise that shrinks.
    fn decay(step: f64) -> f64 {
        let noise = (step * 12.9898).sin() * 43_758.545;
        3.6 + 4.4 * (-step / 900.0).exp() + 0.35 * (noise - noise.floor() - 0.5) * (1.0 + (-step / 2000.0).exp())
    }

    fn curves() -> Vec<Series> {
        let raw: Vec<_> = (0..10_000).step_by(10).map(|s| (f64::from(s), decay(f64::from(s)))).collect();
        let validation = (0..=10).map(|k| f64::from(k) * 1000.0).map(|s| (s, 3.68 + 4.4 * (-s / 900.0).exp()));
        vec![
            Series::new("validation", validation.collect(), Look::Marked),
            Series::new("training, smoothed", smoothed(&raw, 51), Look::Smooth),
            Series::new("training", raw, Look::Raw),
        ]
    }

    /// Where a look at the charts is wanted, `FLOW_PLOTS` names a folder that keeps them.
    fn chart(name: &str, write: impl FnOnce(&Path) -> Result<()>) -> RgbImage {
        let folder = tempfile::tempdir().unwrap();
        let kept = std::env::var_os("FLOW_PLOTS").map_or_else(|| folder.path().to_path_buf(), Into::into);
        let path = kept.join(name);
        write(&path).unwrap();
        image::open(path).unwrap().into_rgb8()
    }

    /// Pixels of nearly this colour; reduction softens the edges of lines.
    fn count(picture: &RgbImage, colour: RGBColor) -> usize {
        let near = |(a, b): (u8, u8)| a.abs_diff(b) < 24;
        picture.pixels().filter(|p| p.0.into_iter().zip([colour.0, colour.1, colour.2]).all(near)).count()
    }

    #[test]
    fn a_learning_curve_shows_trend_and_validation_in_their_colours() {
        let picture =
            chart("loss.png", |path| loss_curve(&curves(), "A synthetic learning curve", "step", "bits/dim", path));
        assert_eq!(picture.dimensions(), SIZE);
        assert!(count(&picture, PALETTE[0]) > 1500, "the trend");
        assert!(count(&picture, PALETTE[1]) > 800, "validation");
        assert_eq!(count(&picture, PALETTE[2]), 0);
    }

    #[test]
    fn a_histogram_shows_both_samples() {
        let sample = |name: &str, shift: f64| {
            let values = (0..4000).map(|i| shift + 0.8 * (f64::from(i) * 0.77).sin() * (f64::from(i) * 0.31).cos());
            Sample { name: name.into(), values: values.chain([f64::NAN]).collect() }
        };
        let samples = [sample("Fashion-MNIST (test)", 3.0), sample("MNIST (never seen)", 4.1)];
        let picture = chart("ood.png", |path| histogram(&samples, "Likelihood of two data sets", "bits/dim", path));
        assert!(count(&picture, PALETTE[0]) > 500 && count(&picture, PALETTE[1]) > 500);
    }

    #[test]
    fn panels_stand_in_rows_under_their_captions() {
        let colours = [[200, 0, 0], [0, 200, 0], [0, 0, 200]];
        let pictures = colours.map(|c| ("A caption".to_string(), RgbImage::from_pixel(100, 60, image::Rgb(c))));
        let sheet = panels(&pictures, 2).unwrap();
        assert_eq!(sheet.dimensions(), (2 * 112 + 12, 2 * 98 + 12));
        for (colour, (x, y)) in colours.into_iter().zip([(12, 38), (124, 38), (12, 136)]) {
            assert_eq!((sheet.get_pixel(x, y).0, sheet.get_pixel(x + 99, y + 59).0), (colour, colour));
        }
        let dark = |y: std::ops::Range<u32>| y.flat_map(|y| (0..112).map(move |x| (x, y)));
        assert!(dark(12..36).filter(|&(x, y)| sheet.get_pixel(x, y).0[0] < 128).count() > 50, "no caption");
        assert!(panels(&[], 2).is_err());
    }

    #[test]
    fn odd_input_draws_or_says_why_not() {
        let flat = [Series::new("", vec![(0.0, 2.0), (1.0, f64::NAN), (1.0, 2.0)], Look::Raw)];
        chart("flat.png", |path| loss_curve(&flat, "", "", "", path));
        chart("one.png", |path| histogram(&[Sample { name: "x".into(), values: vec![1.0] }], "", "", path));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.png");
        let nothing = [Series::new("x", vec![(0.0, f64::NAN)], Look::Smooth)];
        for outcome in
            [loss_curve(&nothing, "", "", "", &path), loss_curve(&[], "", "", "", &path), histogram(&[], "", "", &path)]
        {
            assert!(outcome.unwrap_err().to_string().contains("none.png: nothing to draw"));
        }
        assert!(!path.exists());
    }

    #[test]
    fn smoothing_neither_lags_nor_bends_the_ends() {
        let line = |x: f64| 5.0 - 0.5 * x;
        let points: Vec<_> = (0..50).map(|i| (f64::from(i), line(f64::from(i)))).collect();
        let trend = smoothed(&points, 20);
        assert!(trend.iter().all(|&(x, y)| (y - line(x)).abs() < 1e-12));
        assert!(trend.is_sorted_by(|a, b| a.0 < b.0) && (trend[25].0 - 25.0).abs() < 1e-12);
        let gap = smoothed(&[(0.0, 0.0), (1.0, f64::NAN), (2.0, 3.0), (4.0, 9.0)], 3);
        assert_eq!(gap, [(1.0, 1.5), (2.0, 4.0), (3.0, 6.0)]);
        assert!(smoothed(&[], 3).is_empty());
    }
}
