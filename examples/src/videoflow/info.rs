//! `videoflow info`.

use anyhow::Result;
use flow_video::model::{PRESETS, PriorEncoder, VideoConfig, preset};

use super::common::{PROGRAM, load};
use crate::cli::counted;
use crate::info::{Facts, InfoArgs};

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    args.run(PROGRAM, presets, |checkpoint, device| {
        let (run, model) = load(checkpoint, device)?;
        let first = if run.score_context { "learned as well" } else { "given, not learned" };
        let facts = Facts::default()
            .and("model", words(&run.model))
            .and("frames", format!("{} of {} levels, D = {}", run.spec, run.spec.levels, run.spec.dims()))
            .and("windows", format!("{} frames {first}, then {} predicted", run.context, run.targets))
            .and("trained on", &run.source)
            .and_parameters(model.store())
            .and("latents", format!("{:?}", model.frame().latent_shapes()));
        Ok((facts, "bits/dim".into()))
    })
}

/// A model's hyper-parameters in words.
pub(super) fn words(c: &VideoConfig) -> String {
    let coupling = format!("{:?}", c.coupling).to_lowercase();
    let activation = format!("{:?}", c.activation).to_lowercase();
    let p = &c.prior;
    let histogram = if c.gaussianize { "a learned histogram of levels, " } else { "" };
    let noise = if c.noise_width > 0 { format!("learned noise of width {}, ", c.noise_width) } else { String::new() };
    let front = format!("{histogram}{noise}");
    let told = if c.actions > 0 { format!(", told {} numbers a frame", c.actions) } else { String::new() };
    let network = match p.encoder {
        PriorEncoder::ConvNet => format!("{} blocks over space, width {}", p.blocks, p.width),
        PriorEncoder::ConvLstm => format!("an LSTM of width {}", p.width),
        PriorEncoder::Pointwise => "multiples".to_string(),
        _ => format!("{}{} blocks, width {}", p.blocks, if p.dilations { " dilated" } else { "" }, p.width),
    };
    let skip = if p.skip && p.encoder != PriorEncoder::Pointwise { ", skip" } else { "" };
    let past = counted(p.past, "past frame");
    let motion = match p.motion {
        Some(m) => {
            let meet = if m.adds { "add up" } else { "cover each other" };
            format!(
                ", layers that move by up to {} pixels a frame and {meet}, followed over {} frames",
                m.reach, m.memory
            )
        }
        None => String::new(),
    };
    format!(
        "VideoFlow, {front}{} levels of {} steps, width {}, {coupling} couplings, {activation}; prior of {network}, {past}{motion}{skip}{told}",
        c.levels, c.steps, c.width
    )
}

/// Lists what `--presets` asks for.
fn presets(json: bool) -> Result<()> {
    if json {
        let one = |name| -> Result<serde_json::Value> {
            let p = preset(name)?;
            Ok(serde_json::json!({"name": p.name, "model": p.model, "frames": p.spec, "recipe": p.recipe}))
        };
        let all = PRESETS.into_iter().map(one).collect::<Result<Vec<_>>>()?;
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    println!("{:<15}{:<10}model", "preset", "frames");
    for name in PRESETS {
        let p = preset(name)?;
        let [channels, height, width] = p.spec.event_shape();
        println!("{name:<15}{:<10}{}\n{:25}{}", format!("{channels}x{height}x{width}"), words(&p.model), "", p.about);
    }
    Ok(())
}
