//! One door to every format: [`open`] looks at a path and knows what it is.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::roots::{Entry, Format, format_of, nearby};
use super::splits::{Parts, hold_out, share};
use super::{
    ArrayOptions, Dataset, Duplicates, FolderOptions, Splits, cifar, cifar_python, duplicates, file_length,
    first_bytes, folder, foreign, idx, is_default, npy, npz, picture, some_of,
};
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
    /// Axes and range of arrays.
    #[serde(skip_serializing_if = "is_default")]
    pub array: ArrayOptions,
    /// Remove images that are there twice, or in two parts; they are counted otherwise.
    #[serde(skip_serializing_if = "is_default")]
    pub dedup: bool,
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
        OpenOptions {
            folder: FolderOptions::default(),
            array: ArrayOptions::default(),
            dedup: false,
            pad: None,
            bits: None,
            validation: 0.05,
            test: 0.1,
            seed: 0,
        }
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

/// Opens a data set of any known format.
///
/// - a folder with MNIST's or EMNIST's file names, with CIFAR-10's or CIFAR-100's in either form, with the arrays
///   `train.npy` or `train.npz`, or with pictures (in `train`, `validation` or `val`, and `test` where it has these);
/// - a folder as torchvision fills it, with one of these in it: `MNIST/raw`, `cifar-10-batches-py` …;
/// - a single idx, `.npy`, `.npz` or CIFAR file;
/// - the name `digits` for the built-in set (feature `digits`), unless a file has that name.
///
/// A part that the source lacks is held out by a seeded permutation, and the part's description says so. Images that are
/// in two parts are counted in the training part's notes, or removed if the options say so.
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
        None => complete(read(path, options)?, options)?,
    };
    let splits = if options.dedup {
        duplicates::dedup(splits)?
    } else {
        let note = Duplicates::of(&splits).note(&splits);
        Splits { train: splits.train.with_notes(note), ..splits }
    };
    splits.map(|set| prepared(set, options))
}

/// All images of a path, those of its own parts behind each other and nothing held out, in the order of the source.
///
/// # Errors
/// Those of [`open`].
pub fn open_all(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Dataset> {
    let path = path.as_ref();
    let sets = match builtin(path) {
        Some(splits) => {
            let Splits { train, validation, test } = splits?;
            vec![train, validation, test]
        }
        None => {
            let Parts { train, validation, test } = read(path, options)?;
            [Some(train), validation, test].into_iter().flatten().collect()
        }
    };
    let source = match &sets[..] {
        [one] => one.source().to_string(),
        [first, ..] if builtin_name(path) => first.source().to_string(),
        _ => path.display().to_string(),
    };
    prepared(Dataset::concat(sets)?.with_source(source), options)
}

/// Fewer bits and padding.
fn prepared(set: Dataset, options: &OpenOptions) -> Result<Dataset> {
    let set = if let Some(bits) = options.bits { set.reduce_bits(bits)? } else { set };
    if let Some(multiple) = options.pad { set.pad_to_multiple(multiple) } else { Ok(set) }
}

/// Whether [`open`] looks for pictures in this folder, the only images to which [`FolderOptions`] apply.
pub fn holds_pictures(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    path.is_dir()
        && match format_of(path) {
            Ok(Format::Pictures) => true,
            Ok(Format::Parts(parts)) => matches!(parts.train, Entry::Folder(_)),
            _ => false,
        }
}

/// Whether [`open`] finds NumPy arrays at this path, the only images to which [`ArrayOptions`] apply.
pub fn holds_arrays(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    if path.is_dir() {
        return match format_of(path) {
            Ok(Format::Parts(parts)) => !matches!(parts.train, Entry::Folder(_)),
            _ => false,
        };
    }
    first_bytes(path).is_ok_and(|start| start.starts_with(npy::MAGIC) || npz::looks_like(&start))
}

fn check_fraction(name: &str, fraction: f64) -> Result<()> {
    if (0.0..1.0).contains(&fraction) {
        return Ok(());
    }
    Err(Error::config(name, format!("must be a fraction of at least 0 and below 1, got {fraction}")))
}

#[cfg(feature = "digits")]
fn builtin(path: &Path) -> Option<Result<Splits>> {
    builtin_name(path).then(super::builtin::digits)
}

/// Whether a path is the name of the built-in set.
fn builtin_name(path: &Path) -> bool {
    #[cfg(feature = "digits")]
    let is = path == Path::new(DIGITS) && !path.exists();
    #[cfg(not(feature = "digits"))]
    let is = path.as_os_str().is_empty();
    is
}

#[cfg(not(feature = "digits"))]
fn builtin(_path: &Path) -> Option<Result<Splits>> {
    None
}

fn read(path: &Path, options: &OpenOptions) -> Result<Parts> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
    if metadata.is_dir() { read_folder(path, options) } else { read_file(path, options) }
}

fn read_file(path: &Path, options: &OpenOptions) -> Result<Parts> {
    const PICKLE: u8 = 0x80;
    let length = file_length(path)?;
    let start = first_bytes(path)?;
    if npz::looks_like(&start) {
        return npz::read_parts(path, &options.array);
    }
    foreign::refuse(path, &start)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let set = if start.starts_with(npy::MAGIC) {
        npy::read_with(path, &options.array)?
    } else if idx::looks_like(&start) {
        if foreign::is_archive_name(&name) || idx::is_compressed_tar(path)? {
            return Err(foreign::compressed_tar(path));
        }
        idx::read_file(path)?
    } else if start.first() == Some(&PICKLE) && name.contains("batch") {
        cifar_python::read(path)?
    } else if path.extension().is_some_and(|e| e == "bin") || length % cifar::Kind::Ten.record() as u64 == 0 {
        cifar::read_kind(&[path.to_path_buf()], cifar::Kind::of_file(path, length))?
    } else {
        let pictures = if picture::is_picture(path) { " (for pictures, name the folder they are in)" } else { "" };
        let looked_for = format!(
            "an idx file (plain or gzipped), a .npy or .npz array or a CIFAR .bin by its first bytes{pictures}"
        );
        return Err(Error::NoData { path: path.into(), looked_for });
    };
    Ok(Parts::whole(set))
}

fn read_folder(path: &Path, options: &OpenOptions) -> Result<Parts> {
    let found = match format_of(path)? {
        Format::Root(inner) => return read_folder(&inner, options),
        Format::Idx => idx::read_folder(path)?,
        Format::Cifar => cifar::read_folder(path)?,
        Format::CifarPython => cifar_python::read_folder(path)?,
        Format::Parts(entries) => {
            let train = read_entry(&entries.train, options)?;
            // Floats of all parts mean the same.
            let mut same = *options;
            same.array.range = train.range().unwrap_or(options.array.range);
            let other = |entry: &Option<Entry>| entry.as_ref().map(|entry| read_entry(entry, &same)).transpose();
            let parts = Parts { train, validation: other(&entries.validation)?, test: other(&entries.test)? };
            let beside = (!entries.beside.is_empty())
                .then(|| format!("{}: beside its parts, not read: {}", path.display(), some_of(&entries.beside)));
            let is_folder = matches!(entries.train, Entry::Folder(_));
            Some(if is_folder { parts } else { parts.with_equal_classes()? }.with_note(beside))
        }
        Format::Pictures => None,
    };
    if let Some(parts) = found {
        return Ok(parts);
    }
    match folder::read(path, &options.folder) {
        Err(Error::NoData { path, looked_for }) => {
            let idx = idx::CANONICAL;
            let looked_for = format!(
                "{idx}, data_batch_*.bin with test_batch.bin, train.npy or train.npz, and {looked_for} in it{}",
                nearby(&path)
            );
            Err(Error::NoData { path, looked_for })
        }
        other => Ok(Parts::whole(other?)),
    }
}

/// One part; names of pictures begin with its folder, so that those of all parts differ.
fn read_entry(entry: &Entry, options: &OpenOptions) -> Result<Dataset> {
    match entry {
        Entry::Npy(path) => npy::read_with(path, &options.array),
        Entry::Npz(path) => npz::read(path, &options.array),
        Entry::Folder(path) => {
            let set = folder::read(path, &options.folder)?;
            let part = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let names = set.names().unwrap_or_default().iter().map(|name| format!("{part}/{name}")).collect();
            set.with_names(names)
        }
    }
}

/// Holds out what the source does not have, and says so.
fn complete(parts: Parts, options: &OpenOptions) -> Result<Splits> {
    let Parts { train, validation, test } = parts;
    for part in [&validation, &test].into_iter().flatten() {
        if let Some(reason) = difference(&train, part) {
            return Err(Error::config(train.source(), reason));
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
