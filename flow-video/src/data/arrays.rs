//! NumPy arrays and archives of clips.

use std::path::Path;

use flow_image::data::array::{self, Array};
use flow_image::data::foreign;
use flow_image::data::levels::levels;
use flow_image::data::npz::Archive;
use flow_image::data::read_file;
use image::{DynamicImage, GrayImage, RgbImage};
use rayon::prelude::*;

use super::frames::Frames;
use super::layout::{Axes, refused};
use super::splits::Parts;
use super::{Clip, Clips, Layout, OpenOptions, Range, actions};
use crate::{Error, Result};

const WHOLE: [&str; 9] = ["x", "clips", "videos", "video", "frames", "images", "data", "samples", "arr_0"];

/// Clips of one array and the rule by which its floats were read.
type Read = (Vec<Clip>, Vec<String>, Option<Range>);

/// All clips of a `.npy` file, named by `name` and their numbers.
///
/// # Errors
/// A malformed array, axes that can be read in two ways, or numbers that are no levels.
pub(super) fn read_npy(path: &Path, name: &str, options: &OpenOptions) -> Result<Read> {
    let bytes = read_file(path)?;
    foreign::refuse(path, &bytes)?;
    clips(path, name, &array::parse(path, &bytes)?, options)
}

/// All clips of a `.npz` file, of its parts behind each other.
///
/// # Errors
/// Those of [`read_parts`].
pub(super) fn read_npz(path: &Path, name: &str, options: &OpenOptions) -> Result<Read> {
    let bytes = read_file(path)?;
    foreign::refuse_but_zip(path, &bytes)?;
    let mut archive = Archive::open(path, &bytes)?;
    let whole = whole(path, &mut archive)?;
    let (at, array) = archive.array(whole)?;
    let (mut found, mut notes, range) = clips(&at, name, &array, options)?;
    if options.actions {
        found = actions::attach(&mut archive, path, &[], found, None)?;
    }
    notes.extend(archive.unread());
    Ok((found, notes, range))
}

/// The parts of a `.npz` file: `x_train`, `x_test` and their like, or one array that is all clips.
///
/// # Errors
/// A broken archive, one without an array of clips, or those of [`read_npy`].
pub(super) fn read_parts(path: &Path, name: &str, options: &OpenOptions) -> Result<Parts> {
    let bytes = read_file(path)?;
    foreign::refuse_but_zip(path, &bytes)?;
    let mut archive = Archive::open(path, &bytes)?;
    let mut part = |names: &[&str],
                    range: Option<Range>,
                    told: Option<usize>|
     -> Result<Option<(Clips, Option<Range>)>> {
        let kinds = ["x", "clips", "videos", "frames", "images", "data"];
        let with_kind = |name: &&str| kinds.map(|kind| [format!("{kind}_{name}"), format!("{name}_{kind}")]).concat();
        let wanted: Vec<String> = names.iter().flat_map(|n| [vec![(*n).to_string()], with_kind(n)].concat()).collect();
        let Some(index) = archive.find(&wanted) else { return Ok(None) };
        let (at, array) = archive.array(index)?;
        let options = OpenOptions { range: range.unwrap_or(options.range), ..options.clone() };
        let (mut found, notes, range) = clips(&at, names[0], &array, &options)?;
        if options.actions {
            found = actions::attach(&mut archive, path, names, found, told)?;
        }
        Ok(Some((Clips::new(found, at.display().to_string())?.with_notes(notes), range)))
    };
    let Some((train, range)) = part(&["train", "training"], None, None)? else {
        let (found, notes, _) = read_npz(path, name, options)?;
        return Ok(Parts::whole(Clips::new(found, path.display().to_string())?.with_notes(notes)));
    };
    // Floats of all parts mean the same, and so do the numbers of classes.
    let told = options.actions.then_some(train.action_size());
    let validation = part(&["validation", "val", "valid"], range, told)?.map(|(set, _)| set);
    let test = part(&["test", "testing"], range, told)?.map(|(set, _)| set);
    Ok(Parts { train: train.with_notes(archive.unread()), validation, test })
}

/// The member of an archive that is its clips.
fn whole(path: &Path, archive: &mut Archive<'_>) -> Result<usize> {
    if let Some(index) = archive.find(&WHOLE) {
        return Ok(index);
    }
    let names: Vec<String> = archive.names().map(String::from).collect();
    match names.len() {
        1 => Ok(0),
        _ => {
            let expected = "clips under x, clips or videos, or x_train and x_test, or one array only";
            Err(Error::format(path, 0, expected, format!("the arrays {}", names.join(", "))))
        }
    }
}

/// The clips of an array; `path` names it in messages.
fn clips(path: &Path, name: &str, array: &Array, options: &OpenOptions) -> Result<Read> {
    let dims = array.shape();
    let axes = Axes::of(path, dims, options.layout)?;
    let levels = levels(path, array, options.range)?;
    if options.layout == Layout::Auto && axes.contradicted_by(&levels.values) {
        let (letters, [clips, frames, ..]) = (axes.layout.letters(), axes.lengths);
        let expected = format!(
            "axes that the values agree with: by the shape {clips} clips of {frames} frames ({letters}), but these frames \
             differ more than neighbouring clips do; say --layout"
        );
        return Err(refused(path, expected, dims));
    }
    let [count, frames, channels, height, width] = axes.lengths;
    let side =
        |side: usize| u32::try_from(side).map_err(|_| refused(path, "frames with sides below 2^32".into(), dims));
    let (height, width) = (side(height)?, side(width)?);
    let read = |index: usize| -> Result<(Clip, Vec<String>)> {
        let mut clip = Frames::new(path, options);
        for frame in 0..frames {
            clip.push(&picture(axes.frame(&levels.values, index, frame), channels, height, width))?;
        }
        clip.finish(&if count == 1 { name.to_string() } else { format!("{name}#{index}") }, None)
    };
    let found = (0..count).into_par_iter().map(read).collect::<Result<Vec<_>>>()?;
    let mut notes: Vec<String> = levels.note.map(|note| format!("{}: {note}", path.display())).into_iter().collect();
    if options.layout == Layout::Auto && dims.len() > 3 {
        let letters = axes.layout.letters();
        let words = format!("shape {dims:?} read as {letters}, {count} clips of {frames} frames");
        notes.push(format!("{}: {words}", path.display()));
    }
    notes.extend(found.iter().flat_map(|(_, said)| said.clone()));
    Ok((found.into_iter().map(|(clip, _)| clip).collect(), notes, levels.range))
}

/// Values `[H, W, C]` as a picture.
fn picture(values: Vec<u8>, channels: usize, height: u32, width: u32) -> DynamicImage {
    if channels == 1 {
        GrayImage::from_raw(width, height, values).unwrap_or_default().into()
    } else {
        RgbImage::from_raw(width, height, values).unwrap_or_default().into()
    }
}
