//! Opening data: one file, a folder, or the built-in shapes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flow_core::FlowRng;
use rayon::prelude::*;

use super::splits::{self, SplitSource, Splits};
use crate::io::{self, Format, Shape};
use crate::shapes::{self, Family};
use crate::{Error, Point, Result};

/// How to read data.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Points sampled from every mesh.
    pub points_per_mesh: usize,
    /// Seed of that sampling and of random splits.
    pub seed: u64,
    /// Which shapes of an array are for what.
    pub splits: SplitSource,
    /// Fail on the first file of a folder that cannot be read instead of leaving it out.
    pub strict: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { points_per_mesh: 4096, seed: 0, splits: SplitSource::Beside, strict: false }
    }
}

/// Shapes as points, each with its name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PointSet {
    /// The points of each shape.
    pub clouds: Vec<Vec<Point>>,
    /// As many names: of files without their ending unless two differ in nothing else.
    pub names: Vec<String>,
    /// Where they come from, in words.
    pub source: String,
}

/// A data set in its parts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// For training.
    pub train: PointSet,
    /// For choosing among checkpoints.
    pub validation: PointSet,
    /// For judging.
    pub test: PointSet,
    /// Files that were left out, each with the reason.
    pub skipped: Vec<String>,
}

impl Loaded {
    /// What was found, on one line.
    pub fn summary(&self) -> String {
        let sizes =
            || [&self.train, &self.validation, &self.test].into_iter().flat_map(|s| s.clouds.iter().map(Vec::len));
        let (least, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
        let points = if least == most { format!("{least} points") } else { format!("{least} to {most} points") };
        format!(
            "{}: {} shapes for training, {} for validation, {} for test, {points} each",
            self.train.source,
            self.train.clouds.len(),
            self.validation.clouds.len(),
            self.test.clouds.len()
        )
    }
}

/// Opens a file or a folder.
///
/// A file of one cloud or mesh is a training set of one shape. An array `[S, N, 3]` is split as its `splits.json` says, or
/// at random. A folder has parts `train`, `val` (or `validation`) and `test`, or is split at random; files below are read
/// in the order of their names, meshes are sampled.
///
/// # Errors
/// Those of the readers for a single file; [`Error::File`] for a folder in which nothing can be read, and for a file of
/// splits where there is no array.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Loaded> {
    if !path.exists() {
        return Err(Error::io(path)(std::io::ErrorKind::NotFound.into()));
    }
    let array = !path.is_dir() && matches!(Format::of(path), Some(Format::Npy | Format::Npz));
    if let (SplitSource::File(splits), false) = (&options.splits, array) {
        let reason = format!("says which shapes of an array are for what, {} is none", path.display());
        return Err(Error::File { path: splits.clone(), reason });
    }
    if path.is_dir() { open_folder(path, options) } else { open_file(path, options) }
}

fn open_file(path: &Path, options: &OpenOptions) -> Result<Loaded> {
    let source = path.display().to_string();
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    match io::read(path)? {
        Shape::Set(clouds) => {
            let clouds: Vec<Vec<Point>> = clouds.into_iter().map(|c| c.points).collect();
            let names = (0..clouds.len()).map(|i| format!("{stem}-{i:05}")).collect();
            let whole = PointSet { clouds, names, source };
            let split = splits::named(path, &options.splits, whole.clouds.len())?;
            let split = split.unwrap_or_else(|| splits::random(whole.clouds.len(), options.seed));
            Ok(cut(&whole, &split))
        }
        shape => {
            let cloud = points(path, shape, options)?;
            let train = PointSet { clouds: vec![cloud], names: vec![stem], source: source.clone() };
            let empty = || PointSet { source: source.clone(), ..PointSet::default() };
            Ok(Loaded { train, validation: empty(), test: empty(), skipped: vec![] })
        }
    }
}

/// The parts of a set.
fn cut(whole: &PointSet, split: &Splits) -> Loaded {
    let part = |indices: &[usize]| PointSet {
        clouds: indices.iter().filter_map(|&i| whole.clouds.get(i).cloned()).collect(),
        names: indices.iter().filter_map(|&i| whole.names.get(i).cloned()).collect(),
        source: whole.source.clone(),
    };
    Loaded { train: part(&split.train), validation: part(&split.validation), test: part(&split.test), skipped: vec![] }
}

fn open_folder(path: &Path, options: &OpenOptions) -> Result<Loaded> {
    let part = |names: &[&str]| names.iter().map(|n| path.join(n)).find(|p| p.is_dir());
    let (train, validation, test) = (part(&["train"]), part(&["val", "validation", "valid"]), part(&["test"]));
    let mut skipped = Vec::new();
    let loaded = match train {
        Some(train) => {
            let mut read = |folder: Option<PathBuf>| match folder {
                Some(folder) => read_below(&folder, path, options, &mut skipped),
                None => Ok(PointSet { source: path.display().to_string(), ..PointSet::default() }),
            };
            Loaded { train: read(Some(train))?, validation: read(validation)?, test: read(test)?, skipped: vec![] }
        }
        None => {
            let whole = read_below(path, path, options, &mut skipped)?;
            let split = match options.splits {
                SplitSource::Whole => Splits { train: (0..whole.clouds.len()).collect(), ..Default::default() },
                _ => splits::random(whole.clouds.len(), options.seed),
            };
            cut(&whole, &split)
        }
    };
    if loaded.train.clouds.is_empty() {
        let first = skipped.first().map_or_else(String::new, |s| format!("; first fault: {s}"));
        let reason = format!("no shapes to train on: no readable ply, obj, off, xyz, npy, npz or stl file{first}");
        return Err(Error::File { path: path.to_path_buf(), reason });
    }
    Ok(Loaded { skipped, ..loaded })
}

/// The files below a folder that are named as shapes, in the order of their names. Every folder is walked once, whatever
/// links lead to it.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut walked) = (Vec::new(), BTreeSet::new());
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(next) = waiting.pop() {
        if !walked.insert(next.canonicalize().map_err(Error::io(&next))?) {
            continue;
        }
        for entry in std::fs::read_dir(&next).map_err(Error::io(&next))? {
            let path = entry.map_err(Error::io(&next))?.path();
            if path.is_dir() {
                waiting.push(path);
            } else if Format::of(&path).is_some() {
                files.push(path);
            }
        }
    }
    files.sort_by_cached_key(|file| (file.with_extension(""), file.clone()));
    Ok(files)
}

/// All shapes below a folder, in the order of their names.
fn read_below(folder: &Path, root: &Path, options: &OpenOptions, skipped: &mut Vec<String>) -> Result<PointSet> {
    let files = files_below(folder)?;
    let read: Vec<Result<Vec<Vec<Point>>>> = files
        .par_iter()
        .map(|file| match io::read(file)? {
            Shape::Set(clouds) => Ok(clouds.into_iter().map(|c| c.points).collect()),
            shape => Ok(vec![points(file, shape, options)?]),
        })
        .collect();
    let mut set = PointSet { source: root.display().to_string(), ..PointSet::default() };
    for ((index, file), outcome) in files.iter().enumerate().zip(read) {
        let path = file.strip_prefix(folder).unwrap_or(file);
        // Files of one stem lie side by side in the order of names.
        let twin = |other: Option<&PathBuf>| other.is_some_and(|o| o.with_extension("") == file.with_extension(""));
        let twins = twin(index.checked_sub(1).and_then(|i| files.get(i))) || twin(files.get(index + 1));
        let name = if twins { path.to_path_buf() } else { path.with_extension("") }.display().to_string();
        match outcome {
            Ok(clouds) => {
                let many = clouds.len() > 1;
                set.names.extend((0..clouds.len()).map(|i| if many { format!("{name}-{i:05}") } else { name.clone() }));
                set.clouds.extend(clouds);
            }
            Err(error) if options.strict => return Err(error),
            Err(error) => skipped.push(error.to_string()),
        }
    }
    Ok(set)
}

/// The points of one shape; a mesh is sampled by a generator of its own, whatever else is in the folder.
fn points(path: &Path, shape: Shape, options: &OpenOptions) -> Result<Vec<Point>> {
    match shape {
        Shape::Mesh(mesh) => {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let mut rng = FlowRng::named(options.seed, &name);
            let sampled = mesh.sample(options.points_per_mesh, &mut rng);
            sampled
                .map(|cloud| cloud.points)
                .map_err(|e| Error::File { path: path.to_path_buf(), reason: format!("cannot be sampled: {e}") })
        }
        Shape::Cloud(cloud) => Ok(cloud.points),
        Shape::Set(clouds) => Ok(clouds.into_iter().flat_map(|c| c.points).collect()),
    }
}

/// `count` procedural shapes of some families for training, a tenth as many each for validation and test.
///
/// # Errors
/// [`flow_core::Error::Config`] for no family, no shape or no points.
pub fn built_in(families: &[Family], count: usize, points: usize) -> Result<Loaded> {
    let part = |first: usize, count: usize| -> Result<PointSet> {
        let drawn = shapes::set(families, first..first + count, points)?;
        let (names, clouds) = drawn.into_iter().unzip();
        let names_of = families.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ");
        Ok(PointSet { clouds, names, source: format!("built-in shapes ({names_of})") })
    };
    let held_out = (count / 10).max(2);
    Ok(Loaded {
        train: part(0, count)?,
        validation: part(count, held_out)?,
        test: part(count + held_out, held_out)?,
        skipped: vec![],
    })
}
