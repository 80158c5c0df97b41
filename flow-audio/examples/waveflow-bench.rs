//! How fast WaveFlow makes and learns audio on this machine; random weights and audio, so only time is measured.
//!
//! ```text
//! RAYON_NUM_THREADS=2 cargo run --release -p flow-audio --example waveflow-bench -- 64 1.0 3 16128
//! ```
//! Arguments: channels, seconds of audio to make, repetitions, samples of a training clip (0: do not train). Times are the
//! least of the repetitions.

use std::time::Instant;

use flow_audio::candle_core::{DType, Device, Tensor};
use flow_audio::model::{WaveFlow, WaveFlowConfig};
use flow_core::kernels::{Panels, Start, View};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore, Result};

const RATE: f64 = 22_050.0;

fn argument<T: std::str::FromStr>(place: usize, otherwise: T) -> T {
    std::env::args().nth(place).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The least seconds of some calls.
fn least(calls: usize, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    (0..calls.max(1)).try_fold(f64::INFINITY, |least, _| {
        let start = Instant::now();
        f()?;
        Ok(least.min(start.elapsed().as_secs_f64()))
    })
}

/// Floating-point operations a second of one thread in a product that a layer of `c` channels asks for.
fn peak(c: usize) -> Result<f64> {
    let (m, k, n) = (96, 3 * c, 2 * c);
    let mut right = Panels::zeros(k, n);
    right.pack(&vec![0.5_f32; k * n]);
    let (a, mut out) = (vec![0.25_f32; (m + 2) * c], vec![0.0_f32; m * n]);
    let parts = [0, 1, 2].map(|v| View::rows(&a[v * c..], c));
    let repeats = 500;
    let time = least(9, || {
        (0..repeats).for_each(|_| right.product_of_parts(m, &parts, &mut out, Start::Zero, false));
        Ok(())
    })?;
    Ok((repeats * 2 * m * k * n) as f64 / time)
}

fn main() -> Result<()> {
    let (channels, seconds, calls, clip) = (argument(1, 64), argument(2, 1.0), argument(3, 3), argument(4, 16_128));
    let config = WaveFlowConfig::new(16, channels, 8, 8);
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let model = WaveFlow::new(&store, &config)?;
    let mut rng = FlowRng::seed_from(1);
    println!(
        "C={channels}: {} parameters, peak {:.1} GFLOP/s a thread",
        config.parameter_count(),
        peak(channels)? / 1e9
    );
    if seconds > 0.0 {
        let frames = ((seconds * RATE / config.hop() as f64).round() as usize).max(1);
        let mel = rng.normal((1, config.mels, frames), DType::F32, &Device::Cpu)?;
        let synthesizer = model.synthesizer()?;
        let time = least(calls, || synthesizer.synthesize(&mel, 1.0, &mut rng).map(drop))?;
        let made = model.samples(frames) as f64;
        println!(
            "synthesis: {time:.3} s, {:.2} kHz, {:.3} x real time at {RATE} Hz",
            made / time / 1e3,
            made / RATE / time
        );
    }
    let frames = clip / config.hop();
    if frames > 0 {
        let samples = frames * config.hop();
        let audio = rng.normal((1, samples), DType::F32, &Device::Cpu)?.affine(0.1, 0.0)?;
        let mel = rng.normal((1, config.mels, frames), DType::F32, &Device::Cpu)?;
        let weight = Tensor::full(-1.0 / samples as f32, 1, &Device::Cpu)?;
        for mode in [Backprop::Plain, Backprop::Reversible] {
            let time = least(calls, || {
                let mut gradients = Gradients::new(&store);
                model.log_prob_backward(&audio, &mel, &weight, mode, &mut gradients).map(drop)
            })?;
            println!("gradients, {mode:?}: {time:.3} s, {:.0} samples/s", samples as f64 / time);
        }
    }
    Ok(())
}
