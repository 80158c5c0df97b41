//! `graphaf reconstruct`.

use anyhow::Result;
use clap::Args;
use flow_core::FlowRng;
use flow_graph::canonical_smiles;
use flow_graph::model::{GraphAf, Sequence};
use flow_graph::trainer::random_order;
use serde::Serialize;

use super::common::{DataArg, Expressed, load};
use super::split::{Part, SplitArg};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one};

/// Turn molecules into latents and back: all of them must return
#[derive(Args, Debug)]
#[command(after_help = "\
Without --split those of the test part of the run are taken, or all where the data are not the run's.

Examples:
  graphaf reconstruct --checkpoint runs/zinc --data zinc250k.smi.gz --split train --count 10000
  graphaf reconstruct --checkpoint runs/zinc --data new.smi")]
pub(super) struct ReconstructArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    #[command(flatten)]
    split: SplitArg,
    /// Number of its molecules, from the first [default: all]
    #[arg(long)]
    count: Option<usize>,
    /// Seed of orders and latents
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl ReconstructArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count.unwrap_or(1))?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let loaded = self.data.open()?;
        let config = model.config();
        let mut places = self.split.choose(Part::Test, &loaded, &self.checkpoint, &run)?;
        places.truncate(self.count.unwrap_or(usize::MAX));
        let molecules = places.iter().filter_map(|&place| loaded.molecules.get(place));
        let sequences = Expressed::new(molecules, config).check(&loaded.source)?.all();
        let returned = there_and_back(&model, &sequences, self.seed)?;
        println!("{returned}");
        if let Some((wanted, got)) = &returned.first_lost {
            eprintln!("the first one lost: {wanted} came back as {got}");
        }
        Ok(())
    }
}

/// How many molecules came back from their latents.
#[derive(Debug, Serialize)]
pub(super) struct Returned {
    same: usize,
    of: usize,
    /// SMILES of the first that did not come back, and of what came instead.
    first_lost: Option<(String, String)>,
}

/// `9 of 10 molecules reconstructed, 90.00 %`
impl std::fmt::Display for Returned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = 100.0 * self.same as f64 / self.of.max(1) as f64;
        write!(f, "{} of {} molecules reconstructed, {percent:.2} %", self.same, self.of)
    }
}

/// Encodes molecules in random orders, decodes the latents, and compares every atom and bond.
pub(super) fn there_and_back(model: &GraphAf, sequences: &[Sequence], seed: u64) -> Result<Returned> {
    /// Latents of so many at a time.
    const CHUNK: usize = 4096;
    let mut rng = FlowRng::named(seed, "reconstruct");
    let mut returned = Returned { same: 0, of: sequences.len(), first_lost: None };
    for chunk in sequences.chunks(CHUNK) {
        let orders = chunk.iter().map(|s| random_order(s, model.config(), &mut rng));
        let orders = orders.collect::<flow_graph::Result<Vec<_>>>()?;
        let latents = model.encode(&orders, &mut rng)?;
        for (wanted, got) in orders.iter().zip(model.decode(&latents)?) {
            if *wanted == got {
                returned.same += 1;
            } else if returned.first_lost.is_none() {
                let name = |s: &Sequence| s.molecule(&model.config().vocabulary).map(|m| canonical_smiles(&m));
                returned.first_lost = Some((name(wanted)?, name(&got)?));
            }
        }
    }
    Ok(returned)
}
