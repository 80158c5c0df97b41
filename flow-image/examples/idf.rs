//! Trains a lossless codec and compares the size of what it writes with its own promise.
//!
//! `cargo run --release -p flow-image --example idf -- DATA PRESET STEPS OUT`
//!
//! compresses the first thousand test images, reads them back, and prints bits per value. PRESET may also
//! be a JSON file with a configuration of one's own.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use candle_core::Device;
use flow_core::train::{Bar, TrainConfig, Trainer};
use flow_image::codec::{IdfConfig, IdfRun, IdfTask, bits_per_value, compress, decompress, train_config};
use flow_image::data::{OpenOptions, open};

/// Test images that are compressed.
const REPORTED: usize = 1000;
/// Images that training decisions look at.
const VALIDATED: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, preset, steps, out] = arguments.as_slice() else {
        return Err("expected DATA PRESET STEPS OUT".into());
    };
    let splits = open(Path::new(data), &OpenOptions::default())?;
    let config = match std::fs::read_to_string(preset) {
        Ok(text) => serde_json::from_str(&text)?,
        Err(_) => IdfConfig::preset(preset)?,
    };
    let validation = splits.validation.subset(0..VALIDATED.min(splits.validation.len()))?;
    let task = IdfTask::new(IdfRun::new(config, &splits.train), splits.train, validation, &Device::Cpu)?;
    eprintln!("{} parameters", task.model().store().parameter_count());
    let steps: u64 = steps.parse()?;
    let every = Some((steps / 8).max(1));
    let settings = TrainConfig { validate_every: every, checkpoint_every: every, ..train_config(steps) };
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
