//! One door to every format: [`open`] looks at a path and knows what it is.

use std::path::Path;

use rayon::prelude::*;

use super::kind::some_of;
use super::source::Source;
use super::splits::{Parts, hold_out, share};
use super::{Clip, Clips, OpenOptions, Splits, corpus, listing};
use crate::{Error, Result};

/// The name of the built-in source.
const VOICES: &str = "voices";

/// Opens clips of any known format; [`super`] lists them.
///
/// Silent clips are left out and named; so are those shorter than [`OpenOptions::samples`]. A folder with `train` and
/// `validation` or `test` has these parts. A part that the source lacks is held out by a seeded permutation of whole
/// clips, and its description says so. The name `voices` is the built-in source unless a file has it.
///
/// # Errors
/// A path that is no such thing (the message lists what was looked for), any error of the format's reader, clips of
/// different rates, or of another rate than is wanted and not to be resampled, or too few clips to hold any out.
pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Splits> {
    let path = path.as_ref();
    options.check()?;
    if let Some(splits) = generated(path, options)? {
        return Ok(splits);
    }
    let parts = read(path, options)?;
    for part in [&parts.validation, &parts.test].into_iter().flatten() {
        if part.rate() != parts.train.rate() {
            let (ours, theirs) = (parts.train.rate(), part.rate());
            let reason = format!(
                "{ours} Hz in {} but {theirs} Hz in {}; bring them to one rate: name a spectrogram with --mel, and --resample",
                parts.train.source(),
                part.source()
            );
            return Err(Error::config(path.display().to_string(), reason));
        }
    }
    let (train, test) = or_hold_out(parts.train, parts.test, options.test, options.seed, "test")?;
    let (train, validation) = or_hold_out(train, parts.validation, options.validation, options.seed, "validation")?;
    Ok(Splits { train, validation, test })
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
            let Parts { train, validation, test } = read(path, options)?;
            [Some(train), validation, test].into_iter().flatten().collect()
        }
    };
    let source = match &sets[..] {
        [one] => one.source().to_string(),
        _ => path.display().to_string(),
    };
    Ok(Clips::concat(sets)?.with_source(source))
}

/// Whether [`open`] makes clips of this path rather than reading them.
pub fn is_generated(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    path == Path::new(VOICES) && !path.exists()
}

fn generated(path: &Path, options: &OpenOptions) -> Result<Option<Splits>> {
    if !is_generated(path) {
        return match options.voices {
            Some(_) => Err(Error::config(path.display().to_string(), "how voices sound is for the source voices only")),
            None => Ok(None),
        };
    }
    let voices = options.voices.clone().unwrap_or_default();
    if let Some(rate) = options.rate.filter(|&rate| rate != voices.rate) {
        let reason = format!("are synthesised at {} Hz, not at {rate}: set their own rate", voices.rate);
        return Err(Error::config(VOICES, reason));
    }
    voices.splits(options.seed).map(Some)
}

fn read(path: &Path, options: &OpenOptions) -> Result<Parts> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
    if !metadata.is_dir() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let train = read_sources(path, &[Source::new(path.into(), name)], Vec::new(), options)?;
        return Ok(Parts { train, validation: None, test: None });
    }
    let Some(parts) = listing::parts(path)? else {
        return Ok(Parts { train: read_folder(path, options)?, validation: None, test: None });
    };
    let part = |folder: &Option<std::path::PathBuf>| folder.as_deref().map(|f| read_folder(f, options)).transpose();
    let beside = (!parts.beside.is_empty())
        .then(|| format!("{}: beside its parts, not read: {}", path.display(), some_of(&parts.beside)));
    Ok(Parts {
        train: read_folder(&parts.train, options)?.with_notes(beside),
        validation: part(&parts.validation)?,
        test: part(&parts.test)?,
    })
}

fn read_folder(folder: &Path, options: &OpenOptions) -> Result<Clips> {
    let (sources, notes) = match corpus::recordings(folder, options.skip_broken)? {
        Some(listed) => listed,
        None => listing::sounds(folder)?,
    };
    read_sources(folder, &sources, notes, options)
}

/// The clips of all sources, read on all threads, in the order of the sources.
fn read_sources(path: &Path, sources: &[Source], mut notes: Vec<String>, options: &OpenOptions) -> Result<Clips> {
    let read = |source: &Source| source.read().and_then(|clip| at_rate(source, clip, options));
    let outcomes: Vec<_> = sources.par_iter().map(read).collect();
    let (mut clips, mut broken, mut first): (Vec<Clip>, Vec<&str>, Option<Error>) = (Vec::new(), Vec::new(), None);
    for (source, outcome) in sources.iter().zip(outcomes) {
        match outcome {
            Ok(clip) => clips.push(clip),
            // What helps here is an option or another build, not a folder with fewer files.
            Err(error @ (Error::FeatureDisabled { .. } | Error::Core(_))) => return Err(error),
            Err(error) if options.skip_broken => {
                broken.push(&source.name);
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
                "{at}: {count} of {all} files cannot be read and were left out: {names}; the first: {error}"
            ));
        }
        None => {}
    }
    let set = Clips::new(clips, path.display().to_string())?;
    let told = set.told();
    set.with_notes(notes).with_notes(told).heard()?.at_least(options.samples)
}

/// The clip at the rate that is wanted.
fn at_rate(source: &Source, clip: Clip, options: &OpenOptions) -> Result<Clip> {
    match options.rate {
        Some(rate) if rate != clip.rate() && options.resample => clip.resampled(rate),
        Some(rate) if rate != clip.rate() => {
            let reason = format!("has {} Hz where {rate} Hz are wanted; resample it with --resample", clip.rate());
            Err(Error::config(source.path.display().to_string(), reason))
        }
        _ => Ok(clip),
    }
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
