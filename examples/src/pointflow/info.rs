//! `pointflow info`.

use anyhow::Result;
use candle_core::Device;
use clap::ValueEnum;
use flow_core::train::Run;
use flow_points::data::{Normalization, NormalizeMode};
use flow_points::model::PointFlowConfig;
use flow_points::trainer::PointRun;

use super::common::{PROGRAM, Preset, load};
use crate::info::{Facts, InfoArgs};

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    args.run(PROGRAM, presets, |checkpoint, device| {
        let (run, model) = load(checkpoint, device)?;
        let three = |v: [f64; 3]| v.map(|v| format!("{v:.6}")).join(" ");
        let facts = Facts::of(&run.model)?
            .and("trained on", &run.source)
            .and("batch", format!("{} clouds of {} points", run.batch, run.points))
            .and("mean", three(std::array::from_fn(|k| run.origin[k] + run.normalization.mean[k])))
            .and("deviation", three(run.normalization.std))
            .and_parameters(model.store());
        Ok((facts, run.model.objective.unit().to_string()))
    })
}

/// Lists what `--presets` asks for.
fn presets(json: bool) -> Result<()> {
    if json { print_json() } else { print_table() }
}

fn named() -> impl Iterator<Item = (String, PointFlowConfig)> {
    let name = |preset: &Preset| preset.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default();
    Preset::value_variants().iter().map(move |preset| (name(preset), preset.config()))
}

/// One object with a member for each preset.
fn print_json() -> Result<()> {
    let all: std::collections::BTreeMap<String, PointFlowConfig> = named().collect();
    println!("{}", serde_json::to_string_pretty(&all)?);
    Ok(())
}

/// One line for each preset, with what tells them apart.
fn print_table() -> Result<()> {
    let layers = |widths: &[usize]| widths.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
    println!(
        "{:<18} {:>10} {:>6} {:<16} {:<15} {:<11} trained by",
        "preset", "parameters", "latent", "encoder", "points", "latents"
    );
    for (name, config) in named() {
        let plain = Normalization::of(&[], NormalizeMode::Nothing)?;
        let model = PointRun::new(config.clone(), "", plain).build(&Device::Cpu)?;
        println!(
            "{name:<18} {:>10} {:>6} {:<16} {:<15} {:<11} {}",
            model.store().parameter_count(),
            config.latent,
            layers(&config.encoder.point),
            layers(&config.point.hidden),
            layers(&config.prior.hidden),
            if config.objective.matching().is_some() { "flow matching" } else { "likelihood" }
        );
    }
    println!(
        "Widths of layers of the encoder, of the flow of points and of the flow of latents; all of it with --json."
    );
    Ok(())
}
