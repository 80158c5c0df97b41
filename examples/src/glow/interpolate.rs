//! `glow interpolate`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use candle_core::{DType, Tensor};
use clap::Args;
use flow_core::FlowRng;
use flow_core::density::Latents;
use flow_image::io::{GridStyle, Pixels, grid, write_gif};
use flow_image::model::ImageModel;

use super::common::{DataArg, Part, images_for, load, progress};
use super::latents::{count, decode_images, encode_images};
use super::sheet::{Names, Sheet, check_drawable};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, counted, refuse};

/// Walk between pairs of images
#[derive(Args, Debug)]
#[command(after_help = "\
A row per pair; its ends are the two images themselves. A class-conditional model takes the class of the nearer end.

Examples:
  glow interpolate --pairs 6 --steps 11
  glow interpolate --indices 3,17,20,4 --gif walk.gif --steps 24")]
pub(super) struct InterpolateArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::Test)]
    split: Part,
    /// Number of pairs, drawn at random
    #[arg(long, default_value_t = 8)]
    pairs: usize,
    /// Take these images instead, two for each pair, counted from 0 and separated by commas
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["pairs", "seed"])]
    indices: Vec<usize>,
    /// Images per row, both ends included
    #[arg(long, default_value_t = 9)]
    steps: usize,
    /// Walk on an arc around the origin instead of a straight line, so that latents stay as far from it as the ends
    #[arg(long)]
    spherical: bool,
    /// Picture to write, or an array: .npy, .npz
    #[arg(long, default_value = "flow-out/interpolation.png", value_name = "FILE")]
    out: PathBuf,
    /// Also write an animation that goes there and back
    #[arg(long, value_name = "FILE")]
    gif: Option<PathBuf>,
    /// Milliseconds per frame of the animation [default: 80]
    #[arg(long)]
    delay: Option<u32>,
    /// Seed of the choice of pairs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl InterpolateArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--pairs", self.pairs)?;
        if self.steps < 2 {
            bail!("--steps must be at least 2, both ends, got {}", self.steps);
        }
        let unread = self.delay.is_some() && self.gif.is_none();
        refuse(&[("--delay", unread)], "for the animation of --gif FILE; add it, or leave it out")?;
        check_output(&self.out)?;
        self.gif.as_deref().map_or(Ok(()), check_output)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        check_drawable(run.spec.channels, &self.out)?;
        let set = images_for(&run, &self.data.data, self.split)?;
        let (from, to) = self.choose(set.len())?;
        let bar = progress(from.len() * (self.steps + 2), "interpolating");
        let (a, b) = (encode_images(&model, &set, &from, &bar)?, encode_images(&model, &set, &to, &bar)?);
        let labels = [set.labels_of(&from), set.labels_of(&to)];
        let frame = |step: usize| -> Result<Tensor> {
            let t = step as f64 / (self.steps - 1) as f64;
            let labels = labels[usize::from(t > 0.5)].as_deref();
            decode_images(&model, &between(&a, &b, t, self.spherical)?, labels, &bar)
        };
        let frames = (0..self.steps).map(frame).collect::<Result<Vec<_>>>()?;
        bar.finish_and_clear();
        let pairs = from.iter().zip(&to).map(|(from, to)| format!("{from} to {to}")).collect();
        let place = self.write(&model, &frames, pairs)?;
        println!("{} in {} steps in {place}", counted(from.len(), "pair"), self.steps);
        Ok(())
    }

    /// The images of the left and of the right end.
    fn choose(&self, images: usize) -> Result<(Vec<usize>, Vec<usize>)> {
        if !self.indices.len().is_multiple_of(2) {
            bail!("--indices: expected two for each pair, got {}", self.indices.len());
        }
        if let Some(beyond) = self.indices.iter().find(|&&i| i >= images) {
            bail!("--indices: {beyond} of {images} images, counted from 0");
        }
        let mut chosen = self.indices.clone();
        if chosen.is_empty() {
            if 2 * self.pairs > images {
                bail!("--pairs {}: needs {} images, there are {images}", self.pairs, 2 * self.pairs);
            }
            chosen = FlowRng::named(self.seed, "pairs").permutation(images);
            chosen.truncate(2 * self.pairs);
        }
        let end = |odd: usize| chosen.iter().copied().skip(odd).step_by(2).collect();
        Ok((end(0), end(1)))
    }

    /// The sheet with its rows named by their pairs and its columns by how far they are, and the animation.
    fn write(&self, model: &ImageModel, frames: &[Tensor], pairs: Vec<String>) -> Result<String> {
        let levels = model.spec().levels;
        let images = &Tensor::stack(frames, 1)?.flatten(0, 1)?;
        let far = |step: usize| format!("{:.0} %", 100.0 * step as f64 / (self.steps - 1) as f64);
        let names = Names { rows: pairs, columns: (0..self.steps).map(far).collect() };
        let place = Sheet { images, levels, columns: self.steps, names, labels: None }.write(&self.out)?;
        let Some(path) = &self.gif else { return Ok(place) };
        let picture = |f: &Tensor| Ok(grid(&Pixels::from_tensor(f, levels)?, &GridStyle::default())?);
        let there = frames.iter().map(picture).collect::<Result<Vec<_>>>()?;
        // There and back, either end shown once.
        let back = there.iter().rev().skip(1).take(there.len().saturating_sub(2));
        let all: Vec<_> = there.iter().chain(back).cloned().collect();
        write_gif(path, &all, self.delay.unwrap_or(80))?;
        Ok(place)
    }
}

/// The latents a fraction `t` of the way from `a` to `b`: on the line, or on the arc of
/// `sin((1-t)θ)/sin θ · a + sin(tθ)/sin θ · b` with `θ` the angle between an image's latents, all levels
/// together (Shoemake 1985).
fn between(a: &Latents, b: &Latents, t: f64, spherical: bool) -> Result<Latents> {
    let weights = if spherical {
        angles(a, b)?.iter().map(|&angle| arc(angle, t)).unzip()
    } else {
        let n = count(a)?;
        (vec![1.0 - t; n], vec![t; n])
    };
    let scale = |z: &Tensor, w: &[f64]| -> candle_core::Result<Tensor> {
        let mut dims = vec![1; z.rank()];
        dims[0] = w.len();
        z.broadcast_mul(&Tensor::new(w, z.device())?.to_dtype(z.dtype())?.reshape(dims)?)
    };
    super::latents::combine(a, b, |a, b| scale(a, &weights.0)? + scale(b, &weights.1)?)
}

/// Weights of both ends on an arc; those of the line where the arc has no length or no direction.
fn arc(angle: f64, t: f64) -> (f64, f64) {
    let sine = angle.sin();
    if sine.abs() < 1e-6 { (1.0 - t, t) } else { (((1.0 - t) * angle).sin() / sine, (t * angle).sin() / sine) }
}

/// The angle between the latents of every pair.
fn angles(a: &Latents, b: &Latents) -> Result<Vec<f64>> {
    let mut sums = vec![[0.0; 3]; count(a)?];
    for (a, b) in a.0.iter().zip(&b.0) {
        let rows = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_from(1)?.to_vec2::<f64>();
        for (sum, (a, b)) in sums.iter_mut().zip(rows(a)?.iter().zip(&rows(b)?)) {
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            sum.iter_mut().zip([dot(a, b), dot(a, a), dot(b, b)]).for_each(|(s, v)| *s += v);
        }
    }
    Ok(sums.iter().map(|[ab, aa, bb]| (ab / (aa * bb).sqrt().max(f64::MIN_POSITIVE)).clamp(-1.0, 1.0).acos()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn latents(x: f32, y: f32) -> Latents {
        let one = |v: f32| Tensor::new(&[[v]], &Device::Cpu).unwrap();
        Latents(vec![one(x), one(y)])
    }

    fn values(z: &Latents) -> Vec<f32> {
        z.0.iter().flat_map(|z| z.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
    }

    #[test]
    fn a_line_is_straight_and_an_arc_keeps_its_distance_over_all_levels() {
        let (a, b) = (latents(3.0, 0.0), latents(0.0, 3.0));
        assert_eq!(values(&between(&a, &b, 0.25, false).unwrap()), [2.25, 0.75]);
        let middle = values(&between(&a, &b, 0.5, true).unwrap());
        assert!(middle.iter().all(|v| (v - 3.0 * 0.5f32.sqrt()).abs() < 1e-5), "{middle:?}");
        for (t, end) in [(0.0, &a), (1.0, &b)] {
            for spherical in [false, true] {
                let at = values(&between(&a, &b, t, spherical).unwrap());
                assert!(at.iter().zip(values(end)).all(|(x, y)| (x - y).abs() < 1e-6), "{at:?}");
            }
        }
        // No angle and a half turn: the line, not a division by zero.
        for other in [latents(3.0, 0.0), latents(-3.0, 0.0), latents(0.0, 0.0)] {
            assert!(values(&between(&a, &other, 0.3, true).unwrap()).iter().all(|v| v.is_finite()));
        }
    }
}
