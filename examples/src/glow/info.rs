//! `glow info`.

use anyhow::Result;
use flow_image::codec::{self, IdfConfig};
use flow_image::model::{PRESETS, preset};

use super::common::load;
use crate::info::{Facts, InfoArgs};

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    args.run("glow", presets, |checkpoint, device| {
        let (run, model) = load(checkpoint, device)?;
        let classes = if run.class_names.is_empty() { "none".into() } else { run.class_names.join(", ") };
        let facts = Facts::of(&run.model)?
            .and("images", format!("{} of {} levels, D = {}", run.spec, run.spec.levels, run.spec.dims()))
            .and("trained on", &run.source)
            .and("classes", classes)
            .and_parameters(model.store())
            .and("latents", format!("{:?}", model.flow().latent_shapes()));
        Ok((facts, "bits/dim".into()))
    })
}

/// Lists what `--presets` asks for.
fn presets() -> Result<()> {
    for name in PRESETS {
        let p = preset(name)?;
        println!("{name:22} {} of {} levels; {}", p.spec, p.spec.levels, serde_json::to_string(&p.model)?);
    }
    for name in codec::PRESETS {
        println!("{name:22} lossless codec; {}", serde_json::to_string(&IdfConfig::preset(name)?)?);
    }
    Ok(())
}
