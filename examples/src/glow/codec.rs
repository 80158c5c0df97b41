//! `glow compress` and `glow decompress`, and training of the codec they need.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use clap::Args;
use flow_core::train::TrainConfig;
use flow_image::codec::{self, Idf, IdfRun, IdfTask, bits_per_value};
use flow_image::data::{Dataset, OpenOptions, Splits, npy, open};
use flow_image::io::{Pixels, write_images};

use super::common::{DataArg, Part};
use crate::cli::{create_parent, refuse};
use crate::engine::EngineArgs;
use crate::plot::plot_log;
use crate::training::{self, Trained};

/// The trained codec to use; coding is exact arithmetic on the processor, so there is no device to choose.
#[derive(Args, Debug, Clone)]
struct CodecArg {
    /// Run folder of a codec: `glow train --model idf-…`
    #[arg(long, default_value = "flow-out/glow", value_name = "FOLDER")]
    checkpoint: PathBuf,
}

/// Write images losslessly into one archive
#[derive(Args, Debug)]
#[command(after_help = "\
A codec is trained first:
  glow train --model idf-fashion --data fashion-mnist/ --steps 1500 --out runs/codec
  glow compress --checkpoint runs/codec --data fashion-mnist/ --count 1000 --out test.flow
  glow decompress --checkpoint runs/codec --archive test.flow --out test.npy --verify fashion-mnist/")]
pub(super) struct CompressArgs {
    #[command(flatten)]
    codec: CodecArg,
    #[command(flatten)]
    data: DataArg,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::Test)]
    split: Part,
    /// Number of images, from the first [default: all]
    #[arg(long)]
    count: Option<usize>,
    /// Archive to write
    #[arg(long, default_value = "flow-out/images.flow", value_name = "FILE")]
    out: PathBuf,
}

impl CompressArgs {
    pub(super) fn run(self) -> Result<()> {
        let (_, model) = flow_core::train::load::<IdfRun>(&self.codec.checkpoint, &Device::Cpu, true)?;
        let images = images_for(&model, &self.data.data, self.split, self.count)?;
        create_parent(&self.out)?;
        let bytes = codec::write_archive(&model, images.images(), &self.out)?;
        println!(
            "{} images, {} -> {bytes} bytes, {:.4} bits/value; {}",
            images.len(),
            images.images().len(),
            bits_per_value(bytes, images.images().len()),
            self.out.display()
        );
        Ok(())
    }
}

/// Restore the images of an archive
#[derive(Args, Debug)]
pub(super) struct DecompressArgs {
    #[command(flatten)]
    codec: CodecArg,
    /// Archive to read
    #[arg(long, default_value = "flow-out/images.flow", value_name = "FILE")]
    archive: PathBuf,
    /// Where the images go: a .npy file of bytes [N, C, H, W], or a folder for PNG files
    #[arg(long, default_value = "flow-out/images.npy", value_name = "PATH")]
    out: PathBuf,
    /// Compare the result, byte by byte, with the first images of this data set
    #[arg(long, value_name = "PATH")]
    verify: Option<PathBuf>,
    /// Which part of the data to compare with [default: test]
    #[arg(long, value_enum)]
    split: Option<Part>,
}

impl DecompressArgs {
    pub(super) fn run(self) -> Result<()> {
        let unread = self.split.is_some() && self.verify.is_none();
        refuse(&[("--split", unread)], "the part of the data to compare with; give --verify PATH, or leave it out")?;
        let (run, model) = flow_core::train::load::<IdfRun>(&self.codec.checkpoint, &Device::Cpu, true)?;
        let restored = codec::read_archive(&model, &self.archive)?;
        let set = Dataset::new(restored, model.shape(), model.levels(), run.source)?;
        if let Some(path) = &self.verify {
            let original = images_for(&model, path, self.split.unwrap_or(Part::Test), Some(set.len()))?;
            ensure!(
                original.images() == set.images(),
                "{}: the restored images differ from {}",
                self.archive.display(),
                path.display()
            );
        }
        create_parent(&self.out)?;
        if self.out.extension().is_some_and(|e| e == "npy") {
            npy::write(&self.out, &set)?;
        } else {
            if set.levels() != 256 {
                eprintln!("note: PNG files hold {} levels stretched to 0..255; .npy keeps them", set.levels());
            }
            crate::cli::create_folder(&self.out)?;
            write_images(&self.out, "image", &Pixels::from_dataset(&set, &(0..set.len()).collect::<Vec<_>>())?)?;
        }
        let verified = if self.verify.is_some() { ", identical to the originals" } else { "" };
        println!("{} images restored to {}{verified}", set.len(), self.out.display());
        Ok(())
    }
}

/// Images of the codec's shape and levels.
fn images_for(model: &Idf, path: &Path, part: Part, count: Option<usize>) -> Result<Dataset> {
    let set = part.of(open(path, &OpenOptions::default())?)?;
    if set.shape() != model.shape() || set.levels() != model.levels() {
        bail!(
            "{}: images are {:?} with {} levels, the codec is for {:?} with {}",
            path.display(),
            set.shape(),
            set.levels(),
            model.shape(),
            model.levels()
        );
    }
    let count = count.unwrap_or(set.len());
    ensure!(count >= 1 && count <= set.len(), "--count {count}: {} has {} images", path.display(), set.len());
    Ok(set.subset(0..count)?)
}

/// Trains the codec of `run`; the report codes the first `reported` test images.
pub(super) fn train(
    run: IdfRun,
    splits: Splits,
    out: &Path,
    engine: &EngineArgs,
    reported: Option<usize>,
) -> Result<()> {
    const STEPS: u64 = 1500;
    const EVERY: u64 = 500;
    const VALIDATED: usize = 500;
    let validation = splits.validation.subset(0..VALIDATED.min(splits.validation.len()))?;
    let test = splits.test.subset(0..reported.unwrap_or(VALIDATED).min(splits.test.len()))?;
    let images = format!("{}: {} training images", splits.train.source(), splits.train.len());
    let batch = run.batch;
    let task = IdfTask::new(run, splits.train, validation, &engine.device()?)?;
    let parameters = task.model().store().parameter_count();
    let config = engine.config(STEPS, |steps| {
        let every = Some(EVERY.min(steps));
        TrainConfig { validate_every: every, checkpoint_every: every, ..codec::train_config(steps) }
    })?;
    let steps = config.steps;
    let Trained { summary, report, .. } = training::train(config, engine.place(out)?, task, || {
        eprintln!("{images}");
        eprintln!("codec with {parameters} parameters, batch {batch}, {steps} steps");
        Ok(())
    })?;
    plot_log(out, "bits_per_value", "bits/value")?;
    if !report {
        return Ok(());
    }
    let (_, model) = flow_core::train::load::<IdfRun>(out, &Device::Cpu, true)?;
    let archive = codec::compress(&model, test.images()).context("cannot code the test images")?;
    println!(
        "test {:.4} bits/value in an archive of {} images, {} steps in {:.0} s; {}",
        bits_per_value(archive.len(), test.images().len()),
        test.len(),
        summary.step,
        summary.seconds,
        out.display()
    );
    Ok(())
}
