//! `graphaf info`.

use std::collections::BTreeMap;

use anyhow::Result;
use flow_graph::model::{Candidates, Features, GraphAfConfig, Head, Vocabulary};

use super::common::{PROGRAM, load};
use crate::info::{Facts, InfoArgs};

/// Atoms of a molecule of the presets that are listed, at most: those of ZINC250k.
const LARGEST: usize = 38;

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    args.run(PROGRAM, presets, |checkpoint, device| {
        let (run, model) = load(checkpoint, device)?;
        let types: Vec<String> = run.model.vocabulary.types().iter().map(ToString::to_string).collect();
        let facts = Facts::of(&run.model)?
            .and("atom types", types.join(" "))
            .and("largest", format!("{} atoms", run.model.max_atoms))
            .and("trained on", &run.source)
            .and_parameters(model.store());
        Ok((facts, "bits/atom".into()))
    })
}

/// Lists what `--presets` asks for.
fn presets(json: bool) -> Result<()> {
    let vocabulary = Vocabulary::paper();
    let all = [
        ("spline", GraphAfConfig::spline(vocabulary.clone(), LARGEST)),
        ("paper", GraphAfConfig::paper(vocabulary, LARGEST)),
    ];
    if json {
        println!("{}", serde_json::to_string_pretty(&BTreeMap::from(all))?);
        return Ok(());
    }
    println!("{:<8} {:<18} {:<8} {:<9} decisions", "preset", "graph network", "sees", "bonds to");
    for (name, config) in all {
        let network = format!("{} layers of {}", config.layers, config.width);
        let sees = if config.features == Features::State { "state" } else { "type" };
        let bonds = match config.candidates {
            Candidates::Frontier => "frontier".to_string(),
            Candidates::Window(atoms) => format!("last {atoms}"),
            _ => "other".to_string(),
        };
        println!("{name:<8} {network:<18} {sees:<8} {bonds:<9} {}", decisions(&config.head));
    }
    println!(
        "For the paper's nine elements and molecules of at most {LARGEST} atoms. `graphaf train` takes the largest size from the \
         data, and for spline the atom types as well; paper keeps the nine elements. All of it with --json."
    );
    Ok(())
}

/// How a head decides, in words.
fn decisions(head: &Head) -> String {
    match head {
        Head::Gaussian { layers, hidden, noise } => {
            format!("{layers} affine maps of one-hot vectors with noise {noise}, hidden {hidden}")
        }
        Head::Categorical { hidden } => format!("class probabilities, hidden {hidden:?}"),
        _ => "other".to_string(),
    }
}
