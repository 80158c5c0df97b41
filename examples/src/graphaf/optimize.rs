//! `graphaf optimize`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use flow_core::files::atomic_write;
use flow_core::train::{
    Bar, LogRecord, OptimizerConfig, RecordKind, ScheduleConfig, StopFlag, TrainConfig, Trainer, read_log,
};
use flow_graph::model::GraphAf;
use flow_graph::optimize::{ConstrainedOptions, PenalizedLogP, PolicyTask, PpoConfig, Qed, Reward, Shaping};
use flow_graph::trainer::GraphRun;
use flow_graph::{Atom, Bond, Element, Molecule, SaScorer};

use super::common::{Property, ScorerArg, check_sizes, check_temperature, load};
use super::improve;
use super::output::{self, Row};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, create_folder};
use crate::plot::{Look, Series, loss_curve};

/// Fine-tune a model towards a property, or improve given molecules
#[derive(Args, Debug)]
#[command(after_help = "\
Without --constrained the model is fine-tuned by proximal policy optimisation and the best molecules drawn on the way
are kept; the result is a checkpoint like any other. With --constrained FILE every molecule of the file loses its last
atoms and is grown again, many times, and the best result that is similar enough is kept; the table's means are those
of the molecules that became better, success is their share.
Penalised logP has no upper end: a plain chain of carbon scores 11.19 at 38 atoms and 13.70 at 48; compare with that.

Examples:
  graphaf optimize --checkpoint runs/zinc --property qed
  graphaf optimize --checkpoint runs/zinc --property plogp --max-atoms 38 --out runs/plogp
  graphaf optimize --checkpoint runs/plogp --property plogp --constrained zinc_800_jt.csv --attempts 200")]
pub(super) struct OptimizeArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// What to raise
    #[arg(long, value_enum, default_value_t = Property::Qed)]
    property: Property,
    /// Improve the molecules of this file instead of fine-tuning
    #[arg(long, value_name = "FILE")]
    constrained: Option<PathBuf>,
    /// Column of SMILES in a table
    #[arg(long)]
    column: Option<String>,
    /// Constrained: attempts for each molecule
    #[arg(long, default_value_t = 200)]
    attempts: usize,
    /// Constrained: the most atoms taken away before growing again
    #[arg(long, default_value_t = 12)]
    removed: usize,
    /// Constrained: molecules of the file, from the first; all if not given
    #[arg(long)]
    count: Option<usize>,
    /// Folder for results and, when fine-tuning, checkpoints
    #[arg(long, default_value = "flow-out/graphaf-optimize", value_name = "FOLDER")]
    out: PathBuf,
    /// Go on with the fine-tuning in --out
    #[arg(long)]
    resume: bool,
    /// Updates of the weights
    #[arg(long, visible_alias = "iterations", default_value_t = 400)]
    steps: u64,
    /// Molecules drawn for every four updates
    #[arg(long, default_value_t = 128)]
    batch_size: usize,
    /// Learning rate
    #[arg(long, default_value_t = 3e-4)]
    learning_rate: f64,
    /// What a decision is worth of the one after it
    #[arg(long, default_value_t = 0.97)]
    discount: f64,
    /// Worth of a molecule that was drawn before, 0 to 1: less than 1 keeps the model from repeating itself
    #[arg(long, default_value_t = 1.0, value_name = "WEIGHT")]
    repeat: f64,
    /// The least number of heavy atoms, as far as there are valences left to go on
    #[arg(long, default_value_t = 5)]
    min_atoms: usize,
    /// The most heavy atoms
    #[arg(long, default_value_t = 38)]
    max_atoms: usize,
    /// Temperature of the draws
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    scorer: ScorerArg,
    #[command(flatten)]
    device: DeviceArg,
}

impl OptimizeArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--attempts", self.attempts)?;
        at_least_one("--max-atoms", self.max_atoms)?;
        check_sizes(self.min_atoms, Some(self.max_atoms))?;
        check_temperature(self.temperature)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        match self.property {
            Property::Qed => self.with(run, model, Qed),
            Property::Plogp => {
                let scorer = self.scorer()?;
                self.with(run, model, PenalizedLogP(scorer))
            }
        }
    }

    fn scorer(&self) -> Result<SaScorer> {
        let found = self.scorer.open()?;
        found.context("penalised logP needs --sa-scores FILE: fpscores.pkl.gz of RDKit's Contrib/SA_Score")
    }

    fn with<R: Reward + 'static>(&self, run: GraphRun, model: GraphAf, reward: R) -> Result<()> {
        match &self.constrained {
            Some(path) => improve::run(&self.improvement(path), &model, &reward),
            None => self.fine_tune(run, model, reward),
        }
    }

    fn improvement<'a>(&'a self, path: &'a Path) -> improve::Plan<'a> {
        let mut options = ConstrainedOptions::default();
        options.attempts = self.attempts;
        options.removed = self.removed;
        options.temperature = self.temperature;
        options.max_atoms = self.max_atoms;
        improve::Plan {
            path,
            column: self.column.as_deref(),
            count: self.count,
            out: &self.out,
            seed: self.seed,
            options,
        }
    }

    fn fine_tune<R: Reward>(&self, run: GraphRun, model: GraphAf, reward: R) -> Result<()> {
        let shaping = match self.property {
            Property::Qed => Shaping::Linear { scale: 1.0 },
            Property::Plogp => Shaping::Exponential { scale: 3.0 },
        };
        let mut ppo = PpoConfig::default();
        ppo.batch = self.batch_size;
        ppo.temperature = self.temperature;
        ppo.min_atoms = self.min_atoms;
        ppo.max_atoms = self.max_atoms;
        ppo.discount = self.discount;
        ppo.repeat = self.repeat;
        ppo.shaping = shaping;
        let config = TrainConfig {
            steps: self.steps,
            optimizer: OptimizerConfig::adam(self.learning_rate),
            schedule: ScheduleConfig::constant(0),
            clip_norm: Some(1.0),
            validate_every: None,
            checkpoint_every: Some(100),
            seed: self.seed,
            ..TrainConfig::default()
        };
        let recipe = serde_json::json!({ "property": self.name(), "ppo": &ppo });
        let task = PolicyTask::new(run, model, ppo, reward)?;
        let trainer = if self.resume {
            let trainer = Trainer::resume(config, &self.out, task)?;
            self.compare(&recipe)?;
            trainer
        } else {
            Trainer::new(config, &self.out, task)?
        };
        create_folder(&self.out)?;
        atomic_write(&self.recipe(), serde_json::to_string_pretty(&recipe)?.as_bytes())?;
        let mut trainer = trainer.with_stop(StopFlag::on_ctrl_c()?);
        let summary = trainer.run(&mut Bar::new())?;
        self.report(trainer.task())?;
        self.plot()?;
        if summary.interrupted {
            println!("stopped at step {}; go on with the same command and --resume", summary.step);
        }
        Ok(())
    }

    /// Where a run says what it optimises and how.
    fn recipe(&self) -> PathBuf {
        self.out.join("optimize.json")
    }

    /// Refuses to go on with a run that was started otherwise: its best molecules and its policy would not fit.
    fn compare(&self, now: &serde_json::Value) -> Result<()> {
        let path = self.recipe();
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let before: serde_json::Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        for field in ["/property", "/ppo"] {
            let (before, now) = (before.pointer(field), now.pointer(field));
            if before != now {
                let show = |value: Option<&serde_json::Value>| value.map(ToString::to_string).unwrap_or_default();
                bail!("{}: the run was started with {}, not {}", path.display(), show(before), show(now));
            }
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        match self.property {
            Property::Qed => "qed",
            Property::Plogp => "penalized_logp",
        }
    }

    /// How the property rose: mean of what was drawn, and the best so far.
    fn plot(&self) -> Result<()> {
        const DOTS: usize = 20;
        let (records, name) = (read_log(&self.out.join("log.jsonl"))?, self.name());
        let points = |metric: String, sign: f64| -> Vec<(f64, f64)> {
            let of = |r: &LogRecord| r.get(&metric).map(|value| (r.step as f64, sign * value));
            records.iter().filter(|r| r.kind == RecordKind::Train).filter_map(of).collect()
        };
        let (mean, best) = (points(format!("minus_mean_{name}"), -1.0), points(format!("best_{name}"), 1.0));
        if mean.is_empty() {
            return Ok(());
        }
        let every = best.len().div_ceil(DOTS).max(1);
        let series = [
            Series::new("mean of the molecules drawn", mean, Look::Smooth),
            Series::new("best so far", best.into_iter().step_by(every).collect(), Look::Marked),
        ];
        loss_curve(&series, "Fine-tuning", "step", name, &self.out.join("property.png"))
    }

    fn report<R: Reward>(&self, task: &PolicyTask<R>) -> Result<()> {
        let name = self.name();
        let mut rows = Vec::new();
        for best in task.best() {
            let molecule = flow_graph::smiles::parse(&best.smiles)?;
            rows.push(Row { molecule, extra: vec![(name, format!("{:.4}", best.property))] });
        }
        if rows.is_empty() {
            bail!("{}: no molecule with a finite {name} was drawn", self.out.display());
        }
        let scorer = self.scorer.open()?;
        output::write(&[self.out.join("best.csv"), self.out.join("best.png")], &rows, scorer.as_ref())?;
        for (place, (best, row)) in task.best().iter().zip(&rows).take(3).enumerate() {
            println!("{}. {name} {:.4}, {} atoms: {}", place + 1, best.property, row.molecule.len(), best.smiles);
        }
        let cap = self.max_atoms;
        let baseline = match (self.property, scorer) {
            (Property::Plogp, Some(scorer)) => {
                format!(
                    "; a plain chain of {cap} carbon atoms scores {:.2}",
                    PenalizedLogP(scorer).property(&chain(cap)?)
                )
            }
            _ => String::new(),
        };
        println!("of {} molecules drawn, at most {cap} atoms{baseline}; {}", task.drawn(), self.out.display());
        Ok(())
    }
}

/// The plain chain of carbon atoms.
fn chain(atoms: usize) -> Result<Molecule> {
    let bonds: Vec<_> = (1..atoms).map(|i| (i - 1, i, Bond::Single)).collect();
    Ok(Molecule::from_parts(&vec![Atom::neutral(Element::CARBON); atoms], &bonds)?)
}
