//! Pictures of densities in the plane: heat maps, points, paths.

use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use clap::Args;
use flow_core::FlowRng;
use flow_density::data::{Data, Toy};
use flow_density::metrics::log_prob;
use flow_density::model::Model;
use flow_density::trainer::DensityRun;
use flow_image::io::{write_gif, write_png};
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};

use crate::cli::refuse;
use crate::plot::panels;

/// Points of a panel.
const POINTS: usize = 8000;
/// Points that are followed.
const FOLLOWED: usize = 3000;
/// Panels of the strip.
const STRIP: usize = 8;
/// Steps of the animation between two stages, and frames that rest at the end.
const FRAMES: usize = 48;
const REST: usize = 14;

/// The square of the plane that is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    centre: [f64; 2],
    half: f64,
}

impl View {
    /// Holds nearly all of some points, with a margin.
    fn of(points: &[f64]) -> Self {
        let axis = |k: usize| {
            let mut values: Vec<f64> = points.iter().skip(k).step_by(2).copied().collect();
            values.sort_by(f64::total_cmp);
            let at = |q: f64| values.get((q * values.len().saturating_sub(1) as f64) as usize).copied().unwrap_or(0.0);
            (at(0.001), at(0.999))
        };
        let ((left, right), (bottom, top)) = (axis(0), axis(1));
        let half = 0.58 * (right - left).max(top - bottom).max(1e-6);
        View { centre: [0.5 * (left + right), 0.5 * (bottom + top)], half }
    }

    /// The place of a point in a picture of `side` pixels.
    fn pixel(self, [x, y]: [f64; 2], side: u32) -> [f64; 2] {
        let at = |v: f64| (0.5 + 0.5 * v / self.half) * f64::from(side);
        [at(x - self.centre[0]), at(self.centre[1] - y)]
    }

    /// The middles of the pixels of a picture, row by row from the top.
    fn grid(self, side: u32) -> Vec<f64> {
        let at = |i: u32| self.half * (2.0 * (f64::from(i) + 0.5) / f64::from(side) - 1.0);
        let row = |j: u32| (0..side).flat_map(move |i| [self.centre[0] + at(i), self.centre[1] - at(j)]);
        (0..side).flat_map(row).collect()
    }

    /// The area that a pixel stands for.
    fn pixel_area(self, side: u32) -> f64 {
        (2.0 * self.half / f64::from(side)).powi(2)
    }
}

/// Dark violet, blue, green, yellow: even in lightness, and readable without colour.
fn heat(value: f64) -> Rgb<u8> {
    const STOPS: [[f64; 3]; 6] = [
        [68.0, 1.0, 84.0],
        [65.0, 68.0, 135.0],
        [42.0, 120.0, 142.0],
        [34.0, 168.0, 132.0],
        [122.0, 209.0, 81.0],
        [253.0, 231.0, 37.0],
    ];
    let place = value.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let low = (place as usize).min(STOPS.len() - 2);
    let part = place - low as f64;
    Rgb([0, 1, 2].map(|c| (STOPS[low][c] + part * (STOPS[low + 1][c] - STOPS[low][c])).round() as u8))
}

/// A colour of the wheel.
fn hue(turn: f64) -> [f64; 3] {
    [0.0, 1.0 / 3.0, 2.0 / 3.0].map(|shift| {
        let wave = 0.5 + 0.5 * (std::f64::consts::TAU * (turn - shift)).cos();
        15.0 + 215.0 * wave.powf(1.3)
    })
}

/// Densities as colours; the scale ends at the value that one in five hundred pixels exceeds.
fn heat_map(density: &[f64], top: f64, side: u32) -> RgbImage {
    let shade = |v: f64| heat(if v.is_finite() { v / top } else { 0.0 });
    RgbImage::from_fn(side, side, |i, j| shade(density.get((j * side + i) as usize).copied().unwrap_or(0.0)))
}

fn top(density: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = density.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * 0.998) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(1.0).max(1e-12)
}

/// Points as discs on white, drawn large and reduced; discs that have colours of their own are larger.
fn scatter(points: &[f64], colours: &[[f64; 3]], view: View, side: u32) -> RgbImage {
    const SCALE: u32 = 2;
    let large = side * SCALE;
    let mut canvas = vec![[250.0_f64; 3]; (large * large) as usize];
    for (index, point) in points.as_chunks::<2>().0.iter().enumerate() {
        let colour = colours.get(index % colours.len().max(1)).copied().unwrap_or([37.0, 99.0, 235.0]);
        let [x, y] = view.pixel(*point, large);
        disc(&mut canvas, large, [x, y], if colours.is_empty() { 1.6 } else { 2.6 }, colour);
    }
    let picture = RgbImage::from_fn(large, large, |i, j| {
        Rgb(canvas[(j * large + i) as usize].map(|c| c.round().clamp(0.0, 255.0) as u8))
    });
    resize(&picture, side, side, FilterType::Triangle)
}

/// Blends a small disc into the canvas.
fn disc(canvas: &mut [[f64; 3]], side: u32, [x, y]: [f64; 2], radius: f64, colour: [f64; 3]) {
    const OPACITY: f64 = 0.65;
    if !(x.is_finite() && y.is_finite()) {
        return;
    }
    let (low, high) = (-radius.ceil() as i64, radius.ceil() as i64);
    for (dx, dy) in (low..=high).flat_map(|dx| (low..=high).map(move |dy| (dx, dy))) {
        let (i, j) = (x.floor() as i64 + dx, y.floor() as i64 + dy);
        let distance = ((i as f64 + 0.5 - x).powi(2) + (j as f64 + 0.5 - y).powi(2)).sqrt();
        let inside = (0..i64::from(side)).contains(&i) && (0..i64::from(side)).contains(&j);
        if inside && distance <= radius {
            let pixel = &mut canvas[(j * i64::from(side) + i) as usize];
            *pixel = [0, 1, 2].map(|c| pixel[c] + OPACITY * (colour[c] - pixel[c]));
        }
    }
}

/// How large pictures are.
#[derive(Args, Debug, Clone, Copy)]
pub(super) struct PictureArg {
    /// Width of the pictures' panels in pixels (data of the plane) [default: 420]
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..=4096))]
    pixels: Option<u32>,
}

impl PictureArg {
    /// Width of a panel.
    pub(super) fn pixels(self) -> u32 {
        self.pixels.unwrap_or(420)
    }

    /// Refuses the flag where no pictures are drawn.
    pub(super) fn check(self, drawn: bool, reason: &str) -> Result<()> {
        refuse(&[("--pixels", self.pixels.is_some() && !drawn)], reason)
    }
}

/// The data that are shown: points of a toy, else the first of these rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) toy: Option<Toy>,
    pub(super) rows: &'a [f64],
}

impl<'a> Shown<'a> {
    /// The rows that a model was trained on.
    pub(super) fn of(data: &'a Data) -> Self {
        Shown { toy: data.toy(), rows: data.train() }
    }
}

/// Writes `density.png`, `samples.png`, `path.png` and `path.gif` for a model of the plane; prints what share of the
/// probability lies in the square that is shown.
pub(super) fn write_all(
    model: &Model,
    run: &DensityRun,
    data: Shown<'_>,
    style: PictureArg,
    out: &Path,
    seed: u64,
) -> Result<()> {
    let pixels = style.pixels();
    let mut rng = FlowRng::named(seed, "samples of the picture");
    let drawn = model.density().sample(POINTS, None, 1.0, &mut rng)?;
    let view = samples(run, data, &drawn, pixels, &out.join("samples.png"), seed)?;
    let picture = out.join("density.png");
    let total = density(model, run, data, view, pixels, &picture)?;
    println!("{}: the density integrates to {total:.4} over the square that is shown", picture.display());
    // Latents lie further out than data.
    let wider = View { half: 1.35 * view.half, ..view };
    paths(model, run, wider, pixels * 3 / 4, out, seed)
}

/// Samples beside the data; returns the part of the plane that is seen.
pub(super) fn samples(
    run: &DensityRun,
    data: Shown<'_>,
    drawn: &Tensor,
    side: u32,
    path: &Path,
    seed: u64,
) -> Result<View> {
    let shown: Vec<f64> = match data.toy {
        Some(toy) => {
            let drawn = toy.rows(POINTS, &mut FlowRng::named(seed, "points of the picture"));
            drawn.into_iter().map(f64::from).collect()
        }
        None => data.rows[..data.rows.len().min(2 * POINTS)].to_vec(),
    };
    let view = View::of(&shown);
    let drawn = run.standard.undo(&drawn.narrow(0, 0, drawn.dim(0)?.min(shown.len() / 2))?)?;
    let pair = [
        ("data".to_string(), scatter(&shown, &[], view, side)),
        ("model".to_string(), scatter(&drawn, &[], view, side)),
    ];
    write_png(path, &panels(&pair, 2)?.into())?;
    Ok(view)
}

/// The model's density, beside the exact one where it is known; returns its integral over what is seen.
fn density(model: &Model, run: &DensityRun, data: Shown<'_>, view: View, side: u32, path: &Path) -> Result<f64> {
    let grid = view.grid(side);
    let logs = log_prob(model.density(), &run.standard.apply(&grid, model.store().device())?)?;
    let found: Vec<f64> = logs.iter().map(|&l| (l - run.standard.log_scale()).exp()).collect();
    let mut pictures = Vec::new();
    let mut most = top(&found);
    if let Some(toy) = data.toy {
        let truth: Vec<f64> = toy.log_density(grid.as_chunks::<2>().0).iter().map(|l| l.exp()).collect();
        most = top(&truth);
        pictures.push((format!("{}, exact", toy.name()), heat_map(&truth, most, side)));
    }
    pictures.push(("model".to_string(), heat_map(&found, most, side)));
    write_png(path, &panels(&pictures, 2)?.into())?;
    Ok(found.iter().sum::<f64>() * view.pixel_area(side))
}

/// An exact density of the plane beside the model's, over a square that holds the model's points.
pub(super) fn beside(
    model: &Model,
    style: PictureArg,
    path: &Path,
    seed: u64,
    exact: impl Fn(&Tensor) -> Result<Vec<f64>>,
) -> Result<()> {
    let side = style.pixels();
    let mut rng = FlowRng::named(seed, "samples of the picture");
    let drawn = model.density().sample(POINTS, None, 1.0, &mut rng)?.to_dtype(DType::F64)?;
    let view = View::of(&drawn.flatten_all()?.to_vec1::<f64>()?);
    let store = model.store();
    let grid = Tensor::from_vec(view.grid(side), ((side * side) as usize, 2), &Device::Cpu)?;
    let grid = grid.to_dtype(store.dtype())?.to_device(store.device())?;
    let found = densities(model, &grid)?;
    // A formula may have values where its variables have no domain; there is no density there.
    let truth = exact(&grid)?.into_iter().zip(&found).map(|(exact, found)| found.map_or(0.0, |_| exact));
    let (truth, found): (Vec<f64>, Vec<f64>) = (truth.collect(), found.iter().map(|p| p.unwrap_or(0.0)).collect());
    let most = top(&truth);
    let pair =
        [("exact".to_string(), heat_map(&truth, most, side)), ("model".to_string(), heat_map(&found, most, side))];
    Ok(write_png(path, &panels(&pair, 2)?.into())?)
}

/// The model's density at points; `None` outside the domain of its layers.
fn densities(model: &Model, points: &Tensor) -> Result<Vec<Option<f64>>> {
    let mut inside: Vec<u32> = (0..points.dim(0)? as u32).collect();
    let mut out = vec![None; inside.len()];
    let _paused = model.store().no_grad();
    while !inside.is_empty() {
        let some = points.index_select(&Tensor::new(inside.as_slice(), points.device())?, 0)?;
        match model.density().log_prob(&some, None) {
            Ok(logs) => {
                let logs = logs.to_dtype(DType::F64)?.to_vec1::<f64>()?;
                inside.iter().zip(logs).for_each(|(&row, log)| out[row as usize] = Some(log.exp()));
                break;
            }
            // Every layer names the rows that it refuses: without them the next one has its turn.
            Err(flow_core::Error::Domain { rows, .. }) if !rows.is_empty() => {
                let mut place = 0;
                inside.retain(|_| {
                    place += 1;
                    rows.binary_search(&(place - 1)).is_err()
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(out)
}

/// Points from latent to data, coloured by the angle at which they start: a strip and an animation.
fn paths(model: &Model, run: &DensityRun, view: View, side: u32, out: &Path, seed: u64) -> Result<()> {
    let latents = model.latents(FOLLOWED, 1.0, &mut FlowRng::named(seed, "points of the path"))?;
    let colours: Vec<[f64; 3]> = latents
        .to_vec2::<f32>()?
        .iter()
        .map(|p| hue(f64::from(p[1]).atan2(f64::from(p[0])) / std::f64::consts::TAU))
        .collect();
    let stages = model.path(&latents)?;
    let stages: Vec<(String, Vec<f64>)> =
        stages.into_iter().map(|(name, t)| Ok((name, run.standard.undo(&t)?))).collect::<Result<_>>()?;
    let last = stages.len() - 1;
    let chosen = (0..STRIP).map(|k| (k * last + (STRIP - 1) / 2) / (STRIP - 1));
    let mut chosen: Vec<usize> = chosen.collect();
    chosen.dedup();
    let strip: Vec<(String, RgbImage)> =
        chosen.iter().map(|&i| (stages[i].0.clone(), scatter(&stages[i].1, &colours, view, side))).collect();
    write_png(&out.join("path.png"), &panels(&strip, 4)?.into())?;
    let mut frames: Vec<RgbImage> =
        (0..FRAMES).map(|k| scatter(&between(&stages, k as f64 / (FRAMES - 1) as f64), &colours, view, side)).collect();
    let end = frames.last().cloned();
    frames.extend(end.into_iter().flat_map(|frame| vec![frame; REST]));
    Ok(write_gif(&out.join("path.gif"), &frames, 60)?)
}

/// The points `part` of the way through the stages, on straight lines between neighbouring ones.
fn between(stages: &[(String, Vec<f64>)], part: f64) -> Vec<f64> {
    let place = part * (stages.len() - 1) as f64;
    let low = (place as usize).min(stages.len().saturating_sub(2));
    let share = place - low as f64;
    let (from, to) = (&stages[low].1, &stages[(low + 1).min(stages.len() - 1)].1);
    from.iter().zip(to).map(|(a, b)| a + share * (b - a)).collect()
}
