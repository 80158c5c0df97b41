//! Exports models with scored molecules, for comparison with an independent implementation.
//!
//! `FLOW_PARITY=/some/folder cargo test -p flow-graph parity -- --ignored` writes, for the paper's model and for
//! the default one, `config.json`, `model.safetensors` and `cases.json`: molecules in their orders, the noise of
//! every decision and its log-density, in f32. `tests/parity.py` reads the folder and compares.

use candle_core::{DType, Device};
use flow_core::{FlowRng, ParamStore};

use super::pass::{Noise, noise_lengths, score};
use super::tests::sequences;
use super::{GraphAf, GraphAfConfig, Vocabulary, pack};

#[test]
#[ignore = "writes files for another program: FLOW_PARITY=/some/folder cargo test -p flow-graph parity -- --ignored"]
fn export() {
    let folder = std::path::PathBuf::from(std::env::var("FLOW_PARITY").expect("FLOW_PARITY names a folder"));
    for (name, config) in [
        (
            "paper",
            GraphAfConfig {
                candidates: super::Candidates::Window(40),
                ..GraphAfConfig::paper(Vocabulary::paper(), 38)
            },
        ),
        ("spline", GraphAfConfig::spline(Vocabulary::paper(), 38)),
    ] {
        let store = ParamStore::new(7, DType::F32, &Device::Cpu);
        let model = GraphAf::new(config.clone(), &store).unwrap();
        let batch = sequences(&config, &[1, 2, 5, 12, 23, 30, 37, 38], 12);
        model.initialize(&batch).unwrap();
        for param in store.trainable() {
            let noise = FlowRng::named(1, param.name()).normal(param.var().shape(), DType::F32, &Device::Cpu).unwrap();
            param.set(&(param.tensor() + (noise * 0.02).unwrap()).unwrap()).unwrap();
        }
        let cases: Vec<serde_json::Value> = batch
            .iter()
            .map(|sequence| {
                let pack = pack::Pack::new(&config, [sequence], None);
                let mut rng = FlowRng::seed_from(4);
                let (atoms, bonds) = noise_lengths(&config, &pack);
                let mut draw = |n: usize| (0..n).map(|_| rng.next_uniform() as f32).collect::<Vec<f32>>();
                let noise = Noise { atoms: draw(atoms), bonds: draw(bonds) };
                let scored = score(&config, &model.values::<f32>().unwrap(), &pack, &noise);
                let bonds: Vec<_> = sequence.bonds.iter().map(|b| (b.atom, b.to, b.bond.order())).collect();
                serde_json::json!({
                    "atoms": sequence.atoms, "bonds": bonds, "noise_atoms": noise.atoms, "noise_bonds": noise.bonds,
                    "log_p_atoms": scored.atoms, "log_p_bonds": scored.bonds,
                })
            })
            .collect();
        let out = folder.join(name);
        flow_core::train::save_model(&out, &store, &serde_json::to_value(&config).unwrap()).unwrap();
        std::fs::write(out.join("cases.json"), serde_json::to_string(&cases).unwrap()).unwrap();
    }
}
