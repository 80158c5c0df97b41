//! `glow ood`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use flow_core::FlowRng;
use flow_core::numerics::plus_minus;
use flow_image::metrics::{auroc, bits_per_image, mean_and_error};
use flow_image::model::ImageModel;
use flow_image::trainer::ImageRun;

use super::common::{DataArg, Part, images_resized_for, load, progress};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, counted};
use crate::plot::{Sample, histogram};

/// Tell two data sets apart by their likelihood under a model
#[derive(Args, Debug)]
#[command(after_help = "\
AUROC is the probability that an image of --other takes more bits/dim than one of --data: 1 is perfect, 0.5 is chance,
and below 0.5 the model prefers the other set, which flows do for simpler images (Nalisnick et al. 2019).
Pictures of another size are cropped and resampled to the model's.

Examples:
  glow ood --checkpoint runs/fashion --data fashion-mnist/ --other mnist/
  glow ood --checkpoint runs/cifar --data cifar-10-batches-bin --other photos/ --count 1000")]
pub(super) struct OodArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// The data set to tell apart from --data, in any format that --data takes
    #[arg(long, value_name = "PATH")]
    other: PathBuf,
    /// Which part of both data sets
    #[arg(long, value_enum, default_value_t = Part::Test)]
    split: Part,
    /// Largest number of images of each data set
    #[arg(long, default_value_t = 500)]
    count: usize,
    /// Picture to write
    #[arg(long, default_value = "flow-out/ood.png", value_name = "PNG")]
    out: PathBuf,
    /// Seed of the noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl OodArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        check_output(&self.out)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let (inside, outside) = (self.bits(&run, &model, &self.data.data)?, self.bits(&run, &model, &self.other)?);
        let (data, other) = (self.data.data.display(), self.other.display());
        let sample = |path: &Path, values: &[f64]| Sample { name: short(path), values: values.to_vec() };
        let samples = [sample(&self.data.data, &inside), sample(&self.other, &outside)];
        histogram(&samples, "Likelihoods under one model", "bits/dim", &self.out)?;
        let ((a, ea), (b, eb)) = (mean_and_error(&inside), mean_and_error(&outside));
        println!(
            "AUROC {:.4}; {data} {a:.4} {} bits/dim ({}), {other} {b:.4} {} ({}); {}",
            auroc(&inside, &outside),
            plus_minus(ea, 4),
            counted(inside.len(), "image"),
            plus_minus(eb, 4),
            counted(outside.len(), "image"),
            self.out.display()
        );
        Ok(())
    }

    fn bits(&self, run: &ImageRun, model: &ImageModel, path: &Path) -> Result<Vec<f64>> {
        let set = images_resized_for(run, path, self.split)?;
        let count = self.count.min(set.len());
        let bar = progress(count, &path.display().to_string());
        let mut rng = FlowRng::named(self.seed, "ood");
        let bits = bits_per_image(model, &set, count, 1, &mut rng, |done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        Ok(bits)
    }
}

/// A path that fits into a legend: its end, where it is long.
fn short(path: &Path) -> String {
    const LONGEST: usize = 48;
    let whole = path.display().to_string();
    let count = whole.chars().count();
    if count <= LONGEST {
        return whole;
    }
    std::iter::once('…').chain(whole.chars().skip(count + 1 - LONGEST)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_show_their_ends() {
        assert_eq!(short(Path::new("data/mnist")), "data/mnist");
        let long = short(Path::new(&format!("/home/somebody/{}/the-test-set", "x".repeat(80))));
        assert!(long.starts_with('…') && long.ends_with("/the-test-set") && long.chars().count() == 48, "{long}");
    }
}
