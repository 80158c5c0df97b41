//! Opening data: one file, a folder, or the built-in shapes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flow_core::FlowRng;
use rayon::prelude::*;

use super::splits::{self, SplitSource, Splits};
use crate::cloud::{bounds, origin_of, rebase};
use crate::io::{self, Format, Found, ReadOptions, Shape};
use crate::shapes::{self, Family};
use crate::{Cloud, Error, Point, Result};

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
    /// Keep normals and colours too.
    pub attributes: bool,
    /// How to read files.
    pub read: ReadOptions,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            points_per_mesh: 4096,
            seed: 0,
            splits: SplitSource::Beside,
            strict: false,
            attributes: false,
            read: ReadOptions::default(),
        }
    }
}

/// Shapes as points, each with its name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PointSet {
    /// The points of each shape, relative to `origin`.
    pub clouds: Vec<Vec<Point>>,
    /// Normals and colours of each shape, where they were asked for; else empty.
    pub attributes: Vec<Attributes>,
    /// As many names: of files without their ending unless two differ in nothing else.
    pub names: Vec<String>,
    /// Where they come from, in words.
    pub source: String,
    /// Where coordinates are counted from: zero unless the shapes lie far from zero for their size.
    pub origin: [f64; 3],
}

/// What belongs to the points of a shape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes {
    /// One unit normal for each point.
    pub normals: Option<Vec<Point>>,
    /// One colour for each point.
    pub colors: Option<Vec<[u8; 3]>>,
}

impl PointSet {
    /// Counts all points from another origin.
    pub fn rebase(&mut self, origin: [f64; 3]) {
        self.clouds.iter_mut().for_each(|cloud| rebase(cloud, self.origin, origin));
        self.origin = origin;
    }

    /// A shape with its normals and colours, if they were kept.
    pub fn cloud(&self, index: usize) -> Option<Cloud> {
        let Attributes { normals, colors } = self.attributes.get(index).cloned().unwrap_or_default();
        Some(Cloud { points: self.clouds.get(index)?.clone(), normals, colors, origin: self.origin })
    }

    /// The shapes at these places; places beyond the end are left out.
    pub fn part(&self, indices: &[usize]) -> PointSet {
        let kept = |&i: &usize| self.attributes.get(i).cloned();
        PointSet {
            clouds: indices.iter().filter_map(|&i| self.clouds.get(i).cloned()).collect(),
            attributes: indices.iter().filter_map(kept).collect(),
            names: indices.iter().filter_map(|&i| self.names.get(i).cloned()).collect(),
            source: self.source.clone(),
            origin: self.origin,
        }
    }

    /// The names of shapes of fewer than so many points, each with its number of points.
    pub fn smaller_than(&self, points: usize) -> Vec<String> {
        let small = self.clouds.iter().zip(&self.names).filter(|(cloud, _)| cloud.len() < points);
        small.map(|(cloud, name)| format!("{name} ({})", cloud.len())).collect()
    }
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
    /// What was left out of files that were read, was rounded or was taken for granted, with the file.
    pub notes: Vec<String>,
}

impl Loaded {
    /// Counts the points of all parts from another origin.
    pub fn rebase(&mut self, origin: [f64; 3]) {
        [&mut self.train, &mut self.validation, &mut self.test].into_iter().for_each(|part| part.rebase(origin));
    }

    /// All shapes of all parts as one set.
    pub fn whole(self) -> PointSet {
        let mut all = self.train;
        for mut part in [self.validation, self.test] {
            part.rebase(all.origin);
            all.clouds.append(&mut part.clouds);
            all.attributes.append(&mut part.attributes);
            all.names.append(&mut part.names);
        }
        all
    }

    /// What was found, on one line.
    pub fn summary(&self) -> String {
        let sizes =
            || [&self.train, &self.validation, &self.test].into_iter().flat_map(|s| s.clouds.iter().map(Vec::len));
        let (least, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
        let points = if least == most { format!("{least} points") } else { format!("{least} to {most} points") };
        format!(
            "{}: {} shape{} for training, {} for validation, {} for test, {points} each",
            self.train.source,
            self.train.clouds.len(),
            if self.train.clouds.len() == 1 { "" } else { "s" },
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
    let Found { shape, notes } = io::read_with(path, &options.read)?;
    let notes = notes.into_iter().map(|note| format!("{source}: {note}")).collect();
    let several = matches!(shape, Shape::Set(_));
    let clouds = clouds_of(path, shape, options)?;
    let names = match several {
        true => (0..clouds.len()).map(|i| format!("{stem}-{i:05}")).collect(),
        false => vec![stem],
    };
    let whole = set_of(clouds, names, source, options);
    let split = match several {
        true => splits::named(path, &options.splits, whole.clouds.len())?
            .unwrap_or_else(|| splits::random(whole.clouds.len(), options.seed)),
        false => Splits { train: vec![0], ..Splits::default() },
    };
    Ok(Loaded { notes, ..cut(&whole, &split) })
}

/// Clouds about one origin.
fn set_of(clouds: Vec<Cloud>, names: Vec<String>, source: String, options: &OpenOptions) -> PointSet {
    let far = clouds.iter().any(|cloud| cloud.origin != [0.0; 3]);
    let origin = if far { origin_of(bounds(clouds.iter().flat_map(Cloud::positions))) } else { [0.0; 3] };
    let mut set = PointSet { names, source, origin, ..PointSet::default() };
    for cloud in clouds {
        let Cloud { points, normals, colors, .. } = cloud.with_origin(origin);
        set.clouds.push(points);
        if options.attributes {
            set.attributes.push(Attributes { normals, colors });
        }
    }
    set
}

/// The parts of a set.
fn cut(whole: &PointSet, split: &Splits) -> Loaded {
    Loaded {
        train: whole.part(&split.train),
        validation: whole.part(&split.validation),
        test: whole.part(&split.test),
        ..Loaded::default()
    }
}

fn open_folder(path: &Path, options: &OpenOptions) -> Result<Loaded> {
    let part = |names: &[&str]| names.iter().map(|n| path.join(n)).find(|p| p.is_dir());
    let (train, validation, test) = (part(&["train"]), part(&["val", "validation", "valid"]), part(&["test"]));
    let (mut skipped, mut notes) = (Vec::new(), Vec::new());
    let mut loaded = match train {
        Some(train) => {
            let mut read = |folder: Option<PathBuf>| match folder {
                Some(folder) => read_below(&folder, path, options, &mut skipped, &mut notes),
                None => Ok(PointSet { source: path.display().to_string(), ..PointSet::default() }),
            };
            let mut loaded = Loaded {
                train: read(Some(train))?,
                validation: read(validation)?,
                test: read(test)?,
                ..Loaded::default()
            };
            loaded.rebase(loaded.train.origin);
            loaded
        }
        None => {
            let whole = read_below(path, path, options, &mut skipped, &mut notes)?;
            let split = match options.splits {
                SplitSource::Whole => Splits { train: (0..whole.clouds.len()).collect(), ..Default::default() },
                _ => splits::random(whole.clouds.len(), options.seed),
            };
            cut(&whole, &split)
        }
    };
    if loaded.train.clouds.is_empty() {
        let first = skipped.first().map_or_else(String::new, |s| format!("; first fault: {s}"));
        let reason =
            format!("no shapes to train on: no readable ply, obj, off, stl, pcd, xyz, csv, npy or npz file{first}");
        return Err(Error::File { path: path.to_path_buf(), reason });
    }
    (loaded.skipped, loaded.notes) = (skipped, notes);
    Ok(loaded)
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
fn read_below(
    folder: &Path,
    root: &Path,
    options: &OpenOptions,
    skipped: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Result<PointSet> {
    let files = files_below(folder)?;
    let read: Vec<Result<(Vec<Cloud>, Vec<String>)>> = files
        .par_iter()
        .map(|file| {
            let Found { shape, notes } = io::read_with(file, &options.read)?;
            Ok((clouds_of(file, shape, options)?, notes))
        })
        .collect();
    let (mut all, mut names) = (Vec::new(), Vec::new());
    for ((index, file), outcome) in files.iter().enumerate().zip(read) {
        let path = file.strip_prefix(folder).unwrap_or(file);
        // Files of one stem lie side by side in the order of names.
        let twin = |other: Option<&PathBuf>| other.is_some_and(|o| o.with_extension("") == file.with_extension(""));
        let twins = twin(index.checked_sub(1).and_then(|i| files.get(i))) || twin(files.get(index + 1));
        let name = if twins { path.to_path_buf() } else { path.with_extension("") }.display().to_string();
        match outcome {
            Ok((clouds, said)) => {
                let many = clouds.len() > 1;
                names.extend((0..clouds.len()).map(|i| if many { format!("{name}-{i:05}") } else { name.clone() }));
                all.extend(clouds);
                notes.extend(said.into_iter().map(|note| format!("{}: {note}", file.display())));
            }
            Err(error) if options.strict => return Err(error),
            Err(error) => skipped.push(error.to_string()),
        }
    }
    Ok(set_of(all, names, root.display().to_string(), options))
}

/// The clouds of a file; a mesh is sampled by a generator of its own, whatever else is in the folder.
fn clouds_of(path: &Path, shape: Shape, options: &OpenOptions) -> Result<Vec<Cloud>> {
    match shape {
        Shape::Mesh(mesh) => {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let mut rng = FlowRng::named(options.seed, &name);
            let sampled = mesh.sample(options.points_per_mesh, &mut rng);
            let fault = |e| Error::File { path: path.to_path_buf(), reason: format!("cannot be sampled: {e}") };
            Ok(vec![sampled.map_err(fault)?])
        }
        Shape::Cloud(cloud) => Ok(vec![cloud]),
        Shape::Set(clouds) => Ok(clouds),
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
        Ok(PointSet { clouds, names, source: format!("built-in shapes ({names_of})"), ..PointSet::default() })
    };
    let held_out = (count / 10).max(2);
    Ok(Loaded {
        train: part(0, count)?,
        validation: part(count, held_out)?,
        test: part(count + held_out, held_out)?,
        ..Loaded::default()
    })
}
