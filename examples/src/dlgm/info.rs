//! `dlgm info`.

use anyhow::Result;
use candle_core::{DType, Device};
use flow_core::ParamStore;
use flow_density::dlgm::{Dlgm, DlgmConfig};

use super::common::{PROGRAM, load, posterior};
use crate::info::{Facts, InfoArgs};

/// The models of the paper's figure 4, and the other families.
const PRESETS: [&str; 11] = [
    "gaussian",
    "planar-10",
    "planar-20",
    "planar-40",
    "planar-80",
    "sylvester-4",
    "nice-10",
    "nice-20",
    "nice-40",
    "radial-10",
    "iaf-2",
];

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    args.run(PROGRAM, presets, |checkpoint, device| {
        let (run, model) = load(checkpoint, device)?;
        let annealing = match run.anneal {
            0 => "none".to_string(),
            steps => format!("the joint term's weight rises to 1 over {steps} steps"),
        };
        let facts = Facts::default()
            .and("model", run.model.words())
            .and("trained on", format!("{}, made binary with seed {}", run.source, run.binarization))
            .and("annealing", annealing)
            .and_parameters(model.store());
        Ok((facts, "nats".into()))
    })
}

/// Lists what `--presets` asks for, for images of 28x28.
fn presets(json: bool) -> Result<()> {
    let mut values = Vec::new();
    if !json {
        println!("{:<12}{:>12}  model", "name", "parameters");
    }
    for name in PRESETS {
        let (family, flows) = posterior(name)?;
        let config = DlgmConfig::new([28, 28], family, flows);
        if json {
            values.push(serde_json::json!({"name": name, "model": config}));
        } else {
            let store = ParamStore::new(0, DType::F32, &Device::Cpu);
            let model = Dlgm::new(&store, &config)?;
            println!("{name:<12}{:>12}  {}", model.store().parameter_count(), config.words());
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&values)?);
    }
    Ok(())
}
