//! `pointflow interpolate`.

use anyhow::{Result, bail};
use candle_core::Tensor;
use clap::{Args, ValueEnum};
use flow_core::FlowRng;
use flow_points::Point;
use flow_points::model::{Draw, PointFlow};
use flow_points::trainer::{from_tensor, to_tensor};

use super::common::{SolverArg, load};
use super::data::{InputArg, clouds_at};
use super::output::OutputArg;
use crate::cli::{CheckpointArg, DeviceArg, counted};

/// Where the walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Space {
    /// On the sphere of the prior's noise: every step is as probable as the ends.
    Noise,
    /// Straight between the encoder's latents.
    Latent,
}

/// Walk between two shapes through latent space
#[derive(Args, Debug)]
#[command(after_help = "\
Every step uses the same noise for its points, so that they move with the shape; the turntable is the walk itself.

Examples:
  pointflow interpolate --data chairs.npy --from 0 --to 7
  pointflow interpolate --from 3 --to 11 --steps 24 --out walk --ascii")]
pub(super) struct InterpolateArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    input: InputArg,
    /// First shape, counted from zero
    #[arg(long, default_value_t = 0)]
    from: usize,
    /// Last shape
    #[arg(long, default_value_t = 1)]
    to: usize,
    /// Clouds of the walk, both ends included
    #[arg(long, default_value_t = 8)]
    steps: usize,
    /// Points of each cloud
    #[arg(long, default_value_t = 2048)]
    points: usize,
    /// The space of the walk
    #[arg(long, value_enum, default_value_t = Space::Noise)]
    space: Space,
    #[command(flatten)]
    solver: SolverArg,
    #[command(flatten)]
    output: OutputArg,
    /// Seed of the noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl InterpolateArgs {
    pub(super) fn run(self) -> Result<()> {
        if self.steps < 2 {
            bail!("--steps must be at least 2, the two ends, got {}", self.steps);
        }
        let out = self.output.open("interpolate")?;
        let device = self.device.open()?;
        let (run, model) = load(&self.checkpoint, &device)?;
        let mut rng = FlowRng::named(self.seed, "interpolate");
        let input =
            self.input.open_at_most(self.points, None::<fn(&[f64; 3]) -> bool>, (&self.checkpoint, &run), &mut rng)?;
        let pick = |index: usize, flag: &str| match input.clouds.get(index) {
            Some(cloud) => Ok(run.normalization.apply(cloud)),
            None => bail!("{flag} {index}: {} has {} shapes, counted from zero", input.source, input.clouds.len()),
        };
        // One by one: the two may differ in size.
        let latent = |cloud: Vec<Point>| -> Result<Tensor> { Ok(run.latents(&model, &to_tensor(&[cloud], &device)?)?) };
        let ends = Tensor::cat(&[latent(pick(self.from, "--from")?)?, latent(pick(self.to, "--to")?)?], 0)?;
        let solver = self.solver.options()?;
        let draw = self.solver.draw(solver.as_ref(), 1.0);
        let latents = self.walk(&model, &ends, &draw)?;
        let clouds = model.decode_alike(&latents, self.points, &draw, &mut rng)?;
        let clouds = clouds_at(input.origin, from_tensor(&clouds)?.iter().map(|c| run.normalization.undo(c)));
        let names: Vec<String> = (0..clouds.len()).map(|i| format!("step-{i:03}")).collect();
        let title = format!("between {} and {} of {}", self.from, self.to, input.source);
        let written = out.write_walk(&clouds, &names, &title)?;
        println!("{} from shape {} to {}; {}", counted(self.steps, "cloud"), self.from, self.to, written.display());
        Ok(())
    }

    /// Latents `(steps, Z)` from the first row of `ends` to the second.
    fn walk(&self, model: &PointFlow, ends: &Tensor, draw: &Draw<'_>) -> Result<Tensor> {
        let noise = self.space == Space::Noise;
        let ends = if noise { model.noise_of_latents(ends, draw)? } else { ends.clone() };
        let rows = ends.to_vec2::<f32>()?;
        let angle = if noise { angle_between(&rows[0], &rows[1]) } else { 0.0 };
        let path = (0..self.steps).map(|k| {
            let s = k as f64 / (self.steps - 1) as f64;
            let (a, b) = weights(s, angle);
            (ends.narrow(0, 0, 1)?.affine(a, 0.0)? + ends.narrow(0, 1, 1)?.affine(b, 0.0)?).map_err(anyhow::Error::from)
        });
        let path = Tensor::cat(&path.collect::<Result<Vec<_>>>()?, 0)?;
        Ok(if noise { model.latents_of_noise(&path, draw)? } else { path })
    }
}

/// Spherical weights of both ends; straight ones where the angle is nearly zero.
fn weights(s: f64, angle: f64) -> (f64, f64) {
    if angle.sin() < 1e-6 {
        return (1.0 - s, s);
    }
    (((1.0 - s) * angle).sin() / angle.sin(), (s * angle).sin() / angle.sin())
}

fn angle_between(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>();
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    if cosine.is_finite() { cosine.clamp(-1.0, 1.0).acos() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_begins_and_ends_at_its_ends_and_keeps_the_radius() {
        let (a, b) = ([3.0_f32, 0.0], [0.0_f32, 3.0]);
        let angle = angle_between(&a, &b);
        assert!((angle - std::f64::consts::FRAC_PI_2).abs() < 1e-9);
        assert_eq!(weights(0.0, angle), (1.0, 0.0));
        for s in [0.0, 0.3, 0.5, 1.0] {
            let (u, v) = weights(s, angle);
            assert!((u * u + v * v - 1.0).abs() < 1e-12);
        }
        assert_eq!(weights(0.25, 0.0), (0.75, 0.25));
    }
}
