//! Speed and memory of Glow on this machine, one JSON line: the numbers of `BENCHMARKS.md`.

use std::process::ExitCode;

use anyhow::Result;
use candle_core::{DType, Tensor};
use clap::Parser;
use examples::bench::{median, memory, timed};
use examples::cli::{ConvolutionsArg, DeviceArg};
use flow_core::train::{Optimizer, OptimizerConfig, clip_global_norm};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore};
use flow_image::model::{GlowConfig, GlowCoupling, ImageModel, ImageSpec, ModelConfig};

/// Times training (optimizer and clipping included), sampling and encoding of a Glow on random images
#[derive(Parser)]
struct Args {
    /// Scales L.
    #[arg(long, default_value_t = 3)]
    levels: usize,
    /// Steps per scale K.
    #[arg(long, default_value_t = 8)]
    steps_per_level: usize,
    /// Hidden channels of the coupling networks.
    #[arg(long, default_value_t = 128)]
    width: usize,
    /// Images per step.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Timed training steps.
    #[arg(long, default_value_t = 20)]
    train_steps: usize,
    /// Additive couplings instead of affine ones.
    #[arg(long)]
    additive: bool,
    /// One graph over the whole model instead of reversible back-propagation.
    #[arg(long)]
    plain: bool,
    /// Image side.
    #[arg(long, default_value_t = 32)]
    size: usize,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    convolutions: ConvolutionsArg,
}

fn main() -> ExitCode {
    examples::cli::main(run)
}

fn run() -> Result<()> {
    let args = Args::parse();
    let device = args.device.open()?;
    args.convolutions.apply(&device)?;
    let idle = memory("VmHWM");
    let spec = ImageSpec::new(3, args.size, args.size, 256)?;
    let coupling = if args.additive { GlowCoupling::Additive } else { GlowCoupling::Affine };
    let mut config = GlowConfig::new(args.levels, args.steps_per_level, args.width);
    config.coupling = coupling;
    let store = ParamStore::new(0, DType::F32, &device);
    let model = ImageModel::new(&ModelConfig::Glow(config), &spec, &store)?;
    let mut rng = FlowRng::seed_from(1);
    let draw = |n: usize, rng: &mut FlowRng| -> Result<Tensor> {
        Ok(rng.uniform((n, 3, args.size, args.size), DType::F32, &device)?.affine(256.0, 0.0)?.floor()?)
    };
    // As many images as a step has: otherwise initialisation, not training, would set the peak.
    model.initialize(&draw(args.batch, &mut rng)?, None, &mut rng)?;
    let mode = if args.plain { Backprop::Plain } else { Backprop::Reversible };
    let mut gradients = Gradients::new(&store);
    // Small: without a warm-up, and on noise, a large model leaves the numbers within ten steps of the usual rate.
    let mut optimizer = Optimizer::new(OptimizerConfig::adam(1e-6), &store)?;
    let mut times = Vec::new();
    let mut fallbacks = 0;
    for _ in 0..args.train_steps {
        let x = draw(args.batch, &mut rng)?;
        let (fell_back, seconds) = timed(&device, || {
            gradients.clear();
            let fell_back = model.backward(&x, None, &mut rng, mode, &mut gradients)?.fell_back;
            clip_global_norm(&mut gradients, Some(100.0))?;
            optimizer.step(&gradients, 1.0)?;
            Ok(fell_back)
        })?;
        fallbacks += usize::from(fell_back);
        times.push(seconds);
    }
    let peak = memory("VmHWM");
    let mut time = |f: &mut dyn FnMut(&mut FlowRng) -> Result<()>| -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..7 {
            times.push(timed(&device, || f(&mut rng))?.1);
        }
        Ok(median(times))
    };
    let sampling = time(&mut |rng| Ok(model.sample(args.batch, None, &[0.7], rng).map(drop)?))?;
    let images = draw(args.batch, &mut FlowRng::seed_from(2))?;
    let encoding = time(&mut |rng| Ok(model.bits_per_dim(&images, None, rng).map(drop)?))?;
    let rate = |t: f64| (args.batch as f64 / t * 100.0).round() / 100.0;
    println!(
        "{}",
        serde_json::json!({
            "train_images_per_s": rate(median(times)), "sample_images_per_s": rate(sampling),
            "encode_images_per_s": rate(encoding), "peak_over_idle_mib": (peak - idle).round(),
            "params": store.parameter_count(), "plain_fallbacks": fallbacks,
        })
    );
    Ok(())
}
