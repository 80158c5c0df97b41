//! Speed and memory of VideoFlow on this machine, one JSON line: the numbers of `BENCHMARKS.md`.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};
use clap::Parser;
use examples::bench::{median, memory, timed};
use examples::cli::{ConvolutionsArg, DeviceArg};
use flow_core::train::{Optimizer, OptimizerConfig, clip_global_norm};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore};
use flow_video::model::{ImageSpec, PRESETS, Predictor, VideoFlow, preset};

/// Times the next frame of one clip, the likelihood of a frame and a training step (optimizer and clipping included) on
/// random clips
#[derive(Parser)]
struct Args {
    /// Model and frame size.
    #[arg(long, default_value = "small", value_parser = PRESETS)]
    model: String,
    /// One channel instead of the preset's.
    #[arg(long)]
    grey: bool,
    /// Steps per level K instead of the preset's.
    #[arg(long)]
    steps_per_level: Option<usize>,
    /// Clips per training step.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Frames of a training step, of which those after the model's past are predicted; by default one more than that.
    #[arg(long)]
    frames: Option<usize>,
    /// Timed training steps; 0 for none.
    #[arg(long, default_value_t = 5)]
    train_steps: usize,
    /// Timed frames.
    #[arg(long, default_value_t = 9)]
    repeats: usize,
    /// One graph over the whole model instead of reversible back-propagation.
    #[arg(long)]
    plain: bool,
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
    let mut preset = preset(&args.model)?;
    preset.model.steps = args.steps_per_level.unwrap_or(preset.model.steps);
    let [channels, height, width] = preset.spec.event_shape();
    let spec = ImageSpec::new(if args.grey { 1 } else { channels }, height, width, 256)?;
    let store = ParamStore::new(0, DType::F32, &device);
    let model = VideoFlow::new(&preset.model, &spec, &store)?;
    let [channels, height, width] = spec.event_shape();
    let mut rng = FlowRng::seed_from(1);
    let draw = |clips: usize, frames: usize, rng: &mut FlowRng| -> Result<Tensor> {
        let shape = (clips, frames, channels, height, width);
        Ok(rng.uniform(shape, DType::F32, &device)?.affine(256.0, 0.0)?.floor()?.to_dtype(DType::U8)?)
    };
    let past = model.past();
    let frames = args.frames.unwrap_or(past + 1);
    ensure!(frames > past, "--frames {frames}: the model looks at {past}, and one must follow");
    model.initialize(&draw(1, past + 1, &mut rng)?, &mut rng)?;

    let mut gradients = Gradients::new(&store);
    let mut steps = Vec::new();
    if args.train_steps > 0 {
        let mut optimizer = Optimizer::new(OptimizerConfig::adam(1e-4), &store)?;
        let mode = if args.plain { Backprop::Plain } else { Backprop::Reversible };
        for _ in 0..args.train_steps {
            let clips = draw(args.batch, frames, &mut rng)?;
            let step = || {
                gradients.clear();
                model.backward(&clips, past, &mut rng, mode, &mut gradients)?;
                clip_global_norm(&mut gradients, Some(100.0))?;
                Ok(optimizer.step(&gradients, 1.0)?)
            };
            steps.push(timed(&device, step)?.1);
        }
    }
    let peak = memory("VmHWM");
    let mut seen = Predictor::new(&model);
    seen.observe(&draw(1, past, &mut rng)?)?;
    let mut times = (Vec::new(), Vec::new());
    let clip = draw(1, past + 1, &mut rng)?;
    for _ in 0..args.repeats {
        let (_, seconds) = timed(&device, || Ok(seen.repeat(1)?.predict(1, &[0.7], &mut rng)?))?;
        times.0.push(1e3 * seconds);
        let (_, seconds) = timed(&device, || Ok(model.bits_per_dim(&clip, &mut rng)?))?;
        times.1.push(1e3 * seconds / (past + 1) as f64);
    }
    let least = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    println!(
        "{}",
        serde_json::json!({
            "model": args.model,
            "parameters": store.parameter_count(),
            "predict_ms": median(times.0.clone()),
            "predict_ms_least": least(&times.0),
            "score_ms_per_frame": median(times.1),
            "train_step_s": if steps.is_empty() { None } else { Some(median(steps)) },
            "batch": args.batch,
            "frames": frames,
            "memory_mib": peak - idle,
        })
    );
    Ok(())
}
