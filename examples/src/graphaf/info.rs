//! `graphaf info`.

use anyhow::Result;
use flow_graph::model::{GraphAfConfig, Vocabulary};

use super::common::{PROGRAM, load};
use crate::info::{Facts, InfoArgs};

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
fn presets() -> Result<()> {
    let vocabulary = Vocabulary::paper();
    println!("paper   {}", serde_json::to_string(&GraphAfConfig::paper(vocabulary.clone(), 38))?);
    println!("spline  {}", serde_json::to_string(&GraphAfConfig::spline(vocabulary, 38))?);
    println!(
        "Both are shown for the paper's nine elements and molecules of at most 38 atoms. `graphaf train` takes the"
    );
    println!("largest size from the data, and for spline the atom types as well; paper keeps the nine elements.");
    Ok(())
}
