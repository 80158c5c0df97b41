//! Trains a lossless codec and compares the size of what it writes with its own promise.
//!
//! `cargo run --release -p flow-image --example idf -- DATA PRESET STEPS BATCH LEARNING_RATE OUT`
//!
//! compresses the first thousand test images, reads them back, and prints bits per value.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device};
use flow_core::ParamStore;
use flow_core::train::{Bar, EmaConfig, OptimizerConfig, ScheduleConfig, TrainConfig, Trainer};
use flow_image::codec::{Idf, IdfConfig, IdfTask, bits_per_value, compress, decompress};
use flow_image::data::{OpenOptions, open};

/// Test images that are compressed.
const REPORTED: usize = 1000;
/// Images that training decisions look at.
const VALIDATED: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, preset, steps, batch, learning_rate, out] = arguments.as_slice() else {
        return Err("expected DATA PRESET STEPS BATCH LEARNING_RATE OUT".into());
    };
    let splits = open(Path::new(data), &OpenOptions::default())?;
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    // A preset by name, or a file with a configuration of its own.
    let config = match std::fs::read_to_string(preset) {
        Ok(text) => serde_json::from_str(&text)?,
        Err(_) => IdfConfig::preset(preset)?,
    };
    let model = Idf::new(&config, splits.train.shape(), splits.train.levels(), &store)?;
    eprintln!("{} parameters, {} images to learn from", store.parameter_count(), splits.train.len());
    let validation = splits.validation.subset(0..VALIDATED.min(splits.validation.len()))?;
    let task = IdfTask::new(model, splits.train, validation, batch.parse()?, None, 0)?;
    let steps = steps.parse()?;
    let settings = TrainConfig {
        steps,
        optimizer: OptimizerConfig::adam(learning_rate.parse()?),
        schedule: ScheduleConfig::cosine(50, 0.02),
        clip_norm: Some(1.0),
        ema: Some(EmaConfig { decay: 0.99 }),
        validate_every: Some((steps / 8).max(1)),
        checkpoint_every: Some((steps / 4).max(1)),
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(settings, out, task)?;
    let summary = trainer.run(&mut Bar::new())?;
    if let Some(ema) = trainer.ema() {
        ema.swap()?;
    }
    let model = trainer.into_task().into_model();
    let test = splits.test.subset(0..REPORTED.min(splits.test.len()))?;
    let began = Instant::now();
    let archive = compress(&model, test.images())?;
    let compressed = began.elapsed();
    let exact = decompress(&model, &archive)? == test.images();
    println!(
        "{data}: {:.4} bits/value on {} test images, exact {exact}; trained {:.0} s, coded {:.1} s, decoded {:.1} s",
        bits_per_value(archive.len(), test.images().len()),
        test.len(),
        summary.seconds,
        compressed.as_secs_f64(),
        (began.elapsed() - compressed).as_secs_f64(),
    );
    Ok(())
}
