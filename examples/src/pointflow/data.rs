//! Shapes to work on: where they come from, which part of them, how many points of each.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use flow_core::FlowRng;
use flow_points::data::{Loaded, OpenOptions, PointSet, SplitSource, built_in, open, train_places, train_points};
use flow_points::io::{self, ReadOptions, Shape};
use flow_points::metrics::chamfer;
use flow_points::shapes::Family;
use flow_points::trainer::PointRun;
use flow_points::{Cloud, Point};

use super::common::PROGRAM;
use crate::cli::{CheckpointArg, counted, refuse};

/// The value of `--data` that stands for the procedural shapes.
pub(super) const BUILT_IN: &str = "builtin";

/// Where clouds come from.
#[derive(Args, Debug, Clone)]
pub(super) struct DataArg {
    /// Clouds or meshes: a folder (with train/val/test or flat), .npy, .npz, .ply, .obj, .off, .stl, .pcd, .xyz, .pts, .txt,
    /// .asc, .csv, or "builtin"
    #[arg(long, default_value = BUILT_IN, value_name = "PATH")]
    pub(super) data: PathBuf,
    /// Built-in families [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    families: Vec<FamilyName>,
    /// Number of built-in shapes for training [default: 1000]
    #[arg(long)]
    shapes: Option<usize>,
    /// Points sampled from every mesh or built-in shape [default: 4096]
    #[arg(long)]
    points_per_shape: Option<usize>,
    /// JSON with the indices of training and test shapes of an array [default: splits.json beside it]
    #[arg(long, value_name = "FILE")]
    splits: Option<PathBuf>,
    /// The array of a .npz that holds the points, where its name does not say so
    #[arg(long, value_name = "NAME")]
    array: Option<String>,
}

/// A built-in family, as a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FamilyName {
    Chair,
    Table,
    Lamp,
    Plane,
    Mug,
}

impl DataArg {
    /// Whether the built-in shapes are meant.
    pub(super) fn is_built_in(&self) -> bool {
        self.data == Path::new(BUILT_IN)
    }

    /// Reads the data and says on stderr what was in it.
    pub(super) fn open(&self, seed: u64) -> Result<Loaded> {
        self.open_with(seed, false)
    }

    /// Reads the data as a run did: meshes are sampled and parts are drawn by its seed. Says on stderr if a part that was
    /// asked for is cut of other data than the run's.
    pub(super) fn open_for(&self, checkpoint: &CheckpointArg, run: &PointRun, part: Option<Part>) -> Result<Loaded> {
        let loaded = self.open(run.seed)?;
        if part != Some(Part::All) {
            let mut own = loaded.clone();
            own.rebase(run.origin);
            let now = run.fingerprint(&own.train.clouds, &own.validation.clouds);
            checkpoint.note_other_data(PROGRAM, &now)?;
        }
        Ok(loaded)
    }

    /// As [`DataArg::open`], with normals and colours if they are asked for.
    fn open_with(&self, seed: u64, attributes: bool) -> Result<Loaded> {
        let points = self.points_per_shape.unwrap_or(4096);
        let loaded = if self.is_built_in() {
            if let Some(path) = &self.splits {
                let reason = "says which shapes of an array are for what, the built-in shapes are none; name an array";
                bail!("--splits {}: {reason} by --data", path.display());
            }
            let reason = "is for .npz files, the built-in shapes are none; leave it out";
            refuse(&[("--array", self.array.is_some())], reason)?;
            built_in(&self.families(), self.shapes.unwrap_or(1000), points)?
        } else {
            self.check()?;
            let mut options = OpenOptions::default();
            options.points_per_mesh = points;
            options.seed = seed;
            options.splits = self.splits.clone().map_or(SplitSource::Beside, SplitSource::File);
            options.attributes = attributes;
            options.read = self.read_options();
            open(&self.data, &options)?
        };
        eprintln!("{}", loaded.summary());
        tell("skipped", "files", &loaded.skipped);
        tell("note", "notes on files", &loaded.notes);
        Ok(loaded)
    }

    fn read_options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.array = self.array.clone();
        options
    }

    /// Refuses flags that reading a file or a folder does not look at.
    fn check(&self) -> Result<()> {
        let flags = [("--families", !self.families.is_empty()), ("--shapes", self.shapes.is_some())];
        refuse(&flags, &format!("for the built-in shapes, --data is {}; leave one of them out", self.data.display()))?;
        // A folder may hold meshes beside clouds.
        let given = self.points_per_shape.is_some() && self.data.is_file();
        let unread = given && !matches!(io::read_with(&self.data, &self.read_options())?.shape, Shape::Mesh(_));
        let reason = format!("for meshes and the built-in shapes, {} holds points; leave it out", self.data.display());
        refuse(&[("--points-per-shape", unread)], &reason)
    }

    fn families(&self) -> Vec<Family> {
        if self.families.is_empty() {
            return Family::ALL.to_vec();
        }
        let family = |name: &FamilyName| match name {
            FamilyName::Chair => Family::Chair,
            FamilyName::Table => Family::Table,
            FamilyName::Lamp => Family::Lamp,
            FamilyName::Plane => Family::Plane,
            FamilyName::Mug => Family::Mug,
        };
        self.families.iter().map(family).collect()
    }
}

/// Says the first of many things about files.
fn tell(what: &str, things: &str, all: &[String]) {
    const SHOWN: usize = 5;
    all.iter().take(SHOWN).for_each(|one| eprintln!("{what}: {one}"));
    if all.len() > SHOWN {
        eprintln!("{what}: {} more {things}", all.len() - SHOWN);
    }
}

/// Which part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    Train,
    Validation,
    Test,
    All,
}

impl Part {
    /// The shapes of a part, and its name: unless told those held out for test, or all there are where none are. Says
    /// which.
    pub(super) fn choose(part: Option<Part>, loaded: Loaded) -> Result<PointSet> {
        let source = loaded.train.source.clone();
        let (chosen, name) = match part {
            None if loaded.test.clouds.is_empty() => (loaded.whole(), "all, none are held out for test"),
            Some(Part::All) => (loaded.whole(), "all"),
            None | Some(Part::Test) => (loaded.test, "test"),
            Some(Part::Train) => (loaded.train, "train"),
            Some(Part::Validation) => (loaded.validation, "validation"),
        };
        if chosen.clouds.is_empty() {
            bail!("--split {name}: {source} has no shapes in this part; name another, or all");
        }
        eprintln!("split: {name}, {}", counted(chosen.clouds.len(), "shape"));
        Ok(chosen)
    }
}

/// A checkpoint and its run, by which data are read.
pub(super) type Trained<'a> = (&'a CheckpointArg, &'a PointRun);

/// Shapes to work on.
#[derive(Args, Debug, Clone)]
pub(super) struct InputArg {
    #[command(flatten)]
    data: DataArg,
    /// Which part of the data [default: test, or all there is where nothing is held out]
    #[arg(long, visible_alias = "part", value_enum)]
    split: Option<Part>,
    /// Number of shapes, from the first [default: all]
    #[arg(long)]
    limit: Option<usize>,
}

/// Shapes cut to one number of points.
pub(super) struct Input {
    pub(super) clouds: Vec<Vec<Point>>,
    pub(super) names: Vec<String>,
    pub(super) source: String,
    /// Where coordinates are counted from.
    pub(super) origin: [f64; 3],
}

impl InputArg {
    /// Where the shapes are.
    pub(super) fn path(&self) -> &Path {
        &self.data.data
    }

    /// Reads the shapes, counted from the origin of a run, and takes `points` of each, at random without replacement.
    pub(super) fn open(&self, points: usize, of: Trained<'_>, rng: &mut FlowRng) -> Result<Input> {
        let set = self.set(of)?;
        check_sizes(&set, points)?;
        let clouds = set.clouds.iter().map(|cloud| train_points(cloud, points, false, rng));
        let clouds = clouds.collect::<flow_points::Result<Vec<_>>>()?;
        Ok(Input { clouds, names: set.names, source: set.source, origin: set.origin })
    }

    /// Reads the shapes and takes two disjoint parts of each: `seen` points for the encoder, and as many others.
    pub(super) fn open_halves(&self, seen: usize, of: Trained<'_>, rng: &mut FlowRng) -> Result<Halves> {
        let set = self.set(of)?;
        let small = set.smaller_than(2 * seen);
        let clouds: Vec<&[Point]> = set.clouds.iter().map(Vec::as_slice).collect();
        let [seen, fresh] = halves(&clouds, seen, rng)?;
        if !small.is_empty() {
            let each = seen.first().map_or(0, Vec::len);
            eprintln!(
                "note: half of the points are seen, {each} of each shape, since these have no more: {}",
                list(&small)
            );
        }
        Ok(Halves { seen, fresh, names: set.names, source: set.source })
    }

    /// Reads the shapes, all unless a part was asked for, and takes at most `points` of each with their normals and
    /// colours.
    pub(super) fn open_whole(&self, points: usize, rng: &mut FlowRng) -> Result<(Vec<Cloud>, PointSet)> {
        let loaded = self.data.open_with(0, true)?;
        let set = self.limited(Part::choose(Some(self.split.unwrap_or(Part::All)), loaded)?);
        tell_small(&set, points);
        let mut clouds = Vec::new();
        for cloud in (0..set.clouds.len()).filter_map(|i| set.cloud(i)) {
            clouds.push(cloud.select(&train_places(cloud.len(), points.min(cloud.len()), false, rng)?));
        }
        Ok((clouds, set))
    }

    /// Reads the shapes, counted from the origin of a run, and takes at most `points` of each among those that `keep`, which
    /// is given positions in double precision, does not refuse.
    pub(super) fn open_at_most(
        &self,
        points: usize,
        keep: Option<impl Fn(&[f64; 3]) -> bool>,
        of: Trained<'_>,
        rng: &mut FlowRng,
    ) -> Result<Input> {
        let set = self.set(of)?;
        tell_small(&set, points);
        let mut clouds = Vec::new();
        let place = |p: &Point| std::array::from_fn(|k| f64::from(p[k]) + set.origin[k]);
        for (cloud, name) in set.clouds.iter().zip(&set.names) {
            let kept: Vec<Point> = match &keep {
                Some(keep) => cloud.iter().filter(|p| keep(&place(p))).copied().collect(),
                None => cloud.clone(),
            };
            if kept.is_empty() {
                bail!("{name} of {}: no point is left on that side", set.source);
            }
            clouds.push(train_points(&kept, points.min(kept.len()), false, rng)?);
        }
        Ok(Input { clouds, names: set.names, source: set.source, origin: set.origin })
    }

    /// The shapes, counted from the origin of a run.
    fn set(&self, (checkpoint, run): Trained<'_>) -> Result<PointSet> {
        let mut set = self.limited(Part::choose(self.split, self.data.open_for(checkpoint, run, self.split)?)?);
        set.rebase(run.origin);
        Ok(set)
    }

    /// The first shapes.
    fn limited(&self, mut set: PointSet) -> PointSet {
        let limit = self.limit.unwrap_or(usize::MAX);
        set.clouds.truncate(limit);
        set.names.truncate(limit);
        set.attributes.truncate(limit);
        set
    }
}

/// Names, the first of many.
pub(super) fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    format!("{}{more}", names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", "))
}

/// Says which shapes have fewer points than are asked for.
fn tell_small(set: &PointSet, points: usize) {
    let small = set.smaller_than(points);
    if !small.is_empty() {
        let few = if small.len() == 1 { "shape has" } else { "shapes have" };
        eprintln!("note: {} {few} fewer than {points} points, taken whole: {}", small.len(), list(&small));
    }
}

/// Refuses shapes of too few points by name, with what to do.
pub(super) fn check_sizes(set: &PointSet, points: usize) -> Result<()> {
    let small = set.smaller_than(points);
    if small.is_empty() {
        return Ok(());
    }
    let least = set.clouds.iter().map(Vec::len).min().unwrap_or(0);
    bail!(
        "--points {points}: {} of {} shapes of {} have only fewer points: {}; give --points {least}, or leave them out",
        small.len(),
        set.clouds.len(),
        set.source,
        list(&small)
    )
}

/// Clouds of these points, which are counted from an origin.
pub(super) fn clouds_at(origin: [f64; 3], points: impl IntoIterator<Item = Vec<Point>>) -> Vec<Cloud> {
    points.into_iter().map(|points| Cloud { origin, ..Cloud::new(points) }).collect()
}

/// Two disjoint parts of every shape.
pub(super) struct Halves {
    pub(super) seen: Vec<Vec<Point>>,
    pub(super) fresh: Vec<Vec<Point>>,
    pub(super) names: Vec<String>,
    pub(super) source: String,
}

/// Two disjoint random parts of every cloud, of `points` points each, or of half of the smallest cloud where that is less.
pub(super) fn halves(clouds: &[&[Point]], points: usize, rng: &mut FlowRng) -> Result<[Vec<Vec<Point>>; 2]> {
    let each = clouds.iter().map(|cloud| cloud.len() / 2).fold(points, usize::min);
    if each == 0 {
        bail!("a cloud of one point, or of none, cannot be halved");
    }
    let (mut seen, mut fresh) = (Vec::new(), Vec::new());
    for cloud in clouds {
        let mut both = train_points(cloud, 2 * each, false, rng)?;
        fresh.push(both.split_off(each));
        seen.push(both);
    }
    Ok([seen, fresh])
}

/// The mean Chamfer distance of drawn clouds to fresh points of the same shapes, and that of the points that were seen, the
/// least that can be asked for; all with as many points, since more of them are closer whatever they are.
pub(super) fn distances(drawn: &[Vec<Point>], seen: &[Vec<Point>], fresh: &[Vec<Point>]) -> Result<(f64, f64)> {
    let count = drawn.len().max(1) as f64;
    let (mut error, mut floor) = (0.0, 0.0);
    for ((drawn, seen), fresh) in drawn.iter().zip(seen).zip(fresh) {
        let points = drawn.len().min(seen.len());
        error += chamfer(&drawn[..points], fresh)? / count;
        floor += chamfer(&seen[..points], fresh)? / count;
    }
    Ok((error, floor))
}

/// `points` random points of every shape of a set.
pub(super) fn subset(set: &PointSet, points: usize, rng: &mut FlowRng) -> Result<Vec<Vec<Point>>> {
    check_sizes(set, points)?;
    set.clouds.iter().map(|cloud| Ok(train_points(cloud, points, false, rng)?)).collect()
}

/// All clouds of a file or folder, whatever part they belong to, counted from an origin.
pub(super) fn read_all(path: &Path, points_per_mesh: usize, origin: [f64; 3]) -> Result<PointSet> {
    let mut options = OpenOptions::default();
    options.points_per_mesh = points_per_mesh;
    options.splits = SplitSource::Whole;
    options.strict = true;
    let loaded = open(path, &options)?;
    tell("note", "notes on files", &loaded.notes);
    let mut set = loaded.whole();
    set.rebase(origin);
    Ok(set)
}
