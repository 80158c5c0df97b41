//! The idx format of MNIST and its relatives, plain or gzipped.
//!
//! A file is `00 00 08 r`, then `r` dimensions as big-endian u32, then the bytes in row-major order:
//! `r = 3` for images `[N, H, W]`, `r = 1` for labels `[N]`. <http://yann.lecun.com/exdb/mnist/>

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::{Dataset, file_length};
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

/// Train and test files of a folder under their canonical names, with or without `.gz`.
///
/// `None` where the folder holds no training images; no test files mean no test set.
///
/// # Errors
/// Those of [`read`].
pub(crate) fn read_folder(folder: &Path) -> Result<Option<(Dataset, Option<Dataset>)>> {
    let part = |prefix: &str| -> Result<Option<Dataset>> {
        let Some(images) = find(folder, prefix, "images", 3) else { return Ok(None) };
        let labels = labels_beside(&images);
        read(&images, labels.as_deref()).map(Some)
    };
    let Some(train) = part("train")? else { return Ok(None) };
    let Some(test) = part("t10k")? else { return Ok(Some((train, None))) };
    // A small part may lack the highest class; both have the classes of either.
    let classes = train.class_names().len().max(test.class_names().len());
    Ok(Some((with_classes(train, classes)?, Some(with_classes(test, classes)?))))
}

/// Labelled images with `classes` numbered class names.
fn with_classes(set: Dataset, classes: usize) -> Result<Dataset> {
    match set.labels().map(<[u32]>::to_vec) {
        Some(labels) => set.with_labels(labels, numbers(classes)),
        None => Ok(set),
    }
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// The canonical files, for messages.
pub(crate) const CANONICAL: &str = "train-images-idx3-ubyte[.gz] with train-labels-idx1-ubyte[.gz]";

/// Whether [`read_folder`] finds something.
pub(crate) fn is_folder(folder: &Path) -> bool {
    find(folder, "train", "images", 3).is_some()
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
pub(crate) fn looks_like(start: &[u8]) -> bool {
    start.starts_with(&[0, 0, 8]) || is_gzip(start)
}

fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b])
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
        return Err(Error::format(
            path,
            got,
            format!("an idx header of {} {unit}", header.len()),
            "the end of the file",
        ));
    }
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
