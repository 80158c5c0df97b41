//! Divergences over numbers of layers, in a table.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use candle_core::Device;
use clap::Args;
use flow_core::files::atomic_write;
use flow_core::train::{Bar, StopFlag, TrainConfig};
use flow_density::model::{Model, ModelConfig, Purpose};
use flow_density::variational::{Objective, VariationalOptions, fit_reverse_kl};
use serde_json::json;

use super::fit::{draw_beside, run_of};
use super::picture::PictureArg;
use super::target::Density;
use crate::cli::{create_folder, refuse};

/// Fits that are compared.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Comparison")]
pub(super) struct CompareArg {
    /// Fit flows of so many layers each, comma-separated, and print a table of their divergences (--energy)
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    compare: Vec<usize>,
    /// Fits of each, with this seed and those after it, of which the best counts [default: 1]
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
}

impl CompareArg {
    pub(super) fn is_asked(&self) -> bool {
        !self.compare.is_empty()
    }

    /// Refuses what only a comparison reads.
    pub(super) fn check(&self) -> Result<()> {
        refuse(&[("--seeds", self.seeds.is_some())], "is for --compare; leave it out, or see --seed")
    }

    pub(super) fn run(&self, density: &Density, fits: &Compared, style: PictureArg, out: &Path) -> Result<()> {
        let Density::Energy(energy) = density else {
            bail!("--compare is for --energy, whose divergences are integrated on a grid; leave it out");
        };
        let seeds = self.seeds.unwrap_or(1);
        ensure!(seeds > 0 && !self.compare.contains(&0), "--compare and --seeds: need at least one layer and one seed");
        create_folder(out)?;
        let stop = StopFlag::on_ctrl_c()?;
        let mut rows = Vec::new();
        println!("{:<8}{:<10}{:>8}  {:>12}  of {seeds} seeds, best first", "density", "model", "layers", "KL (nats)");
        for &layers in &self.compare {
            let mut found: Vec<(f64, u64, Model)> = Vec::new();
            for seed in fits.config.seed..fits.config.seed + seeds {
                let model = fits.fitted(density, layers, seed, &stop)?;
                if stop.is_set() {
                    bail!("stopped; a table is made in memory and cannot be resumed");
                }
                found.push((energy.divergence(model.reparameterized())?, seed, model));
            }
            found.sort_by(|a, b| a.0.total_cmp(&b.0));
            let all: Vec<String> = found.iter().map(|(kl, ..)| format!("{kl:.4}")).collect();
            println!(
                "{:<8}{:<10}{layers:>8}  {:>12}  {}",
                energy.name(),
                fits.model.kind.name(),
                all[0],
                all.join(" ")
            );
            let picture = out.join(format!("{}-{}-{layers}.png", energy.name(), fits.model.kind));
            draw_beside(&found[0].2, density, energy.log_evidence()?, style, &picture, found[0].1)?;
            let divergences: Vec<f64> = found.iter().map(|(kl, ..)| *kl).collect();
            rows.push(json!({ "layers": layers, "divergences_nats": divergences, "best_seed": found[0].1 }));
        }
        let all = json!({ "density": energy.name(), "model": fits.model, "steps": fits.config.steps, "rows": rows });
        atomic_write(&out.join("table.json"), serde_json::to_string_pretty(&all)?.as_bytes())?;
        Ok(())
    }
}

/// What the fits have in common.
pub(super) struct Compared {
    pub(super) model: ModelConfig,
    pub(super) objective: Objective,
    pub(super) config: TrainConfig,
    pub(super) device: Device,
}

impl Compared {
    /// One fit, in memory: what `density fit` makes with `--layers`.
    fn fitted(&self, density: &Density, layers: usize, seed: u64, stop: &StopFlag) -> Result<Model> {
        let model = ModelConfig { layers, ..self.model.clone() };
        let model = run_of(density, model, &self.objective, seed).model(Purpose::Training, &self.device)?;
        let config = TrainConfig { seed, ..self.config.clone() };
        let options = VariationalOptions::of(self.objective.clone(), config).diagnostic_draws(1000);
        let options = options.locate(&density.constraints()).progress(Bar::new()).stop(stop.clone());
        fit_reverse_kl(model.reparameterized(), |z| density.log_density(z), options)?;
        Ok(model)
    }
}
