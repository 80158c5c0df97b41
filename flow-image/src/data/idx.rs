//! The idx format of MNIST and its relatives, plain or gzipped.
//!
//! A file is `00 00 08 r`, then `r` dimensions as big-endian u32, then the bytes in row-major order:
//! `r = 3` for images `[N, H, W]`, `r = 1` for labels `[N]`. <http://yann.lecun.com/exdb/mnist/>

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::splits::Parts;
use super::{Dataset, file_length, foreign, numbers};
use crate::{Error, Result};

/// No deflate stream expands by more than this: <https://zlib.net/zlib_tech.html>.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Images of one file, with labels of another where given.
///
/// # Errors
/// Bytes that are not idx, sizes that contradict the length of the file, or another number of labels
/// than of images; the message names the file and the byte.
pub fn read(images: &Path, labels: Option<&Path>) -> Result<Dataset> {
    let (dims, values) = read_array::<3>(images)?;
    let [count, height, width] = dims;
    let set = Dataset::new(values, [1, height, width], 256, images.display().to_string())?;
    let Some(labels) = labels else { return Ok(set) };
    let ([label_count], label_values) = read_array::<1>(labels)?;
    if label_count != count {
        let reason = format!("{count} images but {label_count} labels");
        return Err(Error::Mismatch { first: images.into(), second: labels.into(), reason });
    }
    let classes = label_values.iter().max().map_or(0, |&m| usize::from(m) + 1);
    set.with_labels(label_values.into_iter().map(u32::from).collect(), numbers(classes))
}

/// Train and test files of a folder under their canonical names, with or without `.gz`, or with a name of the data set
/// before them: `emnist-letters-train-images-idx3-ubyte.gz`, `emnist-letters-test-images-idx3-ubyte.gz`.
///
/// `None` where the folder holds no training images; no test files mean no test set.
///
/// # Errors
/// Those of [`read`], and a folder with the training images of several sets.
pub(crate) fn read_folder(folder: &Path) -> Result<Option<Parts>> {
    let found = training_images(folder)?;
    let prefix = match &found[..] {
        [] => return Ok(None),
        // MNIST's own names come first, as they did before other names were known.
        [first, ..] if first.is_empty() => first,
        [one] => one,
        several => {
            let names: Vec<String> = several.iter().map(|prefix| format!("{prefix}train-images-idx3-ubyte")).collect();
            let reason = format!("holds several data sets; name one file of {}", names.join(", "));
            return Err(Error::config(folder.display().to_string(), reason));
        }
    };
    let part =
        |part: &str| find(folder, &format!("{prefix}{part}"), "images", 3).map(|path| upright(&path)).transpose();
    let Some(train) = part("train")? else { return Ok(None) };
    let test = match part("t10k")? {
        Some(test) => Some(test),
        None => part("test")?,
    };
    named_classes(folder, prefix, Parts { train, validation: None, test }.with_equal_classes()?).map(Some)
}

/// One file with the labels beside it; EMNIST's as [`read_folder`] reads them.
pub(crate) fn read_file(path: &Path) -> Result<Dataset> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let prefix = ["train-images", "test-images"].iter().find_map(|part| name.split_once(part)).map_or("", |(p, _)| p);
    named_classes(folder, prefix, Parts::whole(upright(path)?)).map(|parts| parts.train)
}

/// The images of one file, turned where they are EMNIST's: its files hold every image mirrored along the diagonal.
fn upright(path: &Path) -> Result<Dataset> {
    let labels = labels_beside(path);
    let set = read(path, labels.as_deref())?;
    let note = labels.is_none().then(|| format!("{}: no labels beside it, no classes are read", path.display()));
    let set = set.with_notes(note);
    let is_emnist = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("emnist-"));
    if !is_emnist {
        return Ok(set);
    }
    let [_, height, width] = set.shape();
    let turned = |image: &[u8]| -> Vec<u8> {
        (0..width).flat_map(|x| (0..height).map(move |y| y * width + x)).map(|i| image[i]).collect()
    };
    let images = set.images().chunks_exact(height * width).flat_map(turned).collect();
    let note = "EMNIST's files hold images mirrored along the diagonal; they were turned upright".to_string();
    let upright = Dataset::new(images, [1, width, height], 256, set.source())?.with_notes(set.notes().to_vec());
    let upright = upright.with_notes([note]);
    match set.labels() {
        Some(labels) => upright.with_labels(labels.to_vec(), set.class_names().to_vec()),
        None => Ok(upright),
    }
}

/// The names of EMNIST's classes where its `…-mapping.txt` is beside the images. Letters are numbered from 1; their
/// classes begin with it, so that there is no class without an image.
fn named_classes(folder: &Path, prefix: &str, parts: Parts) -> Result<Parts> {
    if !prefix.starts_with("emnist-") {
        return Ok(parts);
    }
    let all = [Some(&parts.train), parts.test.as_ref()];
    let least = all.into_iter().flatten().filter_map(Dataset::labels).flatten().min();
    let shift = u32::from(prefix == "emnist-letters-" && least.is_some_and(|&least| least > 0));
    let mapping = mapping(&folder.join(format!("{prefix}mapping.txt")))?;
    let rename = |set: Dataset| -> Result<Dataset> {
        let Some(labels) = set.labels() else { return Ok(set) };
        let labels: Vec<u32> = labels.iter().map(|label| label - shift).collect();
        let name = |number: u32| mapping.get(&number).cloned().unwrap_or_else(|| number.to_string());
        let names = (shift..set.class_names().len() as u32).map(name).collect();
        let note = (shift > 0).then(|| "EMNIST's letters are numbered from 1; class 1 is the first".to_string());
        Ok(set.with_labels(labels, names)?.with_notes(note))
    };
    Ok(Parts { train: rename(parts.train)?, validation: None, test: parts.test.map(rename).transpose()? })
}

/// Lines of a label and the codes of its characters; nothing where there is no such file.
fn mapping(path: &Path) -> Result<BTreeMap<u32, String>> {
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let text = String::from_utf8_lossy(&super::read_file(path)?).into_owned();
    let entry = |(line, text): (usize, &str)| {
        let mut numbers = text.split_whitespace().map(|word| word.parse::<u32>().ok());
        let label = numbers.next().flatten();
        let code = numbers.next().flatten().and_then(char::from_u32).filter(|c| !c.is_control());
        label.zip(code).map(|(label, code)| (label, code.to_string())).ok_or_else(|| Error::Line {
            path: path.into(),
            line: line + 1,
            expected: "a label and the code of its character".into(),
            found: text.chars().take(40).collect(),
        })
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(entry).collect()
}

/// The canonical files, for messages.
pub const CANONICAL: &str = "train-images-idx3-ubyte[.gz] with train-labels-idx1-ubyte[.gz]";

/// Whether a folder has a file of training images under its canonical name.
pub fn is_folder(folder: &Path) -> bool {
    training_images(folder).is_ok_and(|found| !found.is_empty())
}

/// What stands before `train-images…` in the names of the folder's files, in order, each once.
fn training_images(folder: &Path) -> Result<Vec<String>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name();
        let Some(name) = name.to_str() else { continue };
        let name = name.strip_suffix(".gz").unwrap_or(name);
        let ends = ["train-images-idx3-ubyte", "train-images.idx3-ubyte"];
        found.extend(ends.iter().find_map(|end| name.strip_suffix(end)).map(String::from));
    }
    Ok(found.into_iter().collect())
}

fn find(folder: &Path, prefix: &str, what: &str, rank: u8) -> Option<PathBuf> {
    let names = ['-', '.'].map(|dot| format!("{prefix}-{what}{dot}idx{rank}-ubyte"));
    let candidates = names.iter().flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))]);
    candidates.into_iter().find(|path| path.exists())
}

/// The labels file whose name corresponds to that of the images, if it exists, gzipped or not.
pub(crate) fn labels_beside(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    let candidates = [labels.clone(), format!("{labels}.gz")].map(|l| images.with_file_name(l));
    candidates.into_iter().find(|path| labels != name && path.exists())
}

/// Whether these first bytes of a file are idx or gzip.
pub fn looks_like(start: &[u8]) -> bool {
    start.starts_with(&[0, 0, 8]) || is_gzip(start)
}

fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b])
}

/// Whether a gzipped file holds a tar archive.
pub(crate) fn is_compressed_tar(path: &Path) -> Result<bool> {
    let mut start = [0; foreign::START];
    let file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    // What cannot be unpacked is no archive that could be named.
    let got = read_up_to(&mut MultiGzDecoder::new(file), &mut start).unwrap_or(0);
    Ok(foreign::is_tar(&start[..got]))
}

/// Dimensions and values of an idx file of `R` dimensions.
fn read_array<const R: usize>(path: &Path) -> Result<([usize; R], Vec<u8>)> {
    let length = file_length(path)?;
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let mut start = [0; 2];
    let known = read_up_to(&mut file, &mut start).map_err(Error::io(path))?;
    let (start, ceiling) = (&start[..known], length.saturating_mul(MAX_DEFLATE_RATIO));
    if is_gzip(start) {
        parse(path, MultiGzDecoder::new(start.chain(file)), ceiling, "decompressed bytes")
    } else {
        parse(path, start.chain(file), length, "bytes")
    }
}

/// Header and body; `ceiling` is the most that the file can hold, known before anything is allocated.
fn parse<const R: usize>(
    path: &Path,
    mut reader: impl Read,
    ceiling: u64,
    unit: &str,
) -> Result<([usize; R], Vec<u8>)> {
    let mut header = vec![0; 4 + 4 * R];
    let got = read_up_to(&mut reader, &mut header).map_err(|e| unreadable(path, 0, &e))?;
    if got < header.len() {
        foreign::refuse(path, &header[..got])?;
        return Err(Error::format(
            path,
            got,
            format!("an idx header of {} {unit}", header.len()),
            "the end of the file",
        ));
    }
    foreign::refuse(path, &header)?;
    let magic = [0, 0, 8, R as u8];
    if header[..4] != magic {
        let expected = format!("idx magic {magic:02x?} (bytes, {R} dimensions)");
        return Err(Error::format(path, 0, expected, format!("{:02x?}", &header[..4])));
    }
    let mut dims = [0; R];
    for (dim, bytes) in dims.iter_mut().zip(header[4..].chunks_exact(4)) {
        *dim = bytes.iter().fold(0, |value, &byte| value << 8 | usize::from(byte));
    }
    let size = dims.iter().try_fold(1u64, |product, &d| product.checked_mul(d as u64));
    let Some(size) = size.filter(|&size| size > 0 && size.saturating_add(header.len() as u64) <= ceiling) else {
        let expected = format!("dimensions of 1 to {ceiling} values, all that the file can hold");
        return Err(Error::format(path, 4, expected, format!("{dims:?}")));
    };
    let body = read_body(path, reader, header.len(), size, unit)?;
    Ok((dims, body))
}

/// Exactly `size` bytes; one more is as wrong as one fewer.
fn read_body(path: &Path, reader: impl Read, start: usize, size: u64, unit: &str) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let outcome = reader.take(size + 1).read_to_end(&mut body);
    outcome.map_err(|e| unreadable(path, start + body.len(), &e))?;
    if body.len() as u64 == size {
        return Ok(body);
    }
    let found = if (body.len() as u64) < size { "the end of the file" } else { "more data" };
    let position = start + body.len().min(size as usize);
    Err(Error::format(path, position, format!("{} {unit} in all", start as u64 + size), found))
}

/// A damaged gzip stream reports itself as an I/O error; say where it broke.
fn unreadable(path: &Path, position: usize, error: &std::io::Error) -> Error {
    Error::format(path, position, "readable data", error.to_string())
}

/// Fills as much of `buffer` as there is.
fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
