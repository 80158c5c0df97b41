//! `graphaf score`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use flow_core::FlowRng;
use flow_core::files::atomic_write;
use flow_graph::model::Score;
use flow_graph::{Molecule, canonical_smiles, smiles};

use super::common::{check_column, load, read};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, refuse};

/// Log-likelihood of given molecules: which look unlike the training set
#[derive(Args, Debug)]
#[command(after_help = "\
A molecule's probability is the sum over all orders of its atoms. Of K random orders this prints the logarithm of
the mean (nats), per atom in bits, and the most likely one of them: both are what the model finds usual.

Examples:
  graphaf score 'CC(=O)Oc1ccccc1C(=O)O' 'C1CC12CC2'
  graphaf score --data candidates.csv --column smiles --orders 20 --out scores.csv")]
pub(super) struct ScoreArgs {
    /// SMILES of the molecules to score
    smiles: Vec<String>,
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Score the molecules of this file instead
    #[arg(long, value_name = "PATH", conflicts_with = "smiles")]
    data: Option<PathBuf>,
    /// Column of SMILES in a table
    #[arg(long)]
    column: Option<String>,
    /// Number of random orders of the atoms for each molecule
    #[arg(long, default_value_t = 10, value_name = "K")]
    orders: usize,
    /// Write the table to this file instead of printing it
    #[arg(long, value_name = "CSV")]
    out: Option<PathBuf>,
    /// Seed of the orders
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl ScoreArgs {
    pub(super) fn run(self) -> Result<()> {
        let unread = self.column.is_some() && self.data.is_none();
        refuse(&[("--column", unread)], "for the table of --data FILE; leave it out")?;
        at_least_one("--orders", self.orders)?;
        self.out.as_deref().map_or(Ok(()), check_output)?;
        let molecules = self.molecules()?;
        let (_, model) = load(&self.checkpoint, &self.device.open()?)?;
        let mut rng = FlowRng::named(self.seed, "score");
        let (mut scores, mut refused) = (Vec::new(), Vec::new());
        for molecule in &molecules {
            match model.score(molecule, self.orders, &mut rng) {
                Ok(score) => scores.push((canonical_smiles(molecule), score)),
                Err(reason) => refused.push((canonical_smiles(molecule), reason)),
            }
        }
        for (smiles, reason) in &refused {
            eprintln!("{smiles}: {reason}");
        }
        if scores.is_empty() {
            bail!("no molecule that the model can express");
        }
        scores.sort_by(|a, b| a.1.bits_per_atom().total_cmp(&b.1.bits_per_atom()));
        let text = table(&scores);
        match &self.out {
            Some(path) => {
                atomic_write(path, text.as_bytes())?;
                println!("{} molecules scored, {} refused; {}", scores.len(), refused.len(), path.display());
            }
            None => print!("{text}"),
        }
        Ok(())
    }

    fn molecules(&self) -> Result<Vec<Molecule>> {
        match &self.data {
            Some(path) => {
                check_column(self.column.as_deref(), &[path])?;
                Ok(read(path, self.column.as_deref())?.molecules.iter().collect())
            }
            None if self.smiles.is_empty() => bail!("expected SMILES or --data FILE"),
            None => Ok(self.smiles.iter().map(|s| smiles::parse(s)).collect::<flow_graph::Result<_>>()?),
        }
    }
}

fn table(scores: &[(String, Score)]) -> String {
    let mut text = String::from("smiles,heavy_atoms,nats,bits_per_atom,nats_of_best_order\n");
    for (smiles, s) in scores {
        let (nats, bits, best) = (s.log_mean_exp(), s.bits_per_atom(), s.best());
        // Writing to a string does not fail.
        let _ = writeln!(text, "{smiles},{},{nats:.3},{bits:.4},{best:.3}", s.atoms);
    }
    text
}
