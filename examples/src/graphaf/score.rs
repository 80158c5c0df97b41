//! `graphaf score`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use flow_core::FlowRng;
use flow_core::files::atomic_write;
use flow_graph::canonical_smiles;
use flow_graph::data::{Components, Loaded};
use flow_graph::model::{GraphAf, Score};
use flow_graph::smiles::canonical;

use super::common::{TableArg, load, read, say};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, quoted, refuse};

/// Log-likelihood of given molecules: which look unlike the training set
#[derive(Args, Debug)]
#[command(after_help = "\
A model builds a molecule atom by atom, in one of many orders and Kekulé forms; the molecule's probability is the sum
over all these ways. Of K random ways this prints
  log_mean_way_nats   the logarithm of their mean probability: compares molecules, is far below the sum
  bits_per_atom       the same in bits, with the other sign, by the number of heavy atoms
  best_way_nats       the likeliest of them, a lower bound of the logarithm of the sum
and with --bound
  log_p_bound_nats    the importance-weighted lower bound of the logarithm of the sum: ln 1/K sum p(way)/q(way), where q
                      is the probability that the way was drawn. It rises to ln p(molecule) with K
  effective_ways      on how many of the K ways the bound rests; near 1 it is loose, take more --orders
A Gaussian model (paper) has densities of dequantized choices in place of probabilities. Neither the way in which a
molecule is written nor its line decides about its numbers. There is a row for each molecule in the order given; one
that cannot be scored has the reason in place of numbers. Stereo is not seen; of a salt the largest component is scored.

Examples:
  graphaf score 'CC(=O)Oc1ccccc1C(=O)O' 'C1CC12CC2'
  graphaf score --data candidates.csv --column smiles --orders 100 --bound --out scores.csv")]
pub(super) struct ScoreArgs {
    /// SMILES of the molecules to score
    smiles: Vec<String>,
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Score all molecules of this file instead
    #[arg(long, value_name = "PATH", conflicts_with = "smiles")]
    data: Option<PathBuf>,
    #[command(flatten)]
    table: TableArg,
    /// Number of random ways for each molecule: orders of its atoms, each in a random Kekulé form
    #[arg(long, default_value_t = 10, value_name = "K")]
    orders: usize,
    /// Also print the importance-weighted lower bound of the molecule's log-probability
    #[arg(long)]
    bound: bool,
    /// Write the table to this file instead of printing it
    #[arg(long, value_name = "CSV")]
    out: Option<PathBuf>,
    /// Seed of the ways
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

/// What there is to say of one molecule of the input.
struct Line {
    /// Where it stands, where that is known.
    line: Option<usize>,
    name: String,
    /// As it was given.
    input: String,
    /// The canonical SMILES of what was scored and its score, or why there is none.
    outcome: std::result::Result<(String, Score), String>,
}

impl ScoreArgs {
    pub(super) fn run(self) -> Result<()> {
        if self.data.is_none() {
            refuse(&self.table.given(), "for the table of --data FILE; leave it out")?;
        }
        at_least_one("--orders", self.orders)?;
        self.out.as_deref().map_or(Ok(()), check_output)?;
        let loaded = self.molecules()?;
        let (_, model) = load(&self.checkpoint, &self.device.open()?)?;
        let lines = self.lines(&loaded, &model);
        let scored = lines.iter().filter(|line| line.outcome.is_ok()).count();
        let refused = lines.len() - scored;
        if let Some(reason) = lines.iter().find_map(|line| line.outcome.as_ref().err()).filter(|_| scored == 0) {
            bail!("no molecule that the model can express ({reason})");
        }
        let forms = |line: &&Line| line.outcome.as_ref().is_ok_and(|(_, score)| !score.all_forms);
        let partly = lines.iter().filter(forms).count();
        if partly > 0 {
            eprintln!(
                "{partly} molecules have too many Kekulé forms to list: scored in the canonical one, a lower bound"
            );
        }
        let text = self.text(&lines);
        match &self.out {
            Some(path) => {
                atomic_write(path, text.as_bytes())?;
                println!("{scored} molecules scored, {refused} refused; {}", path.display());
            }
            None => {
                print!("{text}");
                eprintln!("{scored} molecules scored, {refused} refused");
            }
        }
        if loaded.bad_count > loaded.bad.len() {
            eprintln!("{} more bad lines are not in the table", loaded.bad_count - loaded.bad.len());
        }
        Ok(())
    }

    fn molecules(&self) -> Result<Loaded> {
        match &self.data {
            Some(path) => {
                self.table.check(&[path])?;
                read(path, &self.table)
            }
            None if self.smiles.is_empty() => bail!("expected SMILES or --data FILE"),
            None => {
                let loaded = Loaded::from_strings(&self.smiles, "the arguments", Components::Largest);
                say(&loaded);
                Ok(loaded)
            }
        }
    }

    /// All molecules in the order given, the bad ones among them.
    fn lines(&self, loaded: &Loaded, model: &GraphAf) -> Vec<Line> {
        let good = loaded.molecules.iter().enumerate().map(|(index, molecule)| {
            // A generator for each molecule, so that neither its line nor the others decide about its score.
            let mut rng = FlowRng::named(self.seed, &format!("score {}", canonical(&molecule)));
            let score = model.score(&molecule, self.orders, &mut rng);
            Line {
                line: loaded.lines.get(index).copied(),
                name: loaded.name(index).unwrap_or_default().to_string(),
                input: loaded.source_strings.get(index).unwrap_or_default().to_string(),
                outcome: score.map(|score| (canonical_smiles(&molecule), score)).map_err(|error| error.to_string()),
            }
        });
        let bad = loaded.bad.iter().map(|bad| Line {
            line: Some(bad.line),
            name: bad.name.clone(),
            input: bad.source.clone(),
            outcome: Err(format!("column {}: {}", bad.column, bad.reason)),
        });
        let mut lines: Vec<Line> = good.chain(bad).collect();
        // What has no line stands behind what has one.
        lines.sort_by_key(|line| (line.line.is_none(), line.line));
        lines
    }

    fn text(&self, lines: &[Line]) -> String {
        let more = if self.bound { ",log_p_bound_nats,effective_ways" } else { "" };
        let mut text =
            format!("line,name,input,smiles,heavy_atoms,log_mean_way_nats,bits_per_atom,best_way_nats{more},refused\n");
        for line in lines {
            let Line { line, name, input, outcome } = line;
            let line = line.map(|line| line.to_string()).unwrap_or_default();
            let (name, input) = (quoted(name), quoted(input));
            // Writing to a string does not fail.
            let _ = match outcome {
                Ok((smiles, s)) => {
                    let (nats, bits, best) = (s.log_mean_exp(), s.bits_per_atom(), s.best());
                    let more = match self.bound {
                        true => format!(",{:.3},{:.1}", s.bound(), s.effective_ways()),
                        false => String::new(),
                    };
                    writeln!(text, "{line},{name},{input},{smiles},{},{nats:.3},{bits:.4},{best:.3}{more},", s.atoms)
                }
                Err(reason) => {
                    writeln!(
                        text,
                        "{line},{name},{input},,,,,{},{}",
                        if self.bound { ",," } else { "" },
                        quoted(reason)
                    )
                }
            };
        }
        text
    }
}
