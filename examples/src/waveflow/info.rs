//! `waveflow info`.

use anyhow::Result;
use flow_audio::mel::MelConfig;
use flow_audio::model::{ModelConfig, PRESETS, WaveFlowConfig, WaveGlowConfig};
use flow_audio::trainer::WaveRun;

use super::common::{PROGRAM, load};
use crate::info::{Facts, InfoArgs};

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    args.run(PROGRAM, presets, |checkpoint, device| {
        let (run, model) = load(checkpoint, device)?;
        let facts = Facts::default()
            .and("model", words(&run))
            .and("spectrogram", spectrogram(&run.mel))
            .and("segments", format!("{} samples", run.segment))
            .and("trained on", &run.source)
            .and_parameters(model.store());
        Ok((facts, "nats/sample".into()))
    })
}

/// A run's model in words.
pub(super) fn words(run: &WaveRun) -> String {
    match run.prediction {
        Some(order) => format!("{}, on the errors of prediction from {order} samples", family(&run.model)),
        None => family(&run.model),
    }
}

/// A model's hyper-parameters in words.
fn family(config: &ModelConfig) -> String {
    match config {
        ModelConfig::WaveFlow(config) => waveflow(config),
        ModelConfig::WaveGlow(config) => waveglow(config),
        other => format!("{other:?}"),
    }
}

fn waveflow(c: &WaveFlowConfig) -> String {
    let order = format!("{:?}", c.permutation).to_lowercase();
    let causal = if c.causal_width { ", causal in time" } else { "" };
    format!(
        "WaveFlow, {} rows, {} flows of {} layers, {} channels, {order} order of rows{causal}",
        c.height, c.flows, c.layers, c.channels
    )
}

fn waveglow(c: &WaveGlowConfig) -> String {
    format!(
        "WaveGlow, groups of {}, {} flows of {} layers, {} channels, {} samples leaving every {} flows",
        c.group, c.flows, c.layers, c.channels, c.early_size, c.early_every
    )
}

/// A spectrogram's parameters in words.
pub(super) fn spectrogram(m: &MelConfig) -> String {
    format!(
        "{} bands of {} to {} Hz at {} Hz, window {}, hop {}, {}",
        m.mels,
        m.low,
        m.high,
        m.rate,
        m.window,
        m.hop,
        m.convention.name()
    )
}

/// Lists what `--presets` asks for.
fn presets(json: bool) -> Result<()> {
    let all = PRESETS.iter().map(|name| Ok((*name, ModelConfig::preset(name)?))).collect::<Result<Vec<_>>>()?;
    if json {
        let values: Vec<_> =
            all.iter().map(|(name, model)| serde_json::json!({"name": name, "model": model})).collect();
        println!("{}", serde_json::to_string_pretty(&values)?);
        return Ok(());
    }
    println!("{:<20}{:>12}  model", "preset", "parameters");
    for (name, model) in all {
        println!("{name:<20}{:>12}  {}", model.parameter_count(), family(&model));
    }
    Ok(())
}
