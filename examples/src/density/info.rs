//! `density info`.

use anyhow::Result;
use clap::Args;
use flow_density::data::{Missing, Toy};
use flow_density::model::{Kind, ModelConfig};
use flow_density::trainer::{DensityRun, train_config};

use super::common::{PROGRAM, in_words, load, widths};
use crate::info::{Facts, InfoArgs};

/// Describe a checkpoint, or list the toys with their entropies and the models
#[derive(Args, Debug)]
#[command(mut_arg("presets", |arg| arg.help("List toys with entropies and models with hyper-parameters instead")))]
pub(super) struct DensityInfoArgs {
    #[command(flatten)]
    info: InfoArgs,
}

impl DensityInfoArgs {
    pub(super) fn run(&self) -> Result<()> {
        self.info.run(PROGRAM, presets, |checkpoint, device| {
            let (run, model) = load(checkpoint, device)?;
            let unit = if run.straightened.is_some() { "squared error" } else { "nats, negative log-likelihood" };
            Ok((facts(&run).and_parameters(model.store()), unit.into()))
        })
    }
}

fn facts(run: &DensityRun) -> Facts {
    let columns = match &run.columns {
        Some(columns) => columns.to_string(),
        None => format!("{} columns", run.features()),
    };
    let mut facts =
        Facts::default().and("model", in_words(&run.model)).and("trained on", format!("{}, {columns}", run.data));
    if let Some(fitted) = &run.fitted {
        facts = facts.and(
            "fitted to",
            format!("the {} '{}', {} samples a step", fitted.kind, run.data, fitted.objective.samples),
        );
    }
    if run.given > 0 {
        let given = format!("the last {} of {} columns", run.given, run.features());
        facts = facts.and("conditioned on", given);
    }
    if let Some(classes) = run.classes() {
        for (name, rows) in classes.names.iter().zip(&classes.rows) {
            facts = facts.and("class", format!("{name}: {rows} training rows"));
        }
    }
    if run.reading.missing == Missing::Drop {
        facts = facts.and("missing", "rows that lack a value are left out");
    }
    let label = |place: usize| run.columns.as_ref().map_or(format!("column {}", place + 1), |c| c.label(place));
    for (place, (mean, std)) in run.standard.mean.iter().zip(&run.standard.std).enumerate() {
        let steps = match run.standard.lattices.get(place).and_then(Option::as_ref) {
            Some(lattice) => format!(", spread over steps of {}", lattice.step),
            None => String::new(),
        };
        facts = facts.and("scale", format!("{}: mean {mean:.6}, deviation {std:.6}{steps}", label(place)));
    }
    if let Some(straightened) = &run.straightened {
        let how = if straightened.distilled { "distilled into one step from" } else { "straightened from" };
        facts = facts.and("paths", format!("{how} {}, {} samples", straightened.teacher, straightened.pairs));
    }
    facts
}

/// Lists what `--presets` asks for.
fn presets(json: bool) -> Result<()> {
    if json {
        let toys: serde_json::Map<String, serde_json::Value> =
            Toy::ALL.into_iter().map(|toy| (toy.name().into(), toy.entropy().into())).collect();
        let models: Vec<ModelConfig> = Kind::ALL.map(ModelConfig::preset).into();
        let all = serde_json::json!({ "entropies_in_nats": toys, "models": models });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    println!("{:<14}entropy", "toy");
    for toy in Toy::ALL {
        println!("{:<14}{:.4} nats", toy.name(), toy.entropy());
    }
    println!("\n{:<23}{:>6}  {:<12}{:>4}  {:>6}  family", "model", "layers", "hidden", "bins", "rate");
    for kind in Kind::ALL {
        let model = ModelConfig::preset(kind);
        let layers = if kind.is_continuous() { "-".into() } else { model.layers.to_string() };
        let hidden = if kind.has_hidden_layers() { widths(&model.hidden) } else { "-".into() };
        let bins = if kind.has_bins() { model.bins.to_string() } else { "-".into() };
        let rate = train_config(kind, 1, 0).optimizer.learning_rate;
        let (name, family) = (kind.name(), kind.description());
        println!("{name:<23}{layers:>6}  {hidden:<12}{bins:>4}  {rate:>6}  {family}");
    }
    Ok(())
}
