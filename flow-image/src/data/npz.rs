//! NumPy archives: images and labels in one file.
//!
//! | arrays | names |
//! |---|---|
//! | all images, to be split | `x`, `images`, `image`, `data`, `arr_0`, or the only array with the axes of images |
//! | parts | `x_train`, `train_images` …, `x_val`, `val_images` …, `x_test`, `test_images` … |
//! | labels | the same names with `y`, `labels`, `label`, `targets`; `arr_1` beside `arr_0` |
//!
//! Names are compared without regard to case. Labels are class numbers `[N]` or `[N, 1]`, or one-hot rows `[N, K]`.

use std::io::{Cursor, Write};
use std::path::Path;

use flow_core::files::numpy;

use super::array::{self, Array, Kind};
use super::splits::Parts;
use super::{ArrayOptions, Dataset, foreign, npy, numbers, read_file, some_of};
use crate::{Error, Result};

/// More classes than this are no classes.
const MAX_CLASSES: f64 = 65_536.0;

const WHOLE: [&str; 7] = ["x", "images", "image", "imgs", "data", "samples", "arr_0"];
const WHOLE_LABELS: [&str; 6] = ["y", "labels", "label", "targets", "target", "arr_1"];
const IMAGES: [&str; 3] = ["x", "images", "data"];
const LABELS: [&str; 4] = ["y", "labels", "label", "targets"];

/// Whether the bytes are a zip archive, as every `.npz` is.
pub fn looks_like(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04")
}

/// The first part of an archive, all its images unless it has parts.
///
/// # Errors
/// Those of [`super::open`] for such a file.
pub fn read(path: &Path, options: &ArrayOptions) -> Result<Dataset> {
    read_parts(path, options).map(|parts| parts.train)
}

pub(crate) fn read_parts(path: &Path, options: &ArrayOptions) -> Result<Parts> {
    let bytes = read_file(path)?;
    foreign::refuse_but_zip(path, &bytes)?;
    let mut archive = Archive::open(path, &bytes)?;
    let part = |archive: &mut Archive<'_>, names: &[&str], options: &ArrayOptions| -> Result<Option<Dataset>> {
        let of = |kinds: &[&str]| -> Vec<String> {
            let pairs = names.iter().flat_map(|name| kinds.iter().map(move |kind| (name, kind)));
            pairs.flat_map(|(name, kind)| [format!("{kind}_{name}"), format!("{name}_{kind}")]).collect()
        };
        archive.set(&of(&IMAGES), &of(&LABELS), options)
    };
    let parts = match part(&mut archive, &["train", "training"], options)? {
        Some(train) => {
            let same = ArrayOptions { range: train.range().unwrap_or(options.range), ..*options };
            let validation = part(&mut archive, &["val", "valid", "validation"], &same)?;
            Parts { train, validation, test: part(&mut archive, &["test", "testing"], &same)? }
        }
        None => Parts::whole(archive.whole(options)?),
    };
    let parts = parts.with_equal_classes()?;
    Ok(parts.with_note(archive.unread()))
}

/// Writes a data set's levels as `x`, bytes `[N, C, H, W]`, and its labels, if it has any, as `y`, 64-bit integers `[N]`.
///
/// # Errors
/// Names the file when it cannot be written; nothing half-written is left.
pub fn write(path: &Path, set: &Dataset) -> Result<()> {
    let shape: Vec<u64> = std::iter::once(set.len()).chain(set.shape()).map(|n| n as u64).collect();
    let mut members = vec![("x.npy", npy::encode(&shape, set.images()).map_err(Error::io(path))?)];
    if let Some(labels) = set.labels() {
        let labels: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
        members.push(("y.npy", npy::encode(&[labels.len() as u64], &labels).map_err(Error::io(path))?));
    }
    let mut bytes = Cursor::new(Vec::new());
    let mut zip = zip::ZipWriter::new(&mut bytes);
    for (name, member) in members {
        let options = zip::write::SimpleFileOptions::default().large_file(member.len() > u32::MAX as usize);
        let written = zip.start_file(name, options).map_err(std::io::Error::from).and_then(|()| zip.write_all(&member));
        written.map_err(Error::io(path))?;
    }
    zip.finish().map_err(std::io::Error::from).map_err(Error::io(path))?;
    Ok(flow_core::files::atomic_write(path, &bytes.into_inner())?)
}

/// An archive with the names of its members.
pub struct Archive<'a> {
    path: &'a Path,
    zip: zip::ZipArchive<Cursor<&'a [u8]>>,
    /// Bytes in the file: what bounds the memory that a member may ask for.
    length: usize,
    /// Members without `.npy`, and whether they have been used.
    names: Vec<(String, bool)>,
}

impl<'a> Archive<'a> {
    /// The archive in the bytes of a file, which `path` names in messages.
    ///
    /// # Errors
    /// No archive, or one without arrays.
    pub fn open(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let broken = |e: zip::result::ZipError| Error::format(path, 0, "a zip archive of arrays", e.to_string());
        let zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
        let odd = |found: String| Error::format(path, 0, "members whose names have no control characters", found);
        let name = |name| numpy::member_name(name).map(|name| (name.to_string(), false)).map_err(odd);
        let names = zip.file_names().map(name).collect::<Result<Vec<_>>>()?;
        if !zip.file_names().any(|name| name.ends_with(".npy")) {
            return foreign::refuse(path, bytes).and_then(|()| Err(Error::format(path, 0, "arrays", "none")));
        }
        Ok(Archive { path, zip, length: bytes.len(), names })
    }

    /// Names of the members, without `.npy`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| name.as_str())
    }

    /// The first member of one of these names, in any case.
    pub fn find(&self, wanted: &[impl AsRef<str>]) -> Option<usize> {
        let is = |name: &str, wanted: &str| name.eq_ignore_ascii_case(wanted);
        wanted.iter().find_map(|wanted| self.names.iter().position(|(name, _)| is(name, wanted.as_ref())))
    }

    /// The array of a member, under the path that messages show.
    ///
    /// # Errors
    /// No such member, one that cannot be unpacked or claims more than the archive can hold, or those of
    /// [`array::parse`].
    pub fn array(&mut self, index: usize) -> Result<(std::path::PathBuf, Array)> {
        let Some((name, used)) = self.names.get_mut(index) else {
            return Err(Error::format(self.path, 0, "an array", "none"));
        };
        *used = true;
        let at = self.path.join(format!("{name}.npy"));
        let broken = |e: String| Error::format(&at, 0, "a readable member", e);
        let member = format!("{name}.npy");
        let file = self.zip.by_name(&member).map_err(|e| broken(e.to_string()))?;
        let bytes = numpy::unfold(file, self.length).map_err(|e| broken(e.to_string()))?;
        let array = array::parse(&at, &bytes)?;
        Ok((at, array))
    }

    /// The images under one of `names`, with their labels if there are any.
    fn set(
        &mut self,
        names: &[impl AsRef<str>],
        labels: &[impl AsRef<str>],
        options: &ArrayOptions,
    ) -> Result<Option<Dataset>> {
        let Some(images) = self.find(names) else { return Ok(None) };
        let labels = self.find(labels);
        self.labelled(images, labels, options).map(Some)
    }

    fn labelled(&mut self, images: usize, labels: Option<usize>, options: &ArrayOptions) -> Result<Dataset> {
        let (at, array) = self.array(images)?;
        let set = npy::images(&at, &array, options)?;
        let Some(labels) = labels else { return Ok(set) };
        let (labels_at, labels) = self.array(labels)?;
        if labels.shape().first() != Some(&set.len()) {
            let reason = format!("{} images but labels of shape {:?}", set.len(), labels.shape());
            return Err(Error::Mismatch { first: at, second: labels_at, reason });
        }
        match class_numbers(&labels_at, &labels)? {
            Ok(labels) => {
                let classes = labels.iter().max().map_or(0, |&most| most as usize + 1);
                set.with_labels(labels, numbers(classes))
            }
            Err(why) => Ok(set.with_notes([format!("{}: {why}: no classes are read", labels_at.display())])),
        }
    }

    /// The images of an archive without parts.
    fn whole(&mut self, options: &ArrayOptions) -> Result<Dataset> {
        if let Some(set) = self.set(&WHOLE, &WHOLE_LABELS, options)? {
            return Ok(set);
        }
        let mut candidates = Vec::new();
        for index in 0..self.names.len() {
            let is_array = self.zip.file_names().nth(index).is_some_and(|name| name.ends_with(".npy"));
            if is_array && matches!(self.array(index)?.1.shape().len(), 3 | 4) {
                candidates.push(index);
            }
            self.names[index].1 = false;
        }
        match candidates[..] {
            [one] => {
                let labels = self.find(&WHOLE_LABELS);
                self.labelled(one, labels, options)
            }
            _ => {
                let names: Vec<&str> = self.names.iter().map(|(name, _)| name.as_str()).collect();
                let expected =
                    "images under x or images, or x_train and x_test, or one array [N, H, W] or [N, C, H, W]";
                Err(Error::format(self.path, 0, expected, format!("the arrays {}", names.join(", "))))
            }
        }
    }

    /// A word about members that nobody asked for.
    pub fn unread(&self) -> Option<String> {
        let left: Vec<&str> = self.names.iter().filter(|(_, used)| !used).map(|(name, _)| name.as_str()).collect();
        (!left.is_empty()).then(|| format!("{}: not read: {}", self.path.display(), some_of(&left)))
    }
}

/// Class numbers of `[N]`, `[N, 1]` or one-hot rows; the inner error says why labels are no class numbers.
fn class_numbers(path: &Path, array: &Array) -> Result<std::result::Result<Vec<u32>, String>> {
    let columns = match *array.shape() {
        [_] | [_, 1] => 1,
        [_, columns] => columns,
        _ => return Ok(Err(format!("labels of shape {:?} are no class numbers", array.shape()))),
    };
    let values: Vec<f64> = array.values().collect();
    if columns > 1 {
        let class = |row: &[f64]| {
            let one = row.iter().position(|&v| v == 1.0)?;
            (row.iter().filter(|&&v| v != 0.0).count() == 1).then_some(one as u32)
        };
        let rows: Option<Vec<u32>> = values.chunks_exact(columns).map(class).collect();
        return Ok(rows.ok_or_else(|| format!("rows of {columns} labels are not one-hot")));
    }
    let whole = |v: &f64| v.fract() == 0.0 && (0.0..MAX_CLASSES).contains(v);
    match values.iter().position(|v| !whole(v)) {
        Some(index) if array.scalar().kind() == Kind::Float => {
            Ok(Err(format!("label {index} is {}, no class number", values[index])))
        }
        Some(index) => {
            let found = format!("{} for image {index}", values[index]);
            Err(Error::format(path, 0, "class numbers from 0", found))
        }
        None => Ok(Ok(values.iter().map(|&v| v as u32).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of these members.
    fn archive(members: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (name, bytes) in members {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        (folder, path)
    }

    /// `count` grey images of 2x3, each of its number.
    fn images(count: u8) -> Vec<u8> {
        let values: Vec<u8> = (0..count).flat_map(|v| [v + 100; 6]).collect();
        npy::encode(&[u64::from(count), 2, 3], &values).unwrap()
    }

    fn labels(values: &[i64]) -> Vec<u8> {
        npy::encode(&[values.len() as u64], values).unwrap()
    }

    fn parts(members: &[(&str, Vec<u8>)]) -> Result<Parts> {
        read_parts(&archive(members).1, &ArrayOptions::default())
    }

    #[test]
    fn images_and_labels_go_by_their_names() {
        let onehot = npy::encode(&[3, 2], &[0u8, 1, 1, 0, 0, 1]).unwrap();
        let column = npy::encode(&[3, 1], &[1u8, 0, 1]).unwrap();
        for (x, y, labels) in [
            ("x.npy", "y.npy", labels(&[1, 0, 1])),
            ("arr_0.npy", "arr_1.npy", column),
            ("X.npy", "Y.npy", onehot),
            ("faces.npy", "labels.npy", npy::encode(&[3], &[1f64, 0.0, 1.0]).unwrap()),
        ] {
            let set = parts(&[(y, labels), (x, images(3))]).unwrap().train;
            assert_eq!((set.shape(), set.len(), set.labels().unwrap()), ([1, 2, 3], 3, &[1, 0, 1][..]), "{x}");
        }
        let set = parts(&[("x.npy", images(2)), ("extra.npy", labels(&[7]))]).unwrap().train;
        assert!(set.labels().is_none() && set.notes()[0].contains("not read: extra"), "{:?}", set.notes());
    }

    #[test]
    fn parts_are_read_as_parts_with_the_same_classes() {
        let keras = parts(&[
            ("x_train.npy", images(4)),
            ("y_train.npy", labels(&[0, 1, 2, 3])),
            ("x_test.npy", images(2)),
            ("y_test.npy", labels(&[0, 1])),
        ]);
        let Parts { train, validation, test } = keras.unwrap();
        let test = test.unwrap();
        assert_eq!((train.len(), validation.is_none(), test.len(), test.class_names().len()), (4, true, 2, 4));
        let medical =
            parts(&[("train_images.npy", images(4)), ("val_images.npy", images(1)), ("test_images.npy", images(2))]);
        let Parts { train, validation, test } = medical.unwrap();
        assert_eq!((train.len(), validation.unwrap().len(), test.unwrap().len()), (4, 1, 2));
    }

    #[test]
    fn contradictions_are_named() {
        let refused = |members: &[(&str, Vec<u8>)]| parts(members).err().unwrap().to_string();
        let error = refused(&[("x.npy", images(2)), ("y.npy", labels(&[0, 1, 1]))]);
        assert!(error.contains("x.npy and ") && error.contains("2 images but labels of shape [3]"), "{error}");
        let error = refused(&[("x.npy", images(2)), ("y.npy", labels(&[0, -1]))]);
        assert!(error.contains("a.npz/y.npy") && error.contains("found -1 for image 1"), "{error}");
        let error = refused(&[("a.npy", images(2)), ("b.npy", images(2))]);
        assert!(error.contains("expected images under x") && error.contains("the arrays a, b"), "{error}");
        let error = refused(&[("notes.txt", b"hello".to_vec())]);
        assert!(error.contains("a zip archive; unpack it"), "{error}");
        let set = parts(&[("x.npy", images(1)), ("y.npy", npy::encode(&[1, 3], &[1u8, 1, 0]).unwrap())]).unwrap().train;
        assert!(set.labels().is_none() && set.notes()[0].contains("not one-hot"), "{:?}", set.notes());
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.npz");
        let set = Dataset::new((0..48).collect(), [3, 2, 4], 256, "made").unwrap();
        let set = set.with_labels(vec![1, 0], numbers(2)).unwrap();
        write(&path, &set).unwrap();
        let again = read(&path, &ArrayOptions::default()).unwrap();
        assert_eq!((again.shape(), again.images(), again.labels()), (set.shape(), set.images(), set.labels()));
    }
}
