//! `glow sample`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use candle_core::Tensor;
use clap::Args;
use flow_core::FlowRng;
use flow_image::io::{Pixels, write_images};
use flow_image::model::ImageModel;
use flow_image::trainer::{ImageRun, class_rows};

use super::common::{class_number, load, progress};
use super::sheet::{Names, Sheet, check_drawable};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, counted, create_folder, refuse};

/// Images that are drawn at once: more of them would only take more memory.
const BATCH: usize = 1000;

/// Draw images from a trained model
#[derive(Args, Debug)]
#[command(after_help = "\
The sheet has a name beside its rows and above its columns where these are classes or temperatures; a long one has
several pages. An --out that ends in .npy or .npz is an array of integer levels [N, C, H, W] (.npz: x, with classes y).

Examples:
  glow sample --temperature 0.8
  glow sample --sweep 0,0.25,0.5,0.6,0.7,0.8,0.9,1
  glow sample --class 3 --count 25 --out threes.png
  glow sample --count 50000 --out generated.npz
  glow sample --count 1000 --images generated/")]
pub(super) struct SampleArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Picture to write, or an array: .npy, .npz
    #[arg(long, default_value = "flow-out/samples.png", value_name = "FILE")]
    out: PathBuf,
    /// Also write every image as a PNG of its own into this folder
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// Number of images [default: 100]
    #[arg(long)]
    count: Option<usize>,
    /// Columns of the grid [default: 10; with --sweep a column for each class]
    #[arg(long)]
    columns: Option<usize>,
    /// Standard deviation of the latents; or one for each level, finest first, separated by commas
    #[arg(long, default_value = "0.7", value_delimiter = ',', allow_negative_numbers = true)]
    temperature: Vec<f64>,
    /// A row of the grid for each of these temperatures, with the same noise in every row
    #[arg(long, value_delimiter = ',', conflicts_with = "temperature")]
    sweep: Vec<f64>,
    /// Class of all images, by number or name (class-conditional models)
    #[arg(long)]
    class: Option<String>,
    /// Seed of the noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

/// What was drawn, with its classes and the names of rows and columns.
struct Drawn {
    images: Tensor,
    labels: Option<Vec<u32>>,
    names: Names,
}

impl SampleArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count())?;
        at_least_one("--columns", self.columns.unwrap_or(1))?;
        let unread = self.count.is_some() && !self.sweep.is_empty();
        refuse(&[("--count", unread)], "--sweep draws a row of --columns images for each temperature; leave it out")?;
        check_output(&self.out)?;
        let device = self.device.open()?;
        let (run, model) = load(&self.checkpoint, &device)?;
        check_drawable(run.spec.channels, &self.out)?;
        let columns = self.columns_for(&run);
        let Drawn { images, labels, names } =
            if self.sweep.is_empty() { self.grid(&run, &model, columns)? } else { self.rows(&run, &model, columns)? };
        let count = images.dim(0)?;
        if let Some(folder) = &self.images {
            create_folder(folder)?;
            write_images(folder, "sample", &Pixels::from_tensor(&images, run.spec.levels)?)?;
        }
        let labels = labels.map(|labels| (labels, run.class_names.clone()));
        let place = Sheet { images: &images, levels: run.spec.levels, columns, names, labels }.write(&self.out)?;
        println!("{} in {place}", counted(count, "image"));
        Ok(())
    }

    fn count(&self) -> usize {
        self.count.unwrap_or(100)
    }

    /// Columns: those that were asked for, or in a sweep one for each class.
    fn columns_for(&self, run: &ImageRun) -> usize {
        const COLUMNS: usize = 10;
        let classes = run.model.classes().filter(|_| !self.sweep.is_empty() && self.class.is_none());
        self.columns.unwrap_or_else(|| classes.map_or(COLUMNS, |classes| classes.max(1)))
    }

    fn grid(&self, run: &ImageRun, model: &ImageModel, columns: usize) -> Result<Drawn> {
        let count = self.count();
        let labels = self.labels(run, class_rows(run, count, columns))?;
        let mut rng = FlowRng::seed_from(self.seed);
        let bar = progress(count, "drawing");
        let mut parts = Vec::new();
        for start in (0..count).step_by(BATCH) {
            let end = count.min(start + BATCH);
            let labels = labels.as_ref().map(|labels| &labels[start..end]);
            parts.push(model.sample(end - start, labels, &self.temperature, &mut rng)?);
            bar.set_position(end as u64);
        }
        bar.finish_and_clear();
        let rows =
            labels.iter().flat_map(|labels| labels.iter().step_by(columns)).map(|&l| run.class_name(l)).collect();
        Ok(Drawn { images: Tensor::cat(&parts, 0)?, labels, names: Names { rows, columns: Vec::new() } })
    }

    /// One row per temperature; the generator is reset, so that a column shows one noise. The columns go through the
    /// classes.
    fn rows(&self, run: &ImageRun, model: &ImageModel, columns: usize) -> Result<Drawn> {
        let labels = self.labels(run, class_rows(run, columns, 1))?;
        let rows = self
            .sweep
            .iter()
            .map(|&t| model.sample(columns, labels.as_deref(), &[t], &mut FlowRng::seed_from(self.seed)));
        let images = Tensor::cat(&rows.collect::<flow_core::Result<Vec<_>>>()?, 0)?;
        let names = Names {
            rows: self.sweep.iter().map(ToString::to_string).collect(),
            columns: labels.iter().flatten().map(|&label| run.class_name(label)).collect(),
        };
        Ok(Drawn { images, labels: labels.map(|labels| labels.repeat(self.sweep.len())), names })
    }

    /// The classes by their places, or the one that was asked for.
    fn labels(&self, run: &ImageRun, by_place: Option<Vec<u32>>) -> Result<Option<Vec<u32>>> {
        let Some(class) = &self.class else { return Ok(by_place) };
        let Some(places) = by_place else {
            bail!("--class {class}: this model is not class-conditional (train it with --class-conditional)");
        };
        Ok(Some(vec![class_number(run, "--class", class)?; places.len()]))
    }
}
