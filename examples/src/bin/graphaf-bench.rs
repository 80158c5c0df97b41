//! Speed and memory of GraphAF on this machine, one JSON line: the numbers of `BENCHMARKS.md`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use candle_core::{DType, Device};
use clap::{Parser, ValueEnum};
use examples::bench::{median, memory};
use flow_core::train::{EpochCursor, Optimizer, OptimizerConfig, clip_global_norm};
use flow_core::{FlowRng, Gradients, ParamStore};
use flow_graph::data::{OpenOptions, open};
use flow_graph::model::{GraphAf, GraphAfConfig, SampleOptions, Sequence, Vocabulary};
use flow_graph::trainer::{GraphRun, random_order};

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    /// Twelve affine flow layers, nine elements.
    Paper,
    /// Exact class probabilities, charges.
    Spline,
}

/// Times training (orders, clipping and optimizer included) and sampling of a GraphAF
#[derive(Parser)]
struct Args {
    /// Molecules to train on.
    #[arg(long, default_value = "builtin")]
    data: PathBuf,
    /// Which model.
    #[arg(long, value_enum, default_value_t = Model::Spline)]
    model: Model,
    /// Molecules per step.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Timed training steps.
    #[arg(long, default_value_t = 50)]
    train_steps: usize,
    /// Draw from this run instead of the model just timed, whose molecules are small.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Molecules to draw.
    #[arg(long, default_value_t = 1000)]
    count: usize,
}

fn main() -> ExitCode {
    examples::cli::main(run)
}

fn run() -> Result<()> {
    let args = Args::parse();
    let idle = memory("VmHWM");
    let loaded = open(&args.data, &OpenOptions::default())?;
    let vocabulary = match args.model {
        Model::Paper => Vocabulary::paper(),
        Model::Spline => Vocabulary::of(loaded.molecules.iter())?,
    };
    // What the vocabulary does not know is of no use to a clock.
    let molecules: Vec<Sequence> =
        loaded.molecules.iter().filter_map(|m| Sequence::new(&m, &vocabulary).ok()).collect();
    drop(loaded);
    let largest = molecules.iter().map(Sequence::len).max().unwrap_or(1);
    let config = match args.model {
        Model::Paper => GraphAfConfig::paper(vocabulary, largest),
        Model::Spline => GraphAfConfig::spline(vocabulary, largest),
    };
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let model = GraphAf::new(config, &store)?;
    let train = train(&args, &model, &molecules)?;
    let peak = memory("VmHWM");
    let model = match &args.checkpoint {
        Some(path) => flow_core::train::load::<GraphRun>(path, &Device::Cpu, true)?.1,
        None => model,
    };
    let start = Instant::now();
    let drawn = model.sample(args.count, &SampleOptions::default(), &mut FlowRng::seed_from(1))?;
    let sampling = args.count as f64 / start.elapsed().as_secs_f64();
    let atoms: usize = drawn.iter().map(|g| g.sequence.len()).sum();
    println!(
        "{}",
        serde_json::json!({
            "train_molecules_per_s": train.round(), "sample_molecules_per_s": sampling.round(),
            "mean_atoms_drawn": atoms as f64 / args.count.max(1) as f64, "peak_mib": peak.round(),
            "peak_over_idle_mib": (peak - idle).round(), "params": store.parameter_count(),
        })
    );
    Ok(())
}

/// Molecules per second of the median step.
fn train(args: &Args, model: &GraphAf, molecules: &[Sequence]) -> Result<f64> {
    let mut cursor = EpochCursor::new(molecules.len(), args.batch, 0)?;
    let mut rng = FlowRng::seed_from(1);
    let some = molecules.iter().take(256).map(|m| random_order(m, model.config(), &mut rng));
    model.initialize(&some.collect::<flow_graph::Result<Vec<_>>>()?)?;
    let mut gradients = Gradients::new(model.store());
    let mut optimizer = Optimizer::new(OptimizerConfig::adam(1e-3), model.store())?;
    let mut times = Vec::new();
    for _ in 0..args.train_steps {
        let start = Instant::now();
        let mut batch = cursor.next_batch();
        let orders = batch.indices.iter().map(|&i| random_order(&molecules[i], model.config(), &mut batch.rng));
        let orders = orders.collect::<flow_graph::Result<Vec<_>>>()?;
        gradients.clear();
        model.backward(&orders, &mut rng, &mut gradients)?;
        clip_global_norm(&mut gradients, Some(1.0))?;
        optimizer.step(&gradients, 1.0)?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(args.batch as f64 / median(times))
}
