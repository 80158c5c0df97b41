//! `pointflow likelihood`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use flow_core::FlowRng;
use flow_core::files::atomic_write;
use flow_core::numerics::{mean_and_error, plus_minus};
use flow_points::trainer::to_tensor;

use super::common::load;
use super::data::InputArg;
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, counted, quoted};

/// Log-likelihood of clouds in nats and bits per point
#[derive(Args, Debug)]
#[command(after_help = "\
log p(x | z) of every point under the latent that the encoder returns, in the coordinates of the data, averaged over a
cloud; and log p(z). Both are exact up to the solver's tolerance (the latent's divergence is estimated).

Examples:
  pointflow likelihood --data chairs.npy
  pointflow likelihood --data scan.ply --csv scan.csv")]
pub(super) struct LikelihoodArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    input: InputArg,
    /// Points of each cloud that are used
    #[arg(long, default_value_t = 2048)]
    points: usize,
    /// Also write a table with one line for each cloud
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Seed of the choice of points and of the estimate
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl LikelihoodArgs {
    pub(super) fn run(self) -> Result<()> {
        const AT_ONCE: usize = 8;
        at_least_one("--points", self.points)?;
        if let Some(path) = &self.csv {
            check_output(path)?;
        }
        let device = self.device.open()?;
        let (run, model) = load(&self.checkpoint, &device)?;
        let mut rng = FlowRng::named(self.seed, "likelihood");
        let input = self.input.open(self.points, (&self.checkpoint, &run), &mut rng)?;
        model.set_noise(&mut rng);
        // The model's density is over normalized coordinates; a scale s of an axis costs ln s.
        let volume: f64 = run.normalization.std.iter().map(|s| s.ln()).sum();
        let normal: Vec<_> = input.clouds.iter().map(|c| run.normalization.apply(c)).collect();
        let prior = model.has_prior();
        let (mut table, mut points, mut latents) =
            ("name,nats_per_point,bits_per_point,latent_nats\n".to_string(), vec![], vec![]);
        for (clouds, names) in normal.chunks(AT_ONCE).zip(input.names.chunks(AT_ONCE)) {
            let batch = to_tensor(clouds, &device)?;
            let z = run.latents(&model, &batch)?;
            let nats = model.log_prob_points(&batch, &z)?.mean(1)?.to_vec1::<f32>()?;
            let latent = if prior { Some(model.log_prob_latents(&z)?.to_vec1::<f32>()?) } else { None };
            for (i, (nats, name)) in nats.iter().zip(names).enumerate() {
                let nats = f64::from(*nats) - volume;
                let of_latent = latent.as_ref().and_then(|l| l.get(i)).map(|&v| f64::from(v));
                // Writing to a string does not fail.
                let name = quoted(name);
                let _ = writeln!(table, "{name},{nats:.6},{:.6},{}", nats / std::f64::consts::LN_2, text(of_latent));
                points.push(nats);
                latents.extend(of_latent);
            }
        }
        if let Some(path) = &self.csv {
            atomic_write(path, table.as_bytes())?;
        }
        let (nats, error) = mean_and_error(&points);
        print!(
            "{}: log p(x|z) {nats:.4} {} nats/point ({:.4} bits/point)",
            counted(points.len(), "cloud"),
            plus_minus(error, 4),
            nats / std::f64::consts::LN_2
        );
        match latents.is_empty() {
            true => println!("; the model has no prior over latents"),
            false => println!(", log p(z) {:.2} nats", mean_and_error(&latents).0),
        }
        Ok(())
    }
}

fn text(value: Option<f64>) -> String {
    value.map_or_else(String::new, |v| format!("{v:.4}"))
}
