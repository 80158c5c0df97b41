//! One door to every format: [`open`] looks at a path and knows what it is.

use std::path::Path;

use flow_image::data::roots::{self, Entry};
use flow_image::data::{first_bytes, foreign, idx, npz, share, some_of};
use rayon::prelude::*;

use super::generate::MovingDigits;
use super::source::Source;
use super::splits::{Parts, hold_out};
use super::{Clip, Clips, OpenOptions, Splits, arrays, listing};
use crate::{Error, Result};

/// The name of digits that move, made of `flow-image`'s built-in ones.
const DIGITS: &str = "digits";
/// The name of shapes that move.
const SHAPES: &str = "shapes";

/// Opens clips of any known format; [`super`] lists them.
///
/// A folder with `train`, and perhaps `validation` (or `val`) and `test`, as folders or arrays, has these parts. A part
/// that the source lacks is held out by a seeded permutation of whole clips, and its description says so. The names
/// `digits` and `shapes` are generators unless a file has that name; MNIST's idx files give moving digits, those of the
/// test set in the test clips only.
///
/// # Errors
/// A path that is no such thing (the message lists what was looked for), any error of the format's reader, parts of
/// different shapes, options that do not apply, or too few clips to hold any out.
pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Splits> {
    let path = path.as_ref();
    options.check()?;
    if let Some(splits) = generated(path, options)? {
        return splits.map(|set| reduced(set, options));
    }
    told(path, options)?;
    let parts = read(path, options)?;
    for part in [&parts.validation, &parts.test].into_iter().flatten() {
        if part.shape() != parts.train.shape() {
            let (a, b) = (parts.train.source(), part.source());
            let reason = format!("frames {:?} in {a} but {:?} in {b}", parts.train.shape(), part.shape());
            return Err(Error::config(a, reason));
        }
    }
    let (train, test) = or_hold_out(parts.train, parts.test, options.test, options.seed, "test")?;
    let (train, validation) = or_hold_out(train, parts.validation, options.validation, options.seed, "validation")?;
    Splits { train, validation, test }.map(|set| reduced(set, options))
}

/// All clips of a path, those of its own parts behind each other and nothing held out, in the order of the source.
///
/// # Errors
/// Those of [`open`].
pub fn open_all(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Clips> {
    let path = path.as_ref();
    options.check()?;
    let sets = match generated(path, options)? {
        Some(Splits { train, validation, test }) => vec![train, validation, test],
        None => {
            told(path, options)?;
            let Parts { train, validation, test } = read(path, options)?;
            [Some(train), validation, test].into_iter().flatten().collect()
        }
    };
    let source = match &sets[..] {
        [one] => one.source().to_string(),
        _ => path.display().to_string(),
    };
    reduced(Clips::concat(sets)?.with_source(source), options)
}

/// Whether [`open`] makes clips of this path rather than reading them: `digits`, `shapes` and idx files.
pub fn is_generated(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    is_name(path, DIGITS) || is_name(path, SHAPES) || is_idx(path)
}

/// Whether [`open`] finds NumPy arrays at this path, to which [`OpenOptions::layout`] and [`OpenOptions::range`] apply.
pub fn holds_arrays(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    let is_array = |path: &Path| path.extension().is_some_and(|e| e == "npy" || e == "npz");
    if path.is_dir() {
        return listing::clips(path)
            .is_ok_and(|(found, _)| found.iter().any(|s| matches!(s, Source::File { path, .. } if is_array(path))));
    }
    first_bytes(path).is_ok_and(|s| s.starts_with(flow_image::data::array::MAGIC) || npz::looks_like(&s))
}

/// Refuses to read actions where no format holds any.
fn told(path: &Path, options: &OpenOptions) -> Result<()> {
    let is_archive = path.is_file() && npz::looks_like(&first_bytes(path)?);
    match options.actions && path.exists() && !is_archive {
        true => Err(Error::config(
            path.display().to_string(),
            "tells nothing beside its frames: actions are read from one .npz file, as `actions` [N, T, A] or `labels` [N], \
             and are the directions of `shapes`",
        )),
        false => Ok(()),
    }
}

fn is_name(path: &Path, name: &str) -> bool {
    path == Path::new(name) && !path.exists()
}

/// Whether a path is an idx file or a folder that holds some.
fn is_idx(path: &Path) -> bool {
    if path.is_dir() {
        return roots::holds_idx(path);
    }
    let is_archive = foreign::is_archive_name(&path.to_string_lossy());
    !is_archive && first_bytes(path).is_ok_and(|start| idx::looks_like(&start))
}

/// The clips of a generator, where the path is one.
fn generated(path: &Path, options: &OpenOptions) -> Result<Option<Splits>> {
    let words = path.display().to_string();
    let refuse = |given: bool, flag: &str| match given {
        true => Err(Error::config(words.clone(), format!("{flag} is for other clips"))),
        false => Ok(()),
    };
    if is_name(path, SHAPES) {
        options.check_generated(SHAPES)?;
        refuse(options.digits.is_some(), "how digits move")?;
        let shapes = options.shapes.unwrap_or_default();
        let splits = if options.actions { shapes.told_splits(options.seed) } else { shapes.splits(options.seed) };
        return splits.and_then(|s| long_enough(s, options)).map(Some);
    }
    refuse(options.shapes.is_some(), "how shapes move")?;
    let (digits, moving) = if is_name(path, DIGITS) {
        (flow_image::data::builtin::digits()?, options.digits.unwrap_or_default())
    } else if is_idx(path) {
        let mut held_out = flow_image::OpenOptions::default().with_held_out(options.validation, options.test);
        held_out.seed = options.seed;
        (flow_image::data::open(path, &held_out)?, options.digits.unwrap_or(MovingDigits::mnist()))
    } else {
        return refuse(options.digits.is_some(), "how digits move").map(|()| None);
    };
    if options.actions {
        return Err(Error::config(words, "nothing is told beside digits that move"));
    }
    options.check_generated(&words)?;
    moving.splits(&digits, options.seed).and_then(|splits| long_enough(splits, options)).map(Some)
}

fn long_enough(splits: Splits, options: &OpenOptions) -> Result<Splits> {
    splits.map(|set| if set.is_empty() { Ok(set) } else { set.at_least(options.frames) })
}

fn reduced(set: Clips, options: &OpenOptions) -> Result<Clips> {
    match options.bits {
        Some(bits) => set.reduce_bits(bits),
        None => Ok(set),
    }
}

fn read(path: &Path, options: &OpenOptions) -> Result<Parts> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parts = if metadata.is_dir() {
        read_folder(path, options)?
    } else if npz::looks_like(&first_bytes(path)?) && path.extension().is_some_and(|e| e == "npz") {
        arrays::read_parts(path, &name, options)?
    } else {
        Parts::whole(read_sources(path, &[Source::File { path: path.into(), name }], Vec::new(), options)?)
    };
    let finished = |set: Clips| cut(set, options)?.at_least(options.frames);
    Ok(Parts {
        train: finished(parts.train)?,
        validation: parts.validation.map(finished).transpose()?,
        test: parts.test.map(finished).transpose()?,
    })
}

fn read_folder(path: &Path, options: &OpenOptions) -> Result<Parts> {
    let Some(entries) = roots::parts(path)? else {
        let (sources, notes) = listing::clips(path)?;
        return Ok(Parts::whole(read_sources(path, &sources, notes, options)?));
    };
    let entry = |entry: &Entry| -> Result<Clips> {
        let at = entry.path();
        let name = at.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match entry {
            Entry::Folder(folder) => {
                let (sources, notes) = listing::clips(folder)?;
                read_sources(folder, &sources, notes, options)
            }
            _ => read_sources(at, &[Source::File { path: at.into(), name }], Vec::new(), options),
        }
    };
    let beside = (!entries.beside.is_empty())
        .then(|| format!("{}: beside its parts, not read: {}", path.display(), some_of(&entries.beside)));
    Ok(Parts {
        train: entry(&entries.train)?.with_notes(beside),
        validation: entries.validation.as_ref().map(entry).transpose()?,
        test: entries.test.as_ref().map(entry).transpose()?,
    })
}

/// The clips of all sources, read on all threads, in the order of the sources.
fn read_sources(path: &Path, sources: &[Source], mut notes: Vec<String>, options: &OpenOptions) -> Result<Clips> {
    let read: Vec<_> = sources.par_iter().map(|source| source.read(options)).collect();
    let (mut clips, mut broken, mut first): (Vec<Clip>, Vec<&str>, Option<Error>) = (Vec::new(), Vec::new(), None);
    for (source, outcome) in sources.iter().zip(read) {
        match outcome {
            Ok((found, said)) => {
                clips.extend(found);
                notes.extend(said);
            }
            Err(error) if options.skip_broken && !matches!(error, Error::FeatureDisabled { .. }) => {
                broken.push(source.name());
                first = first.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    match first {
        Some(error) if clips.is_empty() => return Err(error),
        Some(error) => {
            let (at, count, all) = (path.display(), broken.len(), sources.len());
            let names = some_of(&broken);
            notes.push(format!(
                "{at}: {count} of {all} clips cannot be read and were left out: {names}; the first: {error}"
            ));
        }
        None => {}
    }
    Ok(Clips::new(clips, path.display().to_string())?.with_notes(notes))
}

/// Long clips in pieces, if that is wanted.
fn cut(set: Clips, options: &OpenOptions) -> Result<Clips> {
    let Some(frames) = options.cut else { return Ok(set) };
    let (notes, source) = (set.notes().to_vec(), format!("{}, cut into clips of {frames} frames", set.source()));
    let pieces = set.iter().cloned().flat_map(|clip| clip.cut(frames)).collect();
    Ok(Clips::new(pieces, source)?.with_notes(notes))
}

fn or_hold_out(train: Clips, own: Option<Clips>, fraction: f64, seed: u64, part: &str) -> Result<(Clips, Clips)> {
    if let Some(own) = own {
        return Ok((train, own));
    }
    let count = share(train.len(), fraction);
    let (rest, held) = hold_out(&train, count, seed, part)?;
    let source = format!("{}, {count} of {} clips held out for {part} (seed {seed})", train.source(), train.len());
    Ok((rest, held.with_source(source)))
}
