//! `glow compress` and `glow decompress`, and training of the codec they need.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use clap::Args;
use flow_core::train::TrainConfig;
use flow_image::codec::{self, Idf, IdfRun, IdfTask, bits_per_value};
use flow_image::data::{Channels, Dataset, OpenOptions, Splits, npy};
use flow_image::io::{Pixels, write_images, write_named_images};

use super::common::{DataArg, Part, load_codec};
use super::sheet::check_drawable;
use crate::cli::{counted, create_parent, refuse};
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
The archive keeps the names of pictures with their folders, and decompress restores them as PNG files.
A codec is trained first:
  glow train --model idf-fashion --data fashion-mnist/ --steps 1500 --out runs/codec
  glow compress --checkpoint runs/codec --data fashion-mnist/ --split test --out test.flow
  glow decompress --checkpoint runs/codec --archive test.flow --out test.npy --verify fashion-mnist/ --split test")]
pub(super) struct CompressArgs {
    #[command(flatten)]
    codec: CodecArg,
    #[command(flatten)]
    data: DataArg,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::All)]
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
        let (_, model) = load_codec(&self.codec.checkpoint, true)?;
        let images = images_for(&model, &self.data.data, self.split, self.count)?;
        create_parent(&self.out)?;
        let names = images.names().map(unique_names);
        let bytes = codec::write_named_archive(&model, images.images(), names.as_deref(), &self.out)?;
        println!(
            "{} images{}, {} -> {bytes} bytes, {:.4} bits/value; {}",
            images.len(),
            if names.is_some() { " with their names" } else { "" },
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
    /// Where the images go: a .npy file of bytes [N, C, H, W], or a folder for PNG files [default: flow-out/images.npy, the folder flow-out/images where the archive has names]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Compare the result, byte by byte, with the first images of this data set
    #[arg(long, value_name = "PATH")]
    verify: Option<PathBuf>,
    /// Which part of the data to compare with [default: all]
    #[arg(long, value_enum)]
    split: Option<Part>,
}

impl DecompressArgs {
    pub(super) fn run(self) -> Result<()> {
        let unread = self.split.is_some() && self.verify.is_none();
        refuse(&[("--split", unread)], "the part of the data to compare with; give --verify PATH, or leave it out")?;
        let (run, model) = load_codec(&self.codec.checkpoint, true)?;
        let codec::Restored { images, names, .. } = codec::restore_archive(&model, &self.archive)?;
        let set = Dataset::new(images, model.shape(), model.levels(), run.source)?;
        let place = if names.is_some() { "flow-out/images" } else { "flow-out/images.npy" };
        let out = self.out.clone().unwrap_or_else(|| place.into());
        if let Some(path) = &self.verify {
            let original = images_for(&model, path, self.split.unwrap_or(Part::All), Some(set.len()))?;
            ensure!(
                original.images() == set.images(),
                "{}: the restored images differ from {}",
                self.archive.display(),
                path.display()
            );
        }
        create_parent(&out)?;
        if out.extension().is_some_and(|e| e == "npy") {
            npy::write(&out, &set)?;
            if names.is_some() {
                eprintln!("note: an array has no place for the names in the archive; a folder as --out restores them");
            }
        } else {
            write_folder(&out, &set, names.as_deref())?;
        }
        let verified = if self.verify.is_some() { ", identical to the originals" } else { "" };
        println!("{} restored to {}{verified}", counted(set.len(), "image"), out.display());
        Ok(())
    }
}

/// Writes images as PNG files, under the names that they had or numbered.
fn write_folder(out: &Path, set: &Dataset, names: Option<&[String]>) -> Result<()> {
    check_drawable(set.shape()[0], out)?;
    if set.levels() != 256 {
        eprintln!("note: PNG files hold {} levels stretched to 0..255; .npy keeps them", set.levels());
    }
    crate::cli::create_folder(out)?;
    let pixels = Pixels::from_dataset(set, &(0..set.len()).collect::<Vec<_>>())?;
    let Some(names) = names else {
        write_images(out, "image", &pixels)?;
        return Ok(());
    };
    let files = png_names(names);
    let renamed = names.iter().zip(&files).filter(|(name, file)| name != file).count();
    if renamed > 0 {
        eprintln!(
            "note: {renamed} of {} pictures were not PNG files and are now; their names end in .png",
            names.len()
        );
    }
    write_named_images(out, &files, &pixels)?;
    Ok(())
}

/// Names that end in `.png`: in place of another ending, or behind it where two files would have one name.
fn png_names(names: &[String]) -> Vec<String> {
    let is_png = |name: &str| name.to_lowercase().ends_with(".png");
    let mut taken: BTreeSet<String> = names.iter().filter(|name| is_png(name)).cloned().collect();
    let png = |name: &String| {
        if is_png(name) {
            return name.clone();
        }
        let (folder, file) = name.rsplit_once('/').map_or(("", name.as_str()), |(folder, file)| (folder, file));
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| if stem.is_empty() { file } else { stem });
        let separator = if folder.is_empty() { "" } else { "/" };
        let mut wanted = format!("{folder}{separator}{stem}.png");
        if taken.contains(&wanted) {
            wanted = format!("{name}.png");
        }
        while !taken.insert(wanted.clone()) {
            wanted += ".png";
        }
        wanted
    };
    names.iter().map(png).collect()
}

/// Names of which none is there twice: bytes that are no UTF-8 may have made two alike.
fn unique_names(names: &[String]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let unique = |name: &String| {
        let mut wanted = name.clone();
        while !taken.insert(wanted.clone()) {
            wanted += "~";
        }
        wanted
    };
    names.iter().map(unique).collect()
}

/// Images of the codec's
fn images_for(model: &Idf, path: &Path, part: Part, count: Option<usize>) -> Result<Dataset> {
    let mut options = OpenOptions::default();
    if model.shape()[0] == 3 {
        // Pictures without colour are coded as what they are, three equal channels.
        options.folder.channels = Channels::Rgb;
    }
    let set = part.read(path, &options)?;
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
    let data = super::train::what_was_read(&splits);
    let batch = run.batch;
    let task = IdfTask::new(run, splits.train, validation, &engine.device()?)?;
    let parameters = task.model().store().parameter_count();
    let place = engine.place(out)?;
    let config = engine.config(&place, STEPS, |steps| {
        let every = Some(EVERY.min(steps));
        TrainConfig { validate_every: every, checkpoint_every: every, ..codec::train_config(steps) }
    })?;
    let steps = config.steps;
    let Trained { summary, report, .. } = training::train(config, place, task, || {
        eprintln!("{data}");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn restored_pictures_have_names_of_their_own() {
        let given = ["a/é.png", "a/b.jpg", "a/b.png", "c.tar.bmp", "d", "B.PNG", ".hid", "x/y.jpg", "x/y.bmp"];
        let expected =
            ["a/é.png", "a/b.jpg.png", "a/b.png", "c.tar.png", "d.png", "B.PNG", ".hid.png", "x/y.png", "x/y.bmp.png"];
        assert_eq!(png_names(&names(&given)), names(&expected));
        assert_eq!(unique_names(&names(&["a", "b", "a", "a"])), names(&["a", "b", "a~", "a~~"]));
    }
}
