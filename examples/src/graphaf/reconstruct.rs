//! `graphaf reconstruct`.

use anyhow::{Result, bail};
use clap::Args;
use flow_core::FlowRng;
use flow_graph::canonical_smiles;
use flow_graph::trainer::random_order;

use super::common::{DataArg, Expressed, load};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one};

/// Turn molecules into latents and back: all of them must return
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  graphaf reconstruct --checkpoint runs/zinc --data zinc250k.smi.gz --count 10000")]
pub(super) struct ReconstructArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Number of molecules, from the first; all if not given
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
        let (_, model) = load(&self.checkpoint, &self.device.open()?)?;
        let loaded = self.data.open()?;
        let config = model.config();
        let molecules = loaded.molecules.iter().take(self.count.unwrap_or(usize::MAX));
        let expressed = Expressed::new(molecules, &config.vocabulary, config.max_atoms).check(&loaded.source)?;
        let mut rng = FlowRng::named(self.seed, "reconstruct");
        let orders = expressed.sequences.iter().map(|s| random_order(s, config, &mut rng));
        let orders = orders.collect::<flow_graph::Result<Vec<_>>>()?;
        let latents = model.encode(&orders, &mut rng)?;
        let back = model.decode(&latents)?;
        let mut lost = orders.iter().zip(&back).filter(|(a, b)| a != b);
        let first = lost.next();
        let same = orders.len() - usize::from(first.is_some()) - lost.count();
        let percent = 100.0 * same as f64 / orders.len() as f64;
        println!("{same} of {} molecules reconstructed, {percent:.2} %", orders.len());
        if let Some((wanted, got)) = first {
            let name = |s: &flow_graph::model::Sequence| s.molecule(&config.vocabulary).map(|m| canonical_smiles(&m));
            bail!("the first one lost: {} came back as {}", name(wanted)?, name(got)?);
        }
        Ok(())
    }
}
