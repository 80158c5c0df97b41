//! Flags and loading that several verbs share.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use candle_core::Device;
use clap::Args;
use flow_density::dlgm::{BinaryImages, Dlgm, DlgmRun, Family, Parts, Stream};
use flow_image::data::{self, Channels, Dataset, FolderOptions, OpenOptions, Splits};

use crate::cli::{CheckpointArg, Part};

/// The program's name, and that of its folder of results.
pub(super) const PROGRAM: &str = "dlgm";

/// The share of the training images that are held out for validation where the source does not say: the last ones, as is
/// usual for MNIST, 10,000 of 60,000.
const VALIDATION: usize = 6;

/// Loads a checkpoint's model with its run.
pub(super) fn load(checkpoint: &CheckpointArg, device: &Device) -> Result<(DlgmRun, Dlgm)> {
    Ok(flow_core::train::load(&checkpoint.folder(PROGRAM), device, !checkpoint.raw_weights)?)
}

/// The images of a path, made binary in the order of the source; `seed` is of the parts that the source has not itself,
/// `binarization` of the draws.
///
/// # Errors
/// What the reader says, images in colour, or too few of them.
pub fn read_images(path: &Path, seed: u64, binarization: u64) -> Result<Parts> {
    let mut options = OpenOptions::default();
    options.folder = FolderOptions::new(None, Channels::Gray);
    (options.validation, options.seed) = (0.0, seed);
    let Splits { train, validation, test } = data::open(path, &options)?;
    for note in train.notes().iter().chain(test.notes()) {
        eprintln!("note: {note}");
    }
    let [channels, height, width] = train.shape();
    ensure!(
        channels == 1,
        "{}: images have {channels} channels, the model is of grey ones; a folder of pictures is read as grey",
        path.display()
    );
    ensure!(!test.is_empty(), "{}: there is no image to test on; more of them are needed", path.display());
    let shape = [height, width];
    // Training and validation images are drawn as one set: where the second begins changes no pixel.
    let mut grey = train.images().to_vec();
    grey.extend_from_slice(validation.images());
    let drawn =
        |grey: &[u8], set: &Dataset, stream| BinaryImages::binarize(grey, set.levels(), shape, binarization, stream);
    let both = drawn(&grey, &train, Stream::Train)?;
    let kept = match validation.is_empty() {
        true => train.len() - train.len() / VALIDATION,
        false => train.len(),
    };
    let size = both.pixels();
    let (first, rest) = both.bits().split_at(kept * size);
    ensure!(!rest.is_empty(), "{}: {} images are too few to hold some out", path.display(), train.len());
    Ok(Parts {
        train: BinaryImages::from_bits(first.to_vec(), shape)?,
        validation: BinaryImages::from_bits(rest.to_vec(), shape)?,
        test: drawn(test.images(), &test, Stream::Test)?,
    })
}

/// What was read, for the first line of a training.
pub(super) fn what_was_read(path: &Path, parts: &Parts, binarization: u64) -> String {
    let ([height, width], bits) = (parts.train.shape(), parts.train.bits());
    let ones = bits.iter().map(|&bit| usize::from(bit)).sum::<usize>() as f64 / bits.len() as f64;
    format!(
        "data: {}, {} training, {} validation, {} test images of {height}x{width}; made binary with seed {binarization}, \
         {:.1} % of the pixels are ones",
        path.display(),
        parts.train.len(),
        parts.validation.len(),
        parts.test.len(),
        100.0 * ones
    )
}

/// Images to work on.
#[derive(Args, Debug)]
pub(super) struct DataArg {
    /// Images: idx files (MNIST), .npy, .npz, a folder of pictures, or "digits" (built in) [default: the run's own]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::Test)]
    split: Part,
}

impl DataArg {
    /// The images, made binary like those of the run.
    pub(super) fn images(&self, run: &DlgmRun, checkpoint: &CheckpointArg) -> Result<BinaryImages> {
        let path = self.data.clone().unwrap_or_else(|| PathBuf::from(&run.source));
        let parts = read_images(&path, run.seed, run.binarization)?;
        let found = parts.train.shape();
        ensure!(
            found == run.model.shape,
            "{}: images are {found:?}, the model is for {:?}",
            path.display(),
            run.model.shape
        );
        checkpoint.note_other_data(PROGRAM, &parts.fingerprint())?;
        let Parts { train, validation, test } = parts;
        let set = match self.split {
            Part::Train => train,
            Part::Validation => validation,
            Part::Test => test,
            Part::All => {
                let bits = [train.bits(), validation.bits(), test.bits()].concat();
                BinaryImages::from_bits(bits, found)?
            }
        };
        eprintln!("data: {} part, {} images; {}", self.split, set.len(), path.display());
        Ok(set)
    }
}

/// Family and number of maps of a name: `gaussian`, `planar-40`, `nice-10`.
pub(super) fn posterior(name: &str) -> Result<(Family, usize)> {
    const EXPECTED: &str =
        "expected gaussian, or planar, radial, sylvester, nice or iaf with a number of maps, such as planar-40";
    if name == "gaussian" {
        return Ok((Family::Planar, 0));
    }
    let Some((family, count)) = name.split_once('-') else { bail!("--model {name}: {EXPECTED}") };
    let family = Family::ALL.into_iter().find(|f| f.name() == family);
    match (family, count.parse::<usize>()) {
        (Some(family), Ok(count)) if count > 0 => Ok((family, count)),
        _ => bail!("--model {name}: {EXPECTED}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posteriors_have_names() {
        assert_eq!(posterior("gaussian").unwrap(), (Family::Planar, 0));
        assert_eq!(posterior("planar-40").unwrap(), (Family::Planar, 40));
        assert_eq!(posterior("iaf-2").unwrap(), (Family::Iaf, 2));
        for bad in ["", "planar", "planar-", "planar-0", "planar--1", "glow-3", "nice-x", "gaussian-3"] {
            assert!(posterior(bad).unwrap_err().to_string().contains("planar-40"), "{bad}");
        }
    }

    #[test]
    fn the_built_in_digits_keep_their_parts_and_their_pixels() {
        let parts = read_images(Path::new("digits"), 0, 0).unwrap();
        assert_eq!([parts.train.len(), parts.validation.len(), parts.test.len()], [1500, 97, 200]);
        // Mean brightness of the set: 4.884 of 16.
        let ones = parts.train.bits().iter().map(|&bit| f64::from(bit)).sum::<f64>() / parts.train.bits().len() as f64;
        assert!((ones - 4.884 / 16.0).abs() < 0.01, "{ones}");
        assert_ne!(parts.train, read_images(Path::new("digits"), 0, 1).unwrap().train);
        assert_eq!(parts, read_images(Path::new("digits"), 5, 0).unwrap());
    }
}
