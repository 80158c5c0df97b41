//! `density posterior`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use flow_core::FlowRng;
use flow_core::files::atomic_write;
use flow_core::numerics::{mean_and_error, plus_minus};
use flow_core::train::{Summary, TrainConfig};
use flow_density::data::{Columns, Data, Missing, Reading, Split, Table};
use flow_density::posterior::{BINS, Calibration, Pairs, Posterior, Simulator};
use flow_density::trainer::{DensityRun, DensityTask, NLL};
use serde::Serialize;

use super::common::{in_words, load_from};
use super::family::FamilyArg;
use super::reading::{ReadingArg, print};
use super::train::recipe;
use crate::cli::{at_least_one, counted, refuse};
use crate::engine::{EngineArgs, default_is};
use crate::plot::{Look, Series, loss_curve, plot_log};
use crate::training::{self, Trained};

/// Steps of a run, unless told.
const STEPS: u64 = 3000;
/// Pairs of a step, unless told.
const BATCH: usize = 512;
/// Runs of a built-in simulator, unless told.
const SIMULATIONS: usize = 20_000;

/// Learn the posterior of a simulator from pairs of parameters and observations
#[derive(Args, Debug)]
#[command(
    after_help = "\
Each row of the table holds parameters, drawn from their prior, and what a simulation with them gave. A conditional flow learns
the distribution of the parameters given any observation: one fit serves all of them, and draws come by
`density sample --given`. At the end, over held-out pairs, it prints whether the posteriors mean what they say: the
test of the ranks of the true parameters among draws (simulation-based calibration), and how often regions of a given
probability hold the truth. Leaves checkpoints, log.jsonl, report.json, loss.png, ranks.png and coverage.png in the folder.
Without --pairs two crescents are learned from a built-in simulator.

Examples:
  density posterior
  density posterior --pairs runs.csv --parameters rate,size --observed peak,width,delay --out runs/epidemic
  density posterior --pairs gaussian-pairs --model maf --out runs/gaussian
  density sample --checkpoint runs/epidemic --given 0.4,1.7,12 --count 10000 --out posterior.csv",
    mut_arg("steps", default_is("3000")),
    mut_arg("batch_size", |arg| arg.help("Pairs per step [default: 512, all training pairs of a table with fewer]")),
    mut_arg("learning_rate", default_is("0.002, planar, radial and sylvester 0.01")),
    mut_arg("warmup", default_is("half of the run, at most 100")),
    mut_arg("schedule", default_is("cosine to a hundredth")),
    mut_arg("ema", default_is("0.995")),
    mut_arg("clip", default_is("5")),
    mut_arg("validate_every", default_is("250")),
    mut_arg("checkpoint_every", default_is("500")),
    mut_arg("preview_every", |arg| arg.hide(true))
)]
pub(super) struct PosteriorArgs {
    /// A table (.csv, .tsv, .txt, .npy, .npz), of which a tenth is held out for validation and a tenth for the calibration,
    /// or a built-in simulator: two-moons, gaussian-pairs
    #[arg(long, default_value = "two-moons", value_name = "FILE|SIMULATOR")]
    pairs: String,
    /// Columns of the parameters: names or numbers, comma-separated
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    parameters: Vec<String>,
    /// Columns of what was observed: names or numbers, comma-separated
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    observed: Vec<String>,
    /// Runs of the built-in simulator [default: 20000]
    #[arg(long)]
    simulations: Option<usize>,
    #[command(flatten)]
    family: FamilyArg,
    /// Folder for checkpoints, log, pictures
    #[arg(long, default_value = "flow-out/density", value_name = "FOLDER")]
    out: PathBuf,
    /// Draws for each held-out pair of the calibration, one less than a multiple of 25
    #[arg(long, default_value_t = 99)]
    draws: usize,
    /// Largest number of held-out pairs in the calibration
    #[arg(long, default_value_t = 2000)]
    test_pairs: usize,
    #[command(flatten)]
    reading: ReadingArg,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What `report.json` holds.
#[derive(Debug, Serialize)]
struct Report {
    /// The mean of `-ln q(θ|x)` over held-out pairs, nats of the parameters' units, with its error.
    nll: (f64, f64),
    /// The mean divergence from the exact posterior where that is known, with its error.
    divergence: Option<(f64, f64)>,
    calibration: Calibration,
}

impl PosteriorArgs {
    pub(super) fn run(self) -> Result<()> {
        ensure!(
            (self.draws + 1).is_multiple_of(BINS),
            "--draws must be one less than a multiple of {BINS}, such as 99"
        );
        at_least_one("--test-pairs", self.test_pairs)?;
        self.engine.without_previews("posteriors draw their pictures at the end of the run; leave it out")?;
        let (device, place) = (self.engine.device()?, self.engine.place(&self.out)?);
        let config: TrainConfig = self.engine.config(&place, STEPS, |steps| recipe(self.family.kind(), steps))?;
        self.engine.batch(BATCH)?;
        let model = self.family.plan_discrete("continuous flows take no observation here")?;
        let (data, reading, given) = self.open()?;
        print(&data);
        let batch = self.engine.batch(BATCH.min(data.train_rows()))?;
        let words = in_words(&model);
        let run = DensityRun::new(&self.pairs, &data, model, batch, self.engine.seed()).reading(reading).given(given);
        let (steps, modelled) = (config.steps, run.modelled());
        let task = DensityTask::new(run, data, &device)?;
        let parameters = task.model().store().parameter_count();
        let Trained { summary, report, task } = training::train(config, place, task, || {
            eprintln!(
                "{words}; {modelled} parameters given {given} observed numbers, {parameters} weights, {steps} steps of {batch} pairs"
            );
            Ok(())
        })?;
        plot_log(&self.out, NLL, "negative log-likelihood of the parameters (nats)")?;
        if !report {
            return Ok(());
        }
        self.report(&summary, task.data())
    }

    /// Pairs as a table whose last columns are what was observed, how it was read, and how many columns that is.
    fn open(&self) -> Result<(Data, Reading, usize)> {
        let seed = self.engine.seed();
        if let Some(simulator) = Simulator::named(&self.pairs) {
            let flags = [("--parameters", !self.parameters.is_empty()), ("--observed", !self.observed.is_empty())];
            refuse(&flags, "name columns of a table, a built-in simulator has none; leave it out")?;
            self.reading.refuse("for tables, a simulator is run; leave it out")?;
            let count = self.simulations.unwrap_or(SIMULATIONS);
            let pairs = Pairs::simulate(count, |rng| simulator.run(rng), &mut FlowRng::named(seed, "simulations"))?;
            let (p, o) = (pairs.parameters(), pairs.observed());
            let rows = pairs.theta().chunks(p).zip(pairs.x().chunks(o));
            let table = Table::new(p + o, rows.flat_map(|(t, x)| [t, x].concat()).collect())?;
            return Ok((Data::from_table(&table, seed)?, Reading::default(), o));
        }
        refuse(&[("--simulations", self.simulations.is_some())], "is for built-in simulators; leave it out")?;
        self.reading.refuse_columns("the columns are named by --parameters and --observed; leave it out")?;
        ensure!(
            !self.parameters.is_empty() && !self.observed.is_empty(),
            "{}: name its columns by --parameters and --observed, or take a built-in simulator, {}",
            self.pairs,
            Simulator::ALL.map(Simulator::name).join(" or ")
        );
        let columns = [self.parameters.clone(), self.observed.clone()].concat();
        let reading = Reading { columns, ..self.reading.reading(Missing::Refuse) };
        let table = Table::open_with(Path::new(&self.pairs), &reading)?;
        let wanted = self.parameters.len() + self.observed.len();
        let found = table.columns();
        ensure!(
            found == wanted,
            "--parameters and --observed name {wanted} columns, of which {found} differ; name each once, without ranges"
        );
        Ok((Data::from_table(&table, seed)?, reading, self.observed.len()))
    }

    /// Pictures, the report and its lines, from the checkpoint on disk.
    fn report(&self, summary: &Summary, data: &Data) -> Result<()> {
        let (run, model) = load_from(&self.out, &self.engine.device()?, true)?;
        let (parameters, observed) = run.scales();
        let posterior = Posterior::new(model.density(), parameters, observed)?;
        let pairs = pairs_of(&run, data.rows(Split::Test).first(self.test_pairs).values())?;
        let logs = posterior.log_prob(&pairs)?;
        let nll = mean_and_error(&logs.iter().map(|log| -log).collect::<Vec<_>>());
        let divergence = divergence(&self.pairs, &pairs, &logs);
        let mut rng = FlowRng::named(self.engine.seed(), "calibration");
        let calibration = posterior.calibrate(&pairs, self.draws, &mut rng)?;
        println!(
            "negative log-likelihood of the parameters: test {:.4} {} nats over {}",
            nll.0,
            plus_minus(nll.1, 4),
            counted(pairs.len(), "pair")
        );
        if let Some((mean, error)) = divergence {
            let error = plus_minus(error, 4);
            println!("divergence from the exact posterior: {mean:.4} {error} nats on average over observations");
        }
        println!("{calibration}");
        let coverage = self.out.join("coverage.png");
        plot_coverage(&calibration, &coverage)?;
        plot_ranks(&calibration, run.columns.as_ref(), &self.out.join("ranks.png"))?;
        let report = Report { nll, divergence, calibration };
        atomic_write(&self.out.join("report.json"), serde_json::to_string_pretty(&report)?.as_bytes())?;
        println!("{} steps in {:.0} s; {}", summary.step, summary.seconds, coverage.display());
        Ok(())
    }
}

/// Rows of a run as pairs.
fn pairs_of(run: &DensityRun, values: &[f64]) -> Result<Pairs> {
    let (columns, modelled) = (run.features(), run.modelled());
    let part = |from: usize, to: usize| values.chunks(columns).flat_map(|row| row[from..to].iter().copied()).collect();
    Ok(Pairs::new(modelled, part(0, modelled), run.given, part(modelled, columns))?)
}

/// `E[ln p(θ|x) - ln q(θ|x)]` over pairs of a simulator whose posterior is known.
fn divergence(name: &str, pairs: &Pairs, logs: &[f64]) -> Option<(f64, f64)> {
    let simulator = Simulator::named(name)?;
    let rows = pairs.theta().chunks(pairs.parameters()).zip(pairs.x().chunks(pairs.observed()));
    let gaps: Option<Vec<f64>> =
        rows.zip(logs).map(|((theta, x), log)| simulator.exact_log_prob(theta, x).map(|exact| exact - log)).collect();
    gaps.map(|gaps| mean_and_error(&gaps))
}

/// How often regions of a probability hold the truth.
fn plot_coverage(calibration: &Calibration, path: &Path) -> Result<()> {
    let levels = (0..=20).map(|k| f64::from(k) / 20.0);
    let series = [
        Series::new("as it should be", vec![(0.0, 0.0), (1.0, 1.0)], Look::Smooth),
        Series::new("measured", levels.map(|level| (level, calibration.coverage_of(level))).collect(), Look::Marked),
    ];
    let (x, y) = ("probability of the highest-density region", "share of held-out pairs inside");
    loss_curve(&series, "Expected coverage", x, y, path)
}

/// Ranks of the true parameters among draws.
fn plot_ranks(calibration: &Calibration, columns: Option<&Columns>, path: &Path) -> Result<()> {
    let mut series = vec![Series::new("uniform", vec![(0.0, 1.0), (1.0, 1.0)], Look::Smooth)];
    for (parameter, test) in calibration.ranks.iter().enumerate() {
        let (bins, pairs) = (test.histogram.len() as f64, calibration.pairs as f64);
        let point = |(bin, &count): (usize, &usize)| ((bin as f64 + 0.5) / bins, count as f64 * bins / pairs);
        let label = columns.map_or_else(|| format!("parameter {}", parameter + 1), |c| c.label(parameter));
        series.push(Series::new(label, test.histogram.iter().enumerate().map(point).collect(), Look::Marked));
    }
    loss_curve(
        &series,
        "Ranks of the true parameters",
        "rank among draws",
        "frequency over that of uniform ranks",
        path,
    )
}
