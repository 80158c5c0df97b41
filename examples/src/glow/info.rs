//! `glow info`.

use anyhow::{Result, bail};
use flow_image::codec::{self, IdfConfig};
use flow_image::model::{ModelConfig, PRESETS, preset};

use super::common::{PROGRAM, is_codec, load, load_codec};
use crate::info::{Facts, InfoArgs};

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    args.run(PROGRAM, presets, |checkpoint, device| {
        let folder = checkpoint.folder(PROGRAM);
        if is_codec(&folder)? {
            let (run, model) = load_codec(&folder, !checkpoint.raw_weights)?;
            let [channels, height, width] = run.shape;
            let facts = Facts::of(&run.codec)?
                .and("kind", "lossless codec, for compress and decompress")
                .and("images", format!("{channels}x{height}x{width} images of {} levels", run.levels))
                .and("trained on", &run.source)
                .and_parameters(model.store());
            return Ok((facts, "bits/value".into()));
        }
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

/// A row of the table of presets: its name, the images that it is meant for, the model in words.
fn row(name: &str, images: &str, model: &str) {
    println!("{name:20} {images:20} {model}");
}

/// Lists what `--presets` asks for.
fn presets(json: bool) -> Result<()> {
    if json { print_json() } else { print_table() }
}

fn print_table() -> Result<()> {
    row("preset", "images", "model");
    for name in PRESETS {
        let p = preset(name)?;
        let [channels, height, width] = p.spec.event_shape();
        row(name, &format!("{channels}x{height}x{width}, {} levels", p.spec.levels), &words(&p.model));
    }
    for name in codec::PRESETS {
        row(name, "any", &codec_words(&IdfConfig::preset(name)?));
    }
    Ok(())
}

/// A model's hyper-parameters in words.
fn words(model: &ModelConfig) -> String {
    match model {
        ModelConfig::Glow(c) => {
            let coupling = format!("{:?}", c.coupling).to_lowercase();
            let classes = c.class_condition.map_or(String::new(), |n| format!(", {n} classes"));
            format!("Glow, {} levels of {} steps, width {}, {coupling} couplings{classes}", c.levels, c.steps, c.width)
        }
        ModelConfig::RealNvp(c) => {
            format!("RealNVP, {} scales, width {}, {} residual blocks", c.scales, c.base_width, c.blocks)
        }
        ModelConfig::Nice(c) => {
            let prior = format!("{:?}", c.prior).to_lowercase();
            format!("NICE, {} couplings of {}x{} units, {prior} prior", c.couplings, c.hidden_layers, c.width)
        }
        other => other.family().to_string(),
    }
}

fn codec_words(c: &IdfConfig) -> String {
    format!(
        "lossless codec, {} scales, {} couplings, width {}, {} residual blocks, {} components",
        c.scales, c.couplings, c.width, c.blocks, c.components
    )
}

fn print_json() -> Result<()> {
    let mut all = Vec::new();
    for name in PRESETS {
        all.push(serde_json::to_value(preset(name)?)?);
    }
    for name in codec::PRESETS {
        all.push(serde_json::json!({"name": name, "codec": IdfConfig::preset(name)?}));
    }
    println!("{}", serde_json::to_string_pretty(&all)?);
    Ok(())
}

/// Refuses a name that is neither a model's preset nor a codec's, with all that are known.
pub(super) fn check_preset(name: &str) -> Result<()> {
    if PRESETS.contains(&name) || codec::PRESETS.contains(&name) {
        return Ok(());
    }
    bail!("--model {name}: expected one of {}, {}", PRESETS.join(", "), codec::PRESETS.join(", "))
}
