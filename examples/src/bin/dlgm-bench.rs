//! Speed and memory of deep latent Gaussian models on this machine, one JSON line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use candle_core::{DType, Device};
use clap::Parser;
use examples::bench::{median, memory};
use examples::dlgm::read_images;
use flow_core::train::{Optimizer, OptimizerConfig};
use flow_core::{FlowRng, Gradients, ParamStore};
use flow_density::dlgm::{BinaryImages, Dlgm, DlgmConfig, Family};

/// Times an update (noise, free energy, gradients, Adam) of the paper's model of 28x28 images
#[derive(Parser)]
struct Args {
    /// Folder with MNIST's idx files; without it, random images of which a fifth of the pixels are ones.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Numbers of maps, one model each.
    #[arg(long, num_args = 1.., default_values_t = [0, 10, 80])]
    flows: Vec<usize>,
    /// Family of the maps: planar, radial, nice or iaf.
    #[arg(long, default_value = "planar")]
    family: String,
    /// Timed updates; the first fifth is not counted.
    #[arg(long, default_value_t = 30)]
    time_updates: usize,
    /// Images per update.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Also print the milliseconds of gradients and of Adam.
    #[arg(long)]
    phases: bool,
}

fn main() -> ExitCode {
    examples::cli::main(run)
}

fn run() -> Result<()> {
    let args = Args::parse();
    let mut rng = FlowRng::seed_from(1);
    let images = match &args.data {
        Some(path) => read_images(path, 0, 0)?.train,
        None => {
            let bits = (0..2000 * 784).map(|_| u8::from(rng.next_uniform() > 0.8)).collect();
            BinaryImages::from_bits(bits, [28, 28])?
        }
    };
    let family: Family = serde_json::from_value(serde_json::Value::String(args.family.clone()))?;
    let mut results = serde_json::Map::new();
    for &flows in &args.flows {
        let idle = memory("VmRSS");
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        let model = Dlgm::new(&store, &DlgmConfig::new([28, 28], family, flows))?;
        let (mut gradients, mut optimizer) =
            (Gradients::new(&store), Optimizer::new(OptimizerConfig::adam(1e-3), &store)?);
        let (mut times, mut parts) = (Vec::new(), [Vec::new(), Vec::new()]);
        for update in 0..args.time_updates {
            let places: Vec<usize> = (0..args.batch).map(|_| rng.below(images.len())).collect();
            let x = images.batch(&places, DType::F32, &Device::Cpu)?;
            let start = Instant::now();
            gradients.clear();
            let noise = model.noise(args.batch, &mut rng)?;
            model.free_energy_backward(&x, &noise, 1.0, &mut gradients)?;
            let middle = start.elapsed().as_secs_f64();
            optimizer.step(&gradients, 1.0)?;
            let all = start.elapsed().as_secs_f64();
            if update >= args.time_updates / 5 {
                times.push(1.0 / all);
                parts[0].push(1e3 * middle);
                parts[1].push(1e3 * (all - middle));
            }
        }
        let [gradient, adam] = parts.map(median);
        let mut line = serde_json::json!({
            "params": store.parameter_count(),
            "updates_per_s": median(times),
            "resident_mib": memory("VmRSS") - idle,
        });
        if args.phases {
            line["gradient_ms"] = gradient.into();
            line["adam_ms"] = adam.into();
        }
        results.insert(format!("k{flows}"), line);
    }
    results.insert("family".into(), args.family.into());
    println!("{}", serde_json::Value::Object(results));
    Ok(())
}
