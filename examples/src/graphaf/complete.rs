//! `graphaf complete`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use flow_core::FlowRng;
use flow_graph::model::{GraphAf, SampleOptions, Sequence};
use flow_graph::smiles::canonical;
use flow_graph::trainer::random_order;

use super::common::{ScorerArg, check_sizes, check_temperature, load, parse};
use super::output::{self, Row};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, counted};

/// Grow molecules from a scaffold
#[derive(Args, Debug)]
#[command(after_help = "\
The scaffold's atoms are put into a random breadth-first order for each molecule; new atoms attach where the growth
of such an order can still attach, so different molecules grow at different places. Hydrogens of the scaffold give
way to new bonds.

Examples:
  graphaf complete --scaffold 'c1ccc2[nH]ccc2c1'
  graphaf complete --scaffold 'O=C1CCCN1' --count 500 --min-atoms 15 --out grown.csv --out grown.png")]
pub(super) struct CompleteArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// SMILES to start from
    #[arg(long)]
    scaffold: String,
    /// Files to write: .smi, .csv (with properties), .sdf, .png, .svg; "-" is standard output
    #[arg(long, default_value = "-", value_name = "FILE")]
    out: Vec<PathBuf>,
    /// Molecules to grow; each different one is written once, the most frequent first
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Temperature of the draws: below 1 likelier molecules, above 1 more unusual ones
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Smallest number of heavy atoms, as far as the free valences of the scaffold allow more
    #[arg(long, default_value_t = 1)]
    min_atoms: usize,
    /// Largest number of heavy atoms [default: that of the training molecules]
    #[arg(long)]
    max_atoms: Option<usize>,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    scorer: ScorerArg,
    #[command(flatten)]
    device: DeviceArg,
}

impl CompleteArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        check_temperature(self.temperature)?;
        check_sizes(self.min_atoms, self.max_atoms)?;
        output::check(&self.out, &self.scorer)?;
        let scaffold = parse("--scaffold", &self.scaffold)?;
        let scorer = self.scorer.open()?;
        let (_, model) = load(&self.checkpoint, &self.device.open()?)?;
        let vocabulary = &model.config().vocabulary;
        let scaffold = Sequence::new(&scaffold, vocabulary).context("--scaffold")?;
        let most = self.max_atoms.unwrap_or(usize::MAX).min(model.config().max_atoms);
        if scaffold.len() >= most {
            bail!("--scaffold has {} atoms, which leaves no room in molecules of at most {most}", scaffold.len());
        }
        let mut rng = FlowRng::named(self.seed, "complete");
        let starts = (0..self.count).map(|_| self.start(&scaffold, &model, &mut rng)).collect::<Result<Vec<_>>>()?;
        let mut options = SampleOptions::default();
        options.temperature = self.temperature;
        options.min_atoms = self.min_atoms;
        options.max_atoms = self.max_atoms;
        let grown = model.grow(&starts.iter().map(Some).collect::<Vec<_>>(), &options, &mut rng)?;
        let mut found = BTreeMap::new();
        for g in &grown {
            let molecule = g.sequence.molecule(vocabulary)?;
            found.entry(canonical(&molecule)).or_insert((molecule, 0usize)).1 += 1;
        }
        let small = grown.iter().filter(|g| g.sequence.len() < self.min_atoms).count();
        if small > 0 {
            let reason = "no free valence was left within the model's reach";
            eprintln!("{small} of {} have fewer than --min-atoms {}: {reason}", grown.len(), self.min_atoms);
        }
        let mut found: Vec<_> = found.into_values().collect();
        found.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        let rows: Vec<Row> = found
            .into_iter()
            .map(|(molecule, times)| Row { molecule, extra: vec![("times", times.to_string())] })
            .collect();
        output::write(&self.out, &rows, scorer.as_ref())?;
        output::say(&self.out, &format!("{} grown, {} different", counted(grown.len(), "molecule"), rows.len()));
        Ok(())
    }

    /// A random order of the scaffold; where more atoms are wanted, one in which the next atom has something to attach to,
    /// if a few draws find one.
    fn start(&self, scaffold: &Sequence, model: &GraphAf, rng: &mut FlowRng) -> Result<Sequence> {
        const TRIES: usize = 50;
        let mut order = random_order(scaffold, model.config(), rng)?;
        for _ in 0..TRIES {
            if self.min_atoms <= scaffold.len() || model.can_grow(&order) {
                break;
            }
            order = random_order(scaffold, model.config(), rng)?;
        }
        Ok(order)
    }
}
