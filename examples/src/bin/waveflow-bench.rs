//! Speed and memory of WaveFlow and WaveGlow on this machine, one JSON line.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use clap::Parser;
use examples::bench::{median, memory, timed};
use examples::cli::{ConvolutionsArg, DeviceArg};
use flow_audio::mel::MelConfig;
use flow_audio::model::{ModelConfig, PRESETS, Vocoder};
use flow_core::train::{Optimizer, OptimizerConfig, clip_global_norm};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore};

/// Times synthesis and a training step (optimizer and clipping included) at 22,050 Hz, on random audio; with
/// --stream-minutes also a stream
#[derive(Parser)]
struct Args {
    /// Model.
    #[arg(long, default_value = "waveflow-h16-c64", value_parser = PRESETS)]
    model: String,
    /// Seconds of audio to make; 0 for none.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Timed syntheses.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Samples of a training clip, in whole frames.
    #[arg(long, default_value_t = 16_000)]
    clip: usize,
    /// Clips per training step.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Timed training steps; 0 for none.
    #[arg(long, default_value_t = 3)]
    train_steps: usize,
    /// Keep all activations instead of computing each flow's network again.
    #[arg(long)]
    plain: bool,
    /// Minutes of audio to make piece by piece by the width-causal variant of the model; 0 for none.
    #[arg(long, default_value_t = 0.0)]
    stream_minutes: f64,
    /// Frames of a piece of the stream.
    #[arg(long, default_value_t = 16)]
    piece: usize,
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
    let (mel, config) = (MelConfig::tacotron2(), ModelConfig::preset(&args.model)?);
    let store = ParamStore::new(0, DType::F32, &device);
    let model = Vocoder::new(&store, &config)?;
    let mut rng = FlowRng::seed_from(1);
    let draw = |batch: usize, frames: usize, rng: &mut FlowRng| -> Result<(Tensor, Tensor)> {
        let audio = rng.normal((batch, frames * mel.hop), DType::F32, &device)?.affine(0.1, 0.0)?;
        Ok((audio, rng.normal((batch, mel.mels, frames), DType::F32, &device)?))
    };
    let mut steps = Vec::new();
    let (mut gradients, frames) = (Gradients::new(&store), (args.clip / mel.hop).max(1));
    let samples = args.batch * frames * mel.hop;
    let mut optimizer = Optimizer::new(OptimizerConfig::adam(2e-4), &store)?;
    let mode = if args.plain { Backprop::Plain } else { Backprop::Reversible };
    for _ in 0..args.train_steps {
        let (audio, mel) = draw(args.batch, frames, &mut rng)?;
        let weight = Tensor::full(-1.0 / samples as f32, args.batch, &device)?;
        let step = || {
            gradients.clear();
            model.log_prob_backward(&audio, &mel, &weight, mode, &mut gradients)?;
            clip_global_norm(&mut gradients, Some(5.0))?;
            Ok(optimizer.step(&gradients, 1.0)?)
        };
        steps.push(samples as f64 / timed(&device, step)?.1);
    }
    let peak = memory("VmHWM");
    let mut real_time = Vec::new();
    if args.seconds > 0.0 {
        let frames = ((args.seconds * f64::from(mel.rate) / mel.hop as f64).round() as usize).max(1);
        let (_, mel_spectrogram) = draw(1, frames, &mut rng)?;
        let synthesizer = model.synthesizer()?;
        for _ in 0..args.repeats {
            let (_, seconds) = timed(&device, || Ok(synthesizer.synthesize(&mel_spectrogram, 0.6, &mut rng)?))?;
            real_time.push(model.samples(frames) as f64 / f64::from(mel.rate) / seconds);
        }
    }
    let stream = if args.stream_minutes > 0.0 { Some(stream(&args, &mel, config.clone(), &device)?) } else { None };
    let middle = |times: Vec<f64>| if times.is_empty() { None } else { Some(median(times)) };
    println!(
        "{}",
        serde_json::json!({
            "model": args.model,
            "parameters": config.parameter_count(),
            "train_samples_per_s": middle(steps),
            "synthesis_times_real_time": middle(real_time),
            "plain": args.plain,
            "memory_mib": peak - idle,
            "stream": stream,
        })
    );
    Ok(())
}

/// Latency and memory of a stream: what is held after a tenth of it and at its end, and how long a piece takes.
fn stream(args: &Args, mel: &MelConfig, config: ModelConfig, device: &Device) -> Result<serde_json::Value> {
    let ModelConfig::WaveFlow(mut config) = config else {
        bail!("--stream-minutes: {} has no exact stream", args.model)
    };
    if args.piece == 0 {
        bail!("--piece must be at least one frame");
    }
    config.causal_width = true;
    let store = ParamStore::new(0, DType::F32, device);
    let model = Vocoder::new(&store, &config.into())?;
    let mut rng = FlowRng::seed_from(2);
    let mut stream = model.synthesizer()?.stream(0.6, FlowRng::seed_from(3))?;
    let frames = 60.0 * args.stream_minutes * f64::from(mel.rate) / mel.hop as f64;
    let pieces = ((frames / args.piece as f64).round() as usize).max(10);
    let (mut times, mut samples, mut first, mut early) = (Vec::with_capacity(pieces), 0, None, 0.0);
    let begun = Instant::now();
    for piece in 0..pieces {
        let frames = rng.normal((1, mel.mels, args.piece), DType::F32, device)?;
        let start = Instant::now();
        if let Some(made) = stream.push(&frames)? {
            samples += made.dim(1)?;
            first.get_or_insert_with(|| begun.elapsed().as_secs_f64());
        }
        times.push(1e3 * start.elapsed().as_secs_f64());
        if piece == pieces / 10 {
            early = memory("VmRSS");
        }
    }
    let (end, total) = (memory("VmRSS"), begun.elapsed().as_secs_f64());
    let second = f64::from(mel.rate);
    Ok(serde_json::json!({
        "seconds_of_audio": samples as f64 / second,
        "times_real_time": samples as f64 / second / total,
        "piece_ms_of_audio": 1e3 * (args.piece * mel.hop) as f64 / second,
        "behind_its_spectrogram_ms": 1e3 * stream.look_ahead() as f64 / second,
        "first_audio_after_ms": first.map(|seconds| 1e3 * seconds),
        "slowest_piece_ms": times.iter().copied().fold(0.0, f64::max),
        "piece_ms": median(times),
        "kept_kib": stream.kept() * size_of::<f32>() / 1024,
        "held_mib_after_a_tenth": early,
        "held_mib_at_the_end": end,
    }))
}
