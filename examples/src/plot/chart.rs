//! The parts of a chart: canvas, axes, curves, legend, and the font that all of it is written in.

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Result, anyhow, ensure};
use image::RgbImage;
use image::imageops::{FilterType, resize};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::{Look, Series};

/// Width and height of every chart in pixels.
pub const SIZE: (u32, u32) = (1200, 700);

/// Drawn at this multiple of the size, then reduced.
pub(super) const SCALE: u32 = 2;
pub(crate) const FONT: &str = "sans-serif";
pub(super) const INK: RGBColor = RGBColor(31, 41, 55);
const SOFT_INK: RGBColor = RGBColor(107, 114, 128);
const RULE: RGBColor = RGBColor(229, 231, 235);
pub(super) const PALETTE: [RGBColor; 5] = [
    RGBColor(37, 99, 235),
    RGBColor(234, 88, 12),
    RGBColor(5, 150, 105),
    RGBColor(147, 51, 234),
    RGBColor(202, 138, 4),
];

/// Length of a key in the legend, and how far it must rise to meet the middle of its text.
pub(super) const KEY: i32 = 22 * SCALE as i32;
pub(super) const KEY_RISE: i32 = -3 * SCALE as i32;

pub(super) type Canvas<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
pub(super) type Chart<'a, 'b> = ChartContext<
    'a,
    BitMapBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

/// Trends take the colours in turn, raw series those of their trends, marked ones those after.
pub(super) fn colour(series: &[Series], look: Look, index: usize) -> RGBColor {
    let lines = |look| series.iter().filter(|s| s.look == look).count();
    let offset = if look == Look::Marked { lines(Look::Raw).max(lines(Look::Smooth)) } else { 0 };
    PALETTE[(offset + index) % PALETTE.len()]
}

pub(super) fn curve<'a, 'b: 'a>(
    chart: &mut Chart<'a, 'b>,
    series: &Series,
    colour: RGBColor,
    y: &Range<f64>,
) -> Result<()> {
    let style = match series.look {
        Look::Raw => colour.mix(0.38).stroke_width(SCALE),
        Look::Smooth => colour.stroke_width(3 * SCALE),
        Look::Marked => colour.stroke_width(2 * SCALE),
    };
    let visible = |p: &&(f64, f64)| p.0.is_finite() && y.contains(&p.1);
    let points: Vec<(f64, f64)> = series.points.iter().filter(visible).copied().collect();
    let marked = series.look == Look::Marked;
    let drawn = chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
    if !series.name.is_empty() {
        drawn.label(&series.name).legend(move |(x, y)| {
            let line = PathElement::new([(0, 0), (KEY, 0)], style);
            let radius = if marked { 4 } else { 0 };
            EmptyElement::at((x, y + KEY_RISE)) + line + dot((KEY / 2, 0), radius, colour)
        });
    }
    if marked {
        chart.draw_series(points.iter().map(|&p| dot(p, 6, WHITE)))?;
        chart.draw_series(points.iter().map(|&p| dot(p, 4, colour)))?;
    }
    Ok(())
}

/// A filled disc around a point of the chart or of the legend.
fn dot<P>(centre: P, radius: u32, fill: RGBColor) -> Circle<P, u32> {
    Circle::new(centre, radius * SCALE, fill.filled())
}

/// Runs the drawing on a large canvas and writes it reduced, complete or not at all.
pub(super) fn draw(path: &Path, paint: impl FnOnce(&Canvas<'_>) -> Result<()>) -> Result<()> {
    register_font()?;
    let (width, height) = (SIZE.0 * SCALE, SIZE.1 * SCALE);
    let mut pixels = vec![255; (width * height * 3) as usize];
    {
        let canvas = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        paint(&canvas)?;
        canvas.present()?;
    }
    let large = RgbImage::from_raw(width, height, pixels).ok_or_else(|| anyhow!("the canvas has another size"))?;
    let chart = resize(&large, SIZE.0, SIZE.1, FilterType::Triangle);
    Ok(flow_image::io::write_png(path, &chart.into())?)
}

/// Makes the built-in font known to plotters as [`FONT`].
pub(crate) fn register_font() -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let bytes = epaint_default_fonts::UBUNTU_LIGHT;
    let ok = *REGISTERED.get_or_init(|| plotters::style::register_font(FONT, FontStyle::Normal, bytes).is_ok());
    ensure!(ok, "the built-in font cannot be read");
    Ok(())
}

fn text(size: u32, colour: RGBColor) -> TextStyle<'static> {
    (FONT, size * SCALE).into_font().color(&colour)
}

/// Title, rules, ticks and labels.
pub(super) fn axes<'a, 'b>(
    canvas: &'a Canvas<'b>,
    title: &str,
    x_label: &str,
    y_label: &str,
    x: Range<f64>,
    y: Range<f64>,
) -> Result<Chart<'a, 'b>> {
    let margin = 28 * SCALE as i32;
    canvas.draw_text(title, &text(28, INK), (margin, margin - 6 * SCALE as i32))?;
    let (x_digits, y_digits) = (digits(&x), digits(&y));
    let mut chart = ChartBuilder::on(canvas)
        .margin(margin)
        .margin_top(76 * SCALE)
        .x_label_area_size(54 * SCALE)
        .y_label_area_size(78 * SCALE)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RULE.stroke_width(SCALE))
        .axis_style(SOFT_INK.mix(0.6).stroke_width(SCALE))
        .x_labels(9)
        .y_labels(8)
        .set_all_tick_mark_size(5 * SCALE)
        .label_style(text(17, SOFT_INK))
        .axis_desc_style(text(19, INK))
        .x_label_formatter(&|v| number(*v, x_digits))
        .y_label_formatter(&|v| number(*v, y_digits))
        .x_desc(x_label)
        .y_desc(y_label)
        .draw()?;
    Ok(chart)
}

/// The names of the curves, on the right: above, or below.
pub(super) fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, below: bool) -> Result<()> {
    let corner = if below { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::UpperRight };
    chart
        .configure_series_labels()
        .position(corner)
        .margin(14 * SCALE)
        .legend_area_size(34 * SCALE)
        .background_style(WHITE.mix(0.85))
        .border_style(TRANSPARENT)
        .label_font(text(18, INK))
        .draw()?;
    Ok(())
}

/// Decimals that tell neighbouring ticks of a range apart.
fn digits(range: &Range<f64>) -> usize {
    let step = (range.end - range.start) / 10.0;
    (-step.log10()).ceil().clamp(0.0, 9.0) as usize
}

/// A number with commas between thousands.
fn number(value: f64, digits: usize) -> String {
    let plain = format!("{:.digits$}", value.abs());
    let (whole, fraction) = plain.split_once('.').map_or((plain.as_str(), None), |(w, f)| (w, Some(f)));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let is_zero = plain.chars().all(|c| matches!(c, '0' | '.'));
    let sign = if value < 0.0 && !is_zero { "-" } else { "" };
    format!("{sign}{grouped}{}", fraction.map(|f| format!(".{f}")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(number(1_234_567.0, 0), "1,234,567");
        assert_eq!(number(-1234.5, 1), "-1,234.5");
        assert_eq!(number(-0.001, 1), "0.0");
        assert_eq!(digits(&(0.0..10_000.0)), 0);
        assert_eq!(digits(&(3.4..5.4)), 1);
    }
}
