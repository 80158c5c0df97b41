//! `glow edit`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use candle_core::Tensor;
use clap::Args;
use flow_core::density::Latents;
use flow_image::data::Dataset;
use flow_image::model::ImageModel;
use flow_image::trainer::ImageRun;

use super::common::{DataArg, Part, class_number, load, progress, splits_for};
use super::latents::{LatentFile, combine, count, decode_images, encode_images};
use super::sheet::{Names, Sheet, check_drawable};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, refuse};

/// Change an attribute of images by moving along a direction in latent space
#[derive(Args, Debug)]
#[command(after_help = "\
The direction is the mean latent of the training images that have the attribute minus that of those that have not
(Kingma & Dhariwal 2018, section 5.1); strength 0 is the image itself, 1 the whole difference.

Examples:
  glow edit --class-a 8 --class-b 3                                    from threes towards eights
  glow edit --data faces/ --attribute smiling --strength=-2..2 --save-vector smile.safetensors
  glow edit --data faces/ --vector smile.safetensors --out smiles.png")]
pub(super) struct EditArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// A column of the labels.csv beside the pictures
    #[arg(long, value_name = "NAME", group = "direction")]
    attribute: Option<String>,
    /// Class to move towards, by number or name
    #[arg(long, value_name = "CLASS", requires = "class_b", group = "direction")]
    class_a: Option<String>,
    /// Class to move away from; its images are the ones that are edited
    #[arg(long, value_name = "CLASS", requires = "class_a")]
    class_b: Option<String>,
    /// Direction from a file that --save-vector wrote
    #[arg(long, value_name = "FILE", group = "direction")]
    vector: Option<PathBuf>,
    /// Also write the direction to this file
    #[arg(long, value_name = "FILE", conflicts_with = "vector")]
    save_vector: Option<PathBuf>,
    /// First and last strength: how many times the direction is added to an image's latent
    #[arg(long, default_value = "-1..1", value_parser = parse_range, allow_hyphen_values = true, value_name = "A..B")]
    strength: (f64, f64),
    /// Images per row, one for each strength
    #[arg(long, default_value_t = 7)]
    steps: usize,
    /// Number of images to edit, from the first of --split; each becomes a row of the picture
    #[arg(long, default_value_t = 8)]
    count: usize,
    /// Which part of the data is edited
    #[arg(long, value_enum, default_value_t = Part::Test)]
    split: Part,
    /// Largest number of training images, with the attribute and without, that give the direction [default: 2000]
    #[arg(long, value_name = "N")]
    examples: Option<usize>,
    /// Picture to write, or an array: .npy, .npz
    #[arg(long, default_value = "flow-out/edit.png", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArg,
}

/// `A..B`, two finite numbers.
fn parse_range(text: &str) -> Result<(f64, f64), String> {
    let number = |t: &str| t.trim().parse::<f64>().ok().filter(|v| v.is_finite());
    let ends = text.split_once("..").and_then(|(a, b)| Some((number(a)?, number(b)?)));
    ends.ok_or_else(|| "expected two numbers, such as -1..1".to_string())
}

/// Indices of the images on either side of an attribute.
struct Sides {
    with: Vec<usize>,
    without: Vec<usize>,
}

impl EditArgs {
    pub(super) fn run(self) -> Result<()> {
        for (flag, value) in [("--steps", self.steps), ("--count", self.count), ("--examples", self.examples())] {
            at_least_one(flag, value)?;
        }
        let unread = self.examples.is_some() && self.vector.is_some();
        refuse(&[("--examples", unread)], "--vector is a direction computed before; leave one of them out")?;
        check_output(&self.out)?;
        self.save_vector.as_deref().map_or(Ok(()), check_output)?;
        if self.attribute.is_none() && self.class_a.is_none() && self.vector.is_none() {
            bail!("which direction? give --attribute NAME, --class-a A --class-b B or --vector FILE");
        }
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        check_drawable(run.spec.channels, &self.out)?;
        let splits = splits_for(&run, &self.data.data)?;
        let (direction, words) = self.direction(&run, &model, &splits.train)?;
        let set = self.split.of(splits)?;
        let indices = self.edited(&run, &set)?;
        let images = self.sweep(&model, &set, &indices, &direction)?;
        let names =
            Names { rows: row_names(&run, &set, &indices), columns: self.strengths().map(two_digits).collect() };
        let sheet = Sheet { images: &images, levels: run.spec.levels, columns: self.steps, names, labels: None };
        let place = sheet.write(&self.out)?;
        if let Some(path) = &self.save_vector {
            LatentFile { latents: direction, labels: None, source: words.clone() }.write(path, &model)?;
        }
        let (from, to) = self.strength;
        println!("{words}: {} images at {} strengths {from}..{to} in {place}", indices.len(), self.steps);
        Ok(())
    }

    fn examples(&self) -> usize {
        self.examples.unwrap_or(2000)
    }

    /// The difference of the means, `(1, …)` at every level, and what it is in words.
    fn direction(&self, run: &ImageRun, model: &ImageModel, train: &Dataset) -> Result<(Latents, String)> {
        if let Some(path) = &self.vector {
            let file = LatentFile::read(path, model)?;
            if count(&file.latents)? != 1 {
                bail!("{}: expected one direction, found {} latents", path.display(), count(&file.latents)?);
            }
            return Ok((file.latents, file.source));
        }
        let (sides, name) = self.sides(run, train)?;
        let Sides { with, without } = sides;
        for (side, images) in [("with", &with), ("without", &without)] {
            if images.is_empty() {
                bail!("{}: no image {side} {name} among {} training images", train.source(), train.len());
            }
        }
        let bar = progress(with.len() + without.len(), "direction");
        let mean = |indices: &[usize]| -> Result<Latents> {
            let Latents(levels) = encode_images(model, train, indices, &bar)?;
            Ok(Latents(levels.iter().map(mean_row).collect::<candle_core::Result<_>>()?))
        };
        let direction = combine(&mean(&with)?, &mean(&without)?, |a, b| a - b)?;
        bar.finish_and_clear();
        Ok((direction, format!("{name} ({} images against {})", with.len(), without.len())))
    }

    /// Training images with and without the attribute, at most [`EditArgs::examples`] of each.
    fn sides(&self, run: &ImageRun, train: &Dataset) -> Result<(Sides, String)> {
        let pick = |f: &dyn Fn(usize) -> bool| (0..train.len()).filter(|&i| f(i)).take(self.examples()).collect();
        if let Some(name) = &self.attribute {
            let Some(attributes) = train.attributes() else {
                bail!("{}: has no attributes; expected a labels.csv beside the pictures", train.source());
            };
            let column = attributes.column(name)?;
            let has = |i: usize, wanted: bool| column.get(i) == Some(&Some(wanted));
            let sides = Sides { with: pick(&|i| has(i, true)), without: pick(&|i| has(i, false)) };
            return Ok((sides, name.clone()));
        }
        let (a, b) = (self.class_a.as_deref().unwrap_or_default(), self.class_b.as_deref().unwrap_or_default());
        let Some(labels) = train.labels() else {
            bail!("{}: has no class labels, which --class-a and --class-b need", train.source());
        };
        let (with, without) = (class_number(run, "--class-a", a)?, class_number(run, "--class-b", b)?);
        let of = |class: u32| pick(&|i| labels.get(i) == Some(&class));
        Ok((Sides { with: of(with), without: of(without) }, format!("class {a} from class {b}")))
    }

    /// The images to edit: the first of the class that is left, or the first of all.
    fn edited(&self, run: &ImageRun, set: &Dataset) -> Result<Vec<usize>> {
        let class = self.class_b.as_deref().map(|b| class_number(run, "--class-b", b)).transpose()?;
        let labels = set.labels();
        let wanted = |i: &usize| class.is_none_or(|class| labels.and_then(|l| l.get(*i)) == Some(&class));
        let indices: Vec<usize> = (0..set.len()).filter(wanted).take(self.count).collect();
        if indices.is_empty() {
            bail!("{}: no image of that class to edit", set.source());
        }
        Ok(indices)
    }

    /// The strength of each column.
    fn strengths(&self) -> impl Iterator<Item = f64> + use<> {
        let ((from, to), last) = (self.strength, (self.steps - 1).max(1) as f64);
        (0..self.steps).map(move |step| from + step as f64 / last * (to - from))
    }

    /// `z + strength · direction` for every image and strength, a row per image.
    fn sweep(&self, model: &ImageModel, set: &Dataset, indices: &[usize], direction: &Latents) -> Result<Tensor> {
        let bar = progress(indices.len() * (self.steps + 1), "editing");
        let latents = encode_images(model, set, indices, &bar)?;
        let labels = set.labels_of(indices);
        let column = |strength: f64| -> Result<Tensor> {
            let moved = combine(&latents, direction, |z, v| z.broadcast_add(&v.affine(strength, 0.0)?))?;
            decode_images(model, &moved, labels.as_deref(), &bar)
        };
        let columns = self.strengths().map(column).collect::<Result<Vec<_>>>()?;
        bar.finish_and_clear();
        Ok(Tensor::stack(&columns, 1)?.flatten(0, 1)?)
    }
}

/// What stands beside the rows: the images' places, and their classes where there are some.
fn row_names(run: &ImageRun, set: &Dataset, indices: &[usize]) -> Vec<String> {
    let class = |index: usize| set.labels().and_then(|labels| labels.get(index)).map(|&label| run.class_name(label));
    let name = |&index: &usize| class(index).map_or_else(|| index.to_string(), |class| format!("{class} ({index})"));
    indices.iter().map(name).collect()
}

/// A strength as the head of its column.
fn two_digits(strength: f64) -> String {
    // Zero is written without the sign that rounding may leave.
    let rounded = (strength * 100.0).round() / 100.0 + 0.0;
    rounded.to_string()
}

/// The mean over the batch, `(1, …)`.
///
/// Over the last dimension of the transposed rows, where Candle's sums are exact.
fn mean_row(z: &Tensor) -> candle_core::Result<Tensor> {
    let mut dims = z.dims().to_vec();
    let rows = z.flatten_from(1)?.t()?.contiguous()?;
    if let Some(batch) = dims.first_mut() {
        *batch = 1;
    }
    rows.mean(1)?.reshape(dims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_finite_numbers() {
        assert_eq!(parse_range("-1..1").unwrap(), (-1.0, 1.0));
        assert_eq!(parse_range("0.5 .. 2e1").unwrap(), (0.5, 20.0));
        for bad in ["", "1", "1..", "a..b", "0..inf", "nan..1"] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_mean_is_over_the_batch_alone() {
        let z = Tensor::new(&[[[1.0f32, 2.0]], [[3.0, 6.0]]], &candle_core::Device::Cpu).unwrap();
        let mean = mean_row(&z).unwrap();
        assert_eq!(mean.dims(), [1, 1, 2]);
        assert_eq!(mean.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [2.0, 4.0]);
    }
}
