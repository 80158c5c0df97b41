//! `graphaf optimize`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use flow_core::files::atomic_write;
use flow_core::train::{LogRecord, OptimizerConfig, RecordKind, ScheduleConfig, TrainConfig, read_log};
use flow_graph::model::GraphAf;
use flow_graph::optimize::{ConstrainedOptions, PenalizedLogP, PolicyTask, PpoConfig, Qed, Reward, Shaping};
use flow_graph::trainer::GraphRun;
use flow_graph::{Atom, Bond, Element, Molecule, SaScorer};

use super::common::{Property, ScorerArg, TableArg, check_sizes, check_temperature, load};
use super::improve;
use super::output::{self, Row};
use crate::cli::{CheckpointArg, at_least_one, refuse};
use crate::engine::{EngineArgs, default_is};
use crate::plot::{Look, Series, loss_curve};
use crate::training::{self, Trained};

/// Heavy atoms that a molecule of the fine-tuning has at least, unless told.
const MIN_ATOMS: usize = 5;

/// Fine-tune a model towards a property, or improve given molecules
#[derive(Args, Debug)]
#[command(
    after_help = "\
Without --constrained the model is fine-tuned by proximal policy optimisation and the best molecules drawn on the way
are kept; the result is a checkpoint like any other. With --constrained FILE every molecule of the file loses its last
atoms and is grown again, many times, and the best result that is similar enough is kept; the table's means are those
of the molecules that became better, success is their share.
Penalised logP has no upper end: a plain chain of carbon scores 11.19 at 38 atoms and 13.70 at 48; compare with that.

Examples:
  graphaf optimize --checkpoint runs/zinc --property qed
  graphaf optimize --checkpoint runs/zinc --property plogp --max-atoms 38 --out runs/plogp
  graphaf optimize --checkpoint runs/plogp --property plogp --constrained zinc_800_jt.csv --attempts 200",
    mut_arg("steps", |arg| default_is("400")(arg.visible_alias("iterations"))),
    mut_arg("batch_size", |arg| arg.help("Molecules drawn for every four steps [default: 128]")),
    mut_arg("learning_rate", default_is("0.0003")),
    mut_arg("warmup", default_is("0")),
    mut_arg("schedule", default_is("constant")),
    mut_arg("ema", default_is("0")),
    mut_arg("clip", default_is("1")),
    mut_arg("validate_every", default_is("never; the last weights are the result")),
    mut_arg("checkpoint_every", default_is("100")),
    mut_arg("preview_every", |arg| arg.hide(true))
)]
pub(super) struct OptimizeArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// What to raise
    #[arg(long, value_enum, default_value_t = Property::Qed)]
    property: Property,
    /// Improve the molecules of this file instead of fine-tuning
    #[arg(long, value_name = "FILE")]
    constrained: Option<PathBuf>,
    #[command(flatten)]
    table: TableArg,
    /// Constrained: attempts for each molecule [default: 200]
    #[arg(long)]
    attempts: Option<usize>,
    /// Constrained: largest number of atoms taken away before growing again [default: 12]
    #[arg(long)]
    removed: Option<usize>,
    /// Constrained: number of molecules of the file, from the first [default: all]
    #[arg(long)]
    count: Option<usize>,
    /// Folder for results and, when fine-tuning, checkpoints
    #[arg(long, default_value = "flow-out/graphaf-optimize", value_name = "FOLDER")]
    out: PathBuf,
    /// Fine-tuning: weight of a decision relative to the one after it [default: 0.97]
    #[arg(long)]
    discount: Option<f64>,
    /// Fine-tuning: weight of a molecule that was drawn before, 0 to 1; below 1 the model repeats itself less [default: 1]
    #[arg(long, value_name = "WEIGHT")]
    repeat: Option<f64>,
    /// Fine-tuning: smallest number of heavy atoms, as far as valences allow more [default: 5]
    #[arg(long)]
    min_atoms: Option<usize>,
    /// Largest number of heavy atoms
    #[arg(long, default_value_t = 38)]
    max_atoms: usize,
    /// Temperature of the draws
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    temperature: f64,
    #[command(flatten)]
    scorer: ScorerArg,
    #[command(flatten)]
    engine: EngineArgs,
}

impl OptimizeArgs {
    pub(super) fn run(self) -> Result<()> {
        self.check()?;
        at_least_one("--attempts", self.attempts.unwrap_or(1))?;
        at_least_one("--max-atoms", self.max_atoms)?;
        if self.constrained.is_none() {
            check_sizes(self.min_atoms.unwrap_or(MIN_ATOMS), Some(self.max_atoms))?;
        }
        check_temperature(self.temperature)?;
        let (run, model) = load(&self.checkpoint, &self.engine.device()?)?;
        match self.property {
            Property::Qed => self.with(run, model, Qed),
            Property::Plogp => {
                let scorer = self.scorer()?;
                self.with(run, model, PenalizedLogP(scorer))
            }
        }
    }

    /// Refuses flags of the other way to optimise.
    fn check(&self) -> Result<()> {
        if self.constrained.is_none() {
            let [column, separator] = self.table.given();
            let flags = [
                column,
                separator,
                ("--attempts", self.attempts.is_some()),
                ("--removed", self.removed.is_some()),
                ("--count", self.count.is_some()),
            ];
            refuse(&flags, "for improving given molecules; name them with --constrained FILE, or leave it out")?;
            return self.engine.without_previews("fine-tuning draws no previews; see log.jsonl and best.csv");
        }
        let tuning = "for fine-tuning, --constrained improves molecules with the model as it is; leave one of them out";
        self.engine.without_training(tuning)?;
        let flags = [
            ("--discount", self.discount.is_some()),
            ("--repeat", self.repeat.is_some()),
            ("--min-atoms", self.min_atoms.is_some()),
        ];
        refuse(&flags, tuning)?;
        let unread = self.property == Property::Qed && self.scorer.given();
        refuse(&[("--sa-scores", unread)], "for --property plogp, or for the table of a fine-tuning; leave it out")
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
        options.attempts = self.attempts.unwrap_or(200);
        options.removed = self.removed.unwrap_or(12);
        options.temperature = self.temperature;
        options.max_atoms = self.max_atoms;
        improve::Plan { path, table: &self.table, count: self.count, out: &self.out, seed: self.engine.seed(), options }
    }

    fn fine_tune<R: Reward>(&self, run: GraphRun, model: GraphAf, reward: R) -> Result<()> {
        let shaping = match self.property {
            Property::Qed => Shaping::Linear { scale: 1.0 },
            Property::Plogp => Shaping::Exponential { scale: 3.0 },
        };
        let mut ppo = PpoConfig::default();
        ppo.batch = self.engine.batch(128)?;
        ppo.temperature = self.temperature;
        ppo.min_atoms = self.min_atoms.unwrap_or(MIN_ATOMS);
        ppo.max_atoms = self.max_atoms;
        ppo.discount = self.discount.unwrap_or(0.97);
        ppo.repeat = self.repeat.unwrap_or(1.0);
        ppo.shaping = shaping;
        let place = self.engine.place(&self.out)?;
        let config = self.engine.config(&place, 400, |steps| TrainConfig {
            steps,
            optimizer: OptimizerConfig::adam(3e-4),
            schedule: ScheduleConfig::constant(0),
            clip_norm: Some(1.0),
            validate_every: None,
            checkpoint_every: Some(100),
            ..TrainConfig::default()
        })?;
        let recipe = serde_json::json!({ "property": self.name(), "ppo": &ppo });
        let task = PolicyTask::new(run, model, ppo, reward)?;
        let Trained { task, .. } = training::train(config, place, task, || {
            if place.resume {
                self.compare(&recipe)?;
            }
            Ok(atomic_write(&self.recipe(), serde_json::to_string_pretty(&recipe)?.as_bytes())?)
        })?;
        self.report(&task)?;
        self.plot()
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
