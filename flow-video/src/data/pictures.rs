//! A folder of numbered pictures as one clip.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use flow_image::data::{picture, some_of};
use rayon::prelude::*;

use super::frames::Frames;
use super::{Clip, OpenOptions};
use crate::{Error, Result};

/// Pictures that are decoded at a time, so that memory holds no more of them than these.
const CHUNK: usize = 64;

/// All pictures of one folder, in their natural order, as the frames of a clip.
///
/// # Errors
/// A picture that cannot be read, one of another size, or two sequences in one folder.
pub(super) fn read(
    folder: &Path,
    name: &str,
    mut files: Vec<PathBuf>,
    options: &OpenOptions,
) -> Result<(Clip, Vec<String>)> {
    files.sort_by(|a, b| natural(&file_name(a), &file_name(b)));
    let mut said = numbering(folder, &files)?;
    let mut frames = Frames::new(folder, options);
    for chunk in files.chunks(CHUNK) {
        // All of them, so that the error is that of the first broken one and not of the fastest thread.
        let decoded: Vec<_> = chunk.par_iter().map(|path| picture::load(path)).collect();
        for (path, outcome) in chunk.iter().zip(decoded) {
            let (picture, lost) = outcome.map_err(|error| match error {
                flow_image::Error::Broken { path, source } => {
                    let what = source.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
                    Error::Broken { path, what }
                }
                other => other.into(),
            })?;
            if lost.frames {
                let words = "has several frames or pages, of which the first is read";
                said.push(format!("{}: {words}", path.display()));
            }
            frames.count_deep(lost.depth);
            frames.push(&picture)?;
        }
    }
    let (clip, notes) = frames.finish(name, None)?;
    said.extend(notes);
    Ok((clip, said))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The order in which people count: `2` before `10`, and `frame2` before `frame10`.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (text_left, text_right) = (until_digit(left), until_digit(right));
        match text_left.cmp(text_right) {
            Ordering::Equal => {}
            other => return other,
        }
        (left, right) = (&left[text_left.len()..], &right[text_right.len()..]);
        let (digits_left, digits_right) = (digits(left), digits(right));
        match compare_numbers(digits_left, digits_right) {
            Ordering::Equal => {}
            other => return other,
        }
        (left, right) = (&left[digits_left.len()..], &right[digits_right.len()..]);
        if left.is_empty() || right.is_empty() {
            return left.len().cmp(&right.len()).then_with(|| a.cmp(b));
        }
    }
}

fn until_digit(text: &str) -> &str {
    &text[..text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len())]
}

fn digits(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())]
}

/// Numbers of any length.
fn compare_numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// What stands before the last number of a name, and the number.
fn numbered(path: &Path) -> Option<(String, u64)> {
    let stem = path.file_stem()?.to_string_lossy().into_owned();
    let end = stem.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = stem[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| {
        // The start of the next character.
        at + stem[at..].chars().next().map_or(1, char::len_utf8)
    });
    let number = stem[start..end].parse().ok()?;
    Some((format!("{}…{}", &stem[..start], &stem[end..]), number))
}

/// A word about numbers that are missing or there twice.
///
/// # Errors
/// Two sequences in one folder, of which neither is the clip.
fn numbering(folder: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let at = folder.display();
    let numbers: Option<Vec<(String, u64)>> = files.iter().map(|path| numbered(path)).collect();
    let Some(numbers) = numbers else {
        return Ok(vec![format!("{at}: not all pictures have numbers; frames are in the order of the names")]);
    };
    let Some((first, _)) = numbers.first() else { return Ok(Vec::new()) };
    if let Some((other, _)) = numbers.iter().find(|(prefix, _)| prefix != first) {
        let count = |prefix: &String| numbers.iter().filter(|(p, _)| p == prefix).count();
        let reason = format!(
            "pictures of two sequences, {} of {first} and {} of {other}; a folder of pictures is one clip: give each a \
             folder of its own",
            count(first),
            count(other)
        );
        return Err(Error::config(at.to_string(), reason));
    }
    let mut gaps = Vec::new();
    let (mut missing, mut twice) = (0, 0);
    for pair in numbers.windows(2) {
        let (a, b) = (pair[0].1, pair[1].1);
        match b.checked_sub(a) {
            Some(0) => twice += 1,
            Some(step) if step > 1 => {
                missing += step - 1;
                gaps.push(format!("{} to {}", a.saturating_add(1), b - 1));
            }
            _ => {}
        }
    }
    let mut notes = Vec::new();
    if twice > 0 {
        notes.push(format!("{at}: {twice} numbers are there twice, as 1 and 01; both are frames"));
    }
    let steps = |step: u64| numbers.windows(2).all(|pair| pair[1].1.checked_sub(pair[0].1) == Some(step));
    match numbers.get(1).and_then(|(_, second)| second.checked_sub(numbers[0].1)) {
        Some(step) if step > 1 && numbers.len() > 2 && steps(step) => {
            notes.push(format!("{at}: numbers go up by {step}; no frame between them is missed"));
        }
        _ if missing > 0 => {
            let places = some_of(&gaps);
            notes.push(format!("{at}: {missing} numbers between the first and the last are missing: {places}"));
        }
        _ => {}
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        let mut names = ["10.png", "f2.png", "2.png", "f10.png", "1.png", "f02.png", "f1a.png", "é3.png", "f1.png"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["1.png", "2.png", "10.png", "f1.png", "f1a.png", "f02.png", "f2.png", "f10.png", "é3.png"]);
        let long = ["99999999999999999999999999.png", "100000000000000000000000000.png"];
        assert_eq!(natural(long[0], long[1]), Ordering::Less);
        assert_eq!(natural("a", "a"), Ordering::Equal);
    }

    #[test]
    fn gaps_and_doubles_are_told_and_two_sequences_refused() {
        let said = |names: &[&str]| {
            let files: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
            numbering(Path::new("clip"), &files).map(|notes| notes.join("; ")).map_err(|e| e.to_string())
        };
        assert_eq!(said(&["image-001.png", "image-002.png"]).unwrap(), "");
        assert_eq!(said(&["7.png", "8.png", "9.png"]).unwrap(), "");
        let gap = said(&["a1.png", "a2.png", "a6.png", "a7.png"]).unwrap();
        assert_eq!(gap, "clip: 3 numbers between the first and the last are missing: 3 to 5");
        assert!(said(&["0.png", "5.png", "10.png"]).unwrap().contains("go up by 5"));
        assert!(said(&["1.png", "01.png"]).unwrap().contains("twice"));
        assert!(said(&["a.png", "b.png"]).unwrap().contains("not all pictures have numbers"));
        let error = said(&["left-1.png", "right-1.png", "right-2.png"]).unwrap_err();
        assert!(error.contains("1 of left-… and 2 of right-…"), "{error}");
        assert_eq!(numbered(Path::new("x/é12b.png")), Some(("é…b".into(), 12)));
        assert_eq!(numbered(Path::new("99999999999999999999999.png")), None);
    }
}
