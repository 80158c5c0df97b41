//! `glow sample`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use flow_core::FlowRng;
use flow_image::io::{GridStyle, Pixels, write_grid, write_images};
use flow_image::model::ImageModel;
use flow_image::trainer::{ImageRun, class_rows};

use super::common::{class_number, load};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, create_folder, refuse};

/// Draw images from a trained model
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  glow sample --temperature 0.8
  glow sample --sweep 0,0.25,0.5,0.6,0.7,0.8,0.9,1 --columns 8
  glow sample --class 3 --count 25 --out threes.png
  glow sample --count 1000 --images generated/")]
pub(super) struct SampleArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Picture to write
    #[arg(long, default_value = "flow-out/samples.png", value_name = "PNG")]
    out: PathBuf,
    /// Also write every image as a PNG of its own into this folder
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// Number of images [default: 100]
    #[arg(long)]
    count: Option<usize>,
    /// Columns of the grid
    #[arg(long, default_value_t = 10)]
    columns: usize,
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

impl SampleArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count())?;
        at_least_one("--columns", self.columns)?;
        let unread = self.count.is_some() && !self.sweep.is_empty();
        refuse(&[("--count", unread)], "--sweep draws a row of --columns images for each temperature; leave it out")?;
        check_output(&self.out)?;
        let device = self.device.open()?;
        let (run, model) = load(&self.checkpoint, &device)?;
        let pixels = if self.sweep.is_empty() { self.grid(&run, &model)? } else { self.rows(&run, &model)? };
        write_grid(&self.out, &pixels, &GridStyle::with_columns(self.columns))?;
        if let Some(folder) = &self.images {
            create_folder(folder)?;
            write_images(folder, "sample", &pixels)?;
        }
        println!("{} images in {}", pixels.count(), self.out.display());
        Ok(())
    }

    fn count(&self) -> usize {
        self.count.unwrap_or(100)
    }

    fn grid(&self, run: &ImageRun, model: &ImageModel) -> Result<Pixels> {
        let labels = self.labels(run, self.count())?;
        let mut rng = FlowRng::seed_from(self.seed);
        let samples = model.sample(self.count(), labels.as_deref(), &self.temperature, &mut rng)?;
        Ok(Pixels::from_tensor(&samples, run.spec.levels)?)
    }

    /// One row per temperature; the generator is reset, so that a column shows one noise.
    fn rows(&self, run: &ImageRun, model: &ImageModel) -> Result<Pixels> {
        let labels = self.labels(run, self.columns)?;
        let rows = self
            .sweep
            .iter()
            .map(|&t| model.sample(self.columns, labels.as_deref(), &[t], &mut FlowRng::seed_from(self.seed)));
        let rows = rows.collect::<flow_core::Result<Vec<_>>>()?;
        Ok(Pixels::from_tensor(&candle_core::Tensor::cat(&rows, 0)?, run.spec.levels)?)
    }

    fn labels(&self, run: &ImageRun, count: usize) -> Result<Option<Vec<u32>>> {
        let by_row = class_rows(run, count, self.columns);
        let Some(class) = &self.class else { return Ok(by_row) };
        if by_row.is_none() {
            bail!("--class {class}: this model is not class-conditional (train it with --class-conditional)");
        }
        Ok(Some(vec![class_number(run, "--class", class)?; count]))
    }
}
