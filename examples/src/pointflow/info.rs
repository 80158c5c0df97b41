//! `pointflow info`.

use anyhow::Result;
use clap::ValueEnum;

use super::common::{PROGRAM, Preset, load};
use crate::info::{Facts, InfoArgs};

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    args.run(PROGRAM, presets, |checkpoint, device| {
        let (run, model) = load(checkpoint, device)?;
        let facts = Facts::of(&run.model)?
            .and("trained on", &run.source)
            .and("batch", format!("{} clouds of {} points", run.batch, run.points))
            .and("normalized", serde_json::to_string(&run.normalization)?)
            .and_parameters(model.store());
        Ok((facts, run.model.objective.unit().to_string()))
    })
}

/// Lists what `--presets` asks for.
fn presets() -> Result<()> {
    for preset in Preset::value_variants() {
        let name = preset.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default();
        println!("{name:<20} {}", serde_json::to_string(&preset.config())?);
    }
    Ok(())
}
