//! One door to every format: [`open`] looks at a path and knows what it is.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::splits::{hold_out, share};
use super::{Dataset, FolderOptions, Splits, cifar, file_length, folder, idx, npy};
use crate::{Error, Result};

/// The name of the built-in data set.
#[cfg(feature = "digits")]
const DIGITS: &str = "digits";

/// How a path becomes three parts ready for training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Size and colour of pictures in a folder.
    pub folder: FolderOptions,
    /// Zeros around the images up to a multiple of this, for the squeezes of a multi-scale model.
    pub pad: Option<usize>,
    /// Keep only the highest bits of each value.
    pub bits: Option<u32>,
    /// Fraction of the training images held out to validate on, where the source has no such part.
    pub validation: f64,
    /// Fraction of all images held out to test on, where the source has no such part.
    pub test: f64,
    /// Seed of both choices.
    pub seed: u64,
}

impl Default for OpenOptions {
    /// No change to the images; five per cent to validate on, ten to test on.
    fn default() -> Self {
        OpenOptions { folder: FolderOptions::default(), pad: None, bits: None, validation: 0.05, test: 0.1, seed: 0 }
    }
}

impl OpenOptions {
    /// The same options with these fractions held out to validate and to test on.
    #[must_use]
    pub fn with_held_out(mut self, validation: f64, test: f64) -> Self {
        (self.validation, self.test) = (validation, test);
        self
    }
}

/// The parts that a source has of its own.
struct Parts {
    train: Dataset,
    validation: Option<Dataset>,
    test: Option<Dataset>,
}

impl From<(Dataset, Option<Dataset>)> for Parts {
    fn from((train, test): (Dataset, Option<Dataset>)) -> Self {
        Parts { train, validation: None, test }
    }
}

/// Opens a data set of any known format.
///
/// - a folder with MNIST's file names, with CIFAR-10's, with `train.npy`, or with pictures (in `train`,
///   `validation` or `val`, and `test` where it has these);
/// - a single idx, `.npy` or CIFAR-10 file;
/// - the name `digits` for the built-in set (feature `digits`), unless a file has that name.
///
/// A part that the source lacks is held out by a seeded permutation, and the part's description says so.
///
/// # Errors
/// A path that is no such thing (the message lists what was looked for), any error of the format's
/// reader, or parts of different shapes.
pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Splits> {
    let path = path.as_ref();
    check_fraction("validation", options.validation)?;
    check_fraction("test", options.test)?;
    let splits = match builtin(path) {
        Some(splits) => splits?,
        None => complete(path, read(path, options)?, options)?,
    };
    splits.map(|set| {
        let set = if let Some(bits) = options.bits { set.reduce_bits(bits)? } else { set };
        if let Some(multiple) = options.pad { set.pad_to_multiple(multiple) } else { Ok(set) }
    })
}

/// Whether [`open`] looks for pictures in this folder, the only images to which [`FolderOptions`] apply.
pub fn holds_pictures(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    path.is_dir() && !idx::is_folder(path) && !cifar::is_folder(path) && !path.join("train.npy").exists()
}

fn check_fraction(name: &str, fraction: f64) -> Result<()> {
    if (0.0..1.0).contains(&fraction) {
        return Ok(());
    }
    Err(Error::config(name, format!("must be a fraction of at least 0 and below 1, got {fraction}")))
}

#[cfg(feature = "digits")]
fn builtin(path: &Path) -> Option<Result<Splits>> {
    (path == Path::new(DIGITS) && !path.exists()).then(super::builtin::digits)
}

#[cfg(not(feature = "digits"))]
fn builtin(_path: &Path) -> Option<Result<Splits>> {
    None
}

fn read(path: &Path, options: &OpenOptions) -> Result<Parts> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
    if metadata.is_dir() { read_folder(path, options) } else { read_file(path) }
}

fn read_file(path: &Path) -> Result<Parts> {
    let length = file_length(path)?;
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.take(8).read_to_end(&mut start).map_err(Error::io(path))?;
    let set = if start.starts_with(npy::MAGIC) {
        npy::read(path)?
    } else if idx::looks_like(&start) {
        idx::read(path, idx::labels_beside(path).as_deref())?
    } else if path.extension().is_some_and(|e| e == "bin") || length % cifar::RECORD as u64 == 0 {
        cifar::read(&[path.to_path_buf()])?
    } else {
        let pictures = if folder::is_picture(path) { " (for pictures, name the folder they are in)" } else { "" };
        let looked_for =
            format!("an idx file (plain or gzipped), a .npy array or a CIFAR-10 .bin by its first bytes{pictures}");
        return Err(Error::NoData { path: path.into(), looked_for });
    };
    Ok((set, None).into())
}

fn read_folder(path: &Path, options: &OpenOptions) -> Result<Parts> {
    if let Some(parts) = idx::read_folder(path)? {
        return Ok(parts.into());
    }
    if let Some(parts) = cifar::read_folder(path)? {
        return Ok(parts.into());
    }
    let part = |names: &[&str]| -> Result<Option<Dataset>> {
        let named = |suffix: &str| names.iter().map(|n| path.join(format!("{n}{suffix}"))).find(|p| p.exists());
        if let Some(array) = named(".npy") {
            return npy::read(&array).map(Some);
        }
        named("").filter(|p: &PathBuf| p.is_dir()).map(|p| folder::read(&p, &options.folder)).transpose()
    };
    if let Some(train) = part(&["train"])? {
        return Ok(Parts { train, validation: part(&["validation", "val"])?, test: part(&["test"])? });
    }
    match folder::read(path, &options.folder) {
        Err(Error::NoData { path, looked_for }) => {
            let idx = idx::CANONICAL;
            let looked_for = format!("{idx}, data_batch_*.bin with test_batch.bin, train.npy, and {looked_for} in it");
            Err(Error::NoData { path, looked_for })
        }
        other => Ok((other?, None).into()),
    }
}

/// Holds out what the source does not have, and says so.
fn complete(path: &Path, parts: Parts, options: &OpenOptions) -> Result<Splits> {
    let Parts { train, validation, test } = parts;
    for part in [&validation, &test].into_iter().flatten() {
        if let Some(reason) = difference(&train, part) {
            return Err(Error::config(path.display().to_string(), reason));
        }
    }
    let (train, test) = or_hold_out(train, test, options.test, options.seed, "test")?;
    let (train, validation) = or_hold_out(train, validation, options.validation, options.seed, "validation")?;
    Ok(Splits { train, validation, test })
}

/// Why two parts cannot belong to one data set, if they cannot.
fn difference(train: &Dataset, part: &Dataset) -> Option<String> {
    let (a, b) = (train.source(), part.source());
    if train.shape() != part.shape() {
        return Some(format!("images {:?} in {a} but {:?} in {b}", train.shape(), part.shape()));
    }
    let lacks = |x: &Dataset, y: &Dataset| x.class_names().iter().find(|name| !y.class_names().contains(name)).cloned();
    let only = |name: String, here: &str, there: &str| format!("class {name} is in {here} but not in {there}");
    let missing = lacks(train, part).map(|name| only(name, a, b));
    missing.or_else(|| lacks(part, train).map(|name| only(name, b, a)))
}

fn or_hold_out(
    train: Dataset,
    own: Option<Dataset>,
    fraction: f64,
    seed: u64,
    part: &str,
) -> Result<(Dataset, Dataset)> {
    if let Some(own) = own {
        return Ok((train, own));
    }
    let count = share(train.len(), fraction);
    let (rest, held) = hold_out(&train, count, seed, part)?;
    let source = format!("{}, {count} of {} images held out for {part} (seed {seed})", train.source(), train.len());
    Ok((rest, held.with_source(source)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};

    /// Pictures of 6x4 pixels under these names, each of another colour.
    fn pictures(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (index, name) in names.iter().enumerate() {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::from_pixel(6, 4, Rgb([index as u8 * 16, 200, 100])).save(path).unwrap();
        }
        root
    }

    #[test]
    fn named_sub_folders_are_the_parts() {
        let root =
            pictures(&["train/a/0.png", "train/b/1.png", "val/b/2.png", "val/a/2.png", "test/a/3.png", "test/b/4.png"]);
        let splits = open(root.path(), &OpenOptions::default()).unwrap();
        assert_eq!([&splits.train, &splits.validation, &splits.test].map(Dataset::len), [2, 2, 2]);
        assert_eq!(splits.test.image(1).unwrap()[0], 80);
        assert_eq!(splits.test.class_names(), ["a", "b"]);
        std::fs::remove_dir_all(root.path().join("test/b")).unwrap();
        let error = open(root.path(), &OpenOptions::default()).unwrap_err().to_string();
        assert!(error.contains("class b is in") && error.contains("but not in"), "{error}");
    }

    #[test]
    fn missing_parts_are_held_out_and_say_so() {
        let names: Vec<String> = (0..10).map(|i| format!("{i}.png")).collect();
        let root = pictures(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let options = OpenOptions { test: 0.2, validation: 0.25, seed: 7, ..OpenOptions::default() };
        let splits = open(root.path(), &options).unwrap();
        assert_eq!([&splits.train, &splits.validation, &splits.test].map(Dataset::len), [6, 2, 2]);
        assert!(
            splits.test.source().ends_with("2 of 10 images held out for test (seed 7)"),
            "{}",
            splits.test.source()
        );
        for bad in [1.0, -0.1, f64::NAN] {
            assert!(open(root.path(), &OpenOptions { test: bad, ..options }).is_err());
        }
    }

    #[test]
    fn bits_and_padding_apply_to_every_part() {
        let root = pictures(&["0.png", "1.png", "2.png"]);
        let options = OpenOptions { bits: Some(3), pad: Some(8), ..OpenOptions::default() };
        let splits = open(root.path(), &options).unwrap();
        for part in [&splits.train, &splits.validation, &splits.test] {
            assert_eq!((part.shape(), part.levels(), part.len()), ([3, 8, 8], 8, 1));
            assert!(part.images().contains(&(200 >> 5)));
        }
    }

    #[test]
    fn only_folders_without_another_format_hold_pictures() {
        let root = pictures(&["0.png"]);
        assert!(holds_pictures(root.path()));
        for path in [root.path().join("0.png"), root.path().join("missing"), "digits".into()] {
            assert!(!holds_pictures(&path), "{}", path.display());
        }
        for name in ["train.npy", "data_batch_1.bin", "train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"] {
            let file = root.path().join(name);
            std::fs::write(&file, b"").unwrap();
            assert!(!holds_pictures(root.path()), "{name}");
            std::fs::remove_file(&file).unwrap();
        }
    }

    #[cfg(feature = "digits")]
    #[test]
    fn digits_need_no_file() {
        let splits = open("digits", &OpenOptions { pad: Some(16), ..OpenOptions::default() }).unwrap();
        assert_eq!((splits.train.len(), splits.train.shape()), (1500, [1, 16, 16]));
    }
}
