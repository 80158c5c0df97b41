//! `density info`.

use anyhow::Result;
use flow_density::data::Toy;
use flow_density::model::{Kind, ModelConfig};

use super::common::{PROGRAM, load};
use crate::info::{Facts, InfoArgs};

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    args.run(PROGRAM, presets, |checkpoint, device| {
        let (run, model) = load(checkpoint, device)?;
        let mut facts = Facts::of(&run.model)?.and("trained on", format!("{}, {} columns", run.data, run.features()));
        if let Some(straightened) = &run.straightened {
            let how = if straightened.distilled { "distilled into one step from" } else { "straightened from" };
            facts = facts.and("paths", format!("{how} {}, {} samples", straightened.teacher, straightened.pairs));
        }
        let unit = if run.straightened.is_some() { "squared error" } else { "nats" };
        Ok((facts.and_parameters(model.store()), unit.into()))
    })
}

/// Lists what `--presets` asks for.
fn presets() -> Result<()> {
    for toy in Toy::ALL {
        println!("{:<13}{:.4} nats", toy.name(), toy.entropy());
    }
    for kind in Kind::ALL {
        println!("{}", serde_json::to_string(&ModelConfig::preset(kind))?);
    }
    Ok(())
}
