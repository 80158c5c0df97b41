//! What is told beside the frames of a NumPy archive: actions or labels.
//!
//! | arrays | names | shape |
//! |---|---|---|
//! | actions: what is done before each frame | `actions`, `action` | `[N, T, A]` or `[N, T]` |
//! | labels: what a clip is | `labels`, `label`, `y` | class numbers `[N]`, told as `A` numbers of which one is one |
//!
//! Parts have the names of their clips: `actions_train`, `test_labels`.

use std::path::Path;

use flow_image::data::array::Array;
use flow_image::data::npz::Archive;

use super::Clip;
use crate::{Error, Result};

const ACTIONS: [&str; 2] = ["actions", "action"];
const LABELS: [&str; 3] = ["labels", "label", "y"];
/// More classes than this are no classes.
const MOST_CLASSES: usize = 1024;

/// The clips of a part with what the archive tells beside them; `part` has its names, none for all clips. `known` is how many
/// numbers are told of the training clips.
///
/// # Errors
/// An archive that tells nothing, arrays that do not fit the clips, or labels that are no class numbers.
pub(super) fn attach(
    archive: &mut Archive<'_>,
    path: &Path,
    part: &[&str],
    clips: Vec<Clip>,
    known: Option<usize>,
) -> Result<Vec<Clip>> {
    let names = |kinds: &[&str]| -> Vec<String> {
        match part {
            [] => kinds.iter().map(|kind| (*kind).to_string()).collect(),
            part => kinds
                .iter()
                .flat_map(|kind| part.iter().flat_map(move |part| [format!("{kind}_{part}"), format!("{part}_{kind}")]))
                .collect(),
        }
    };
    let (actions, labels) = (names(&ACTIONS), names(&LABELS));
    let (at, array, is_label) = match (archive.find(&actions), archive.find(&labels)) {
        (Some(index), _) => {
            let (at, array) = archive.array(index)?;
            (at, array, false)
        }
        (None, Some(index)) => {
            let (at, array) = archive.array(index)?;
            (at, array, true)
        }
        (None, None) => {
            let expected = format!("what is told beside the clips under {} or {}", actions[0], labels[0]);
            let found = archive.names().collect::<Vec<_>>().join(", ");
            return Err(Error::format(path, 0, expected, format!("the arrays {found}")));
        }
    };
    let told = if is_label { one_hot(&at, &array, &clips, known)? } else { by_frame(&at, &array, &clips)? };
    clips.into_iter().zip(told).map(|(clip, told)| clip.with_actions(told)).collect()
}

/// Rows of an array of actions, one for each clip.
fn by_frame(path: &Path, array: &Array, clips: &[Clip]) -> Result<Vec<Vec<f32>>> {
    let frames = clips.first().map_or(0, Clip::frames);
    let fits = match *array.shape() {
        [n, t] | [n, t, _] => n == clips.len() && t == frames,
        _ => false,
    };
    if !fits || array.is_empty() || clips.iter().any(|clip| clip.frames() != frames) {
        let expected = format!("numbers for each frame, [{}, {frames}, A], as there are clips and frames", clips.len());
        return Err(Error::format(path, 0, expected, format!("the shape {:?}", array.shape())));
    }
    let values: Vec<f32> = array.values().map(|v| v as f32).collect();
    Ok(values.chunks(values.len() / clips.len()).map(<[f32]>::to_vec).collect())
}

/// Class numbers, told beside every frame.
fn one_hot(path: &Path, array: &Array, clips: &[Clip], known: Option<usize>) -> Result<Vec<Vec<f32>>> {
    if !matches!(*array.shape(), [n] | [n, 1] if n == clips.len()) {
        let expected = format!("a class number for each clip, [{}]", clips.len());
        return Err(Error::format(path, 0, expected, format!("the shape {:?}", array.shape())));
    }
    let values: Vec<f64> = array.values().collect();
    let most = known.unwrap_or(MOST_CLASSES);
    let bad = |v: &f64| v.fract() != 0.0 || !(0.0..most as f64).contains(v);
    if let Some(clip) = values.iter().position(bad) {
        let expected = match known {
            Some(classes) => format!("class numbers below {classes}, those of the training clips"),
            None => format!("class numbers from 0 to {}", MOST_CLASSES - 1),
        };
        return Err(Error::format(path, 0, expected, format!("{} for clip {clip}", values[clip])));
    }
    let classes = known.unwrap_or_else(|| values.iter().fold(0, |most, v| most.max(*v as usize + 1)));
    let one = |class: usize| (0..classes).map(move |k| if k == class { 1.0 } else { 0.0 });
    let told = |(clip, class): (&Clip, &f64)| (0..clip.frames()).flat_map(|_| one(*class as usize)).collect();
    Ok(clips.iter().zip(&values).map(told).collect())
}
