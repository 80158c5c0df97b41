//! Which shapes of an array are for training and which for test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flow_core::FlowRng;
use serde::Deserialize;

use crate::{Error, Result};

/// Places in an array.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Splits {
    pub train: Vec<usize>,
    #[serde(default, alias = "val")]
    pub validation: Vec<usize>,
    #[serde(default)]
    pub test: Vec<usize>,
}

/// Where the parts of an array of shapes come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SplitSource {
    /// `splits.json` beside the data if it names them, else drawn at random.
    #[default]
    Beside,
    /// This file.
    File(PathBuf),
    /// Nowhere: all shapes are for training.
    Whole,
}

/// The split of `data` in a file of JSON: `{"name of the data": {"train": [0, 2, …], "test": [1, …]}, …}`, or, in a file
/// that was asked for, one such object by itself.
pub(super) fn named(data: &Path, splits: &SplitSource, count: usize) -> Result<Option<Splits>> {
    let beside = data.with_file_name("splits.json");
    let (path, asked) = match splits {
        SplitSource::Whole => return Ok(Some(Splits { train: (0..count).collect(), ..Splits::default() })),
        SplitSource::File(path) => (path, true),
        SplitSource::Beside if beside.is_file() => (&beside, false),
        SplitSource::Beside => return Ok(None),
    };
    let fault = |reason: String| Error::File { path: path.clone(), reason };
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let stem = data.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let all: std::result::Result<BTreeMap<String, Splits>, _> = serde_json::from_str(&text);
    let split = match all.map(|mut all| all.remove(&stem)) {
        Ok(Some(split)) => split,
        Ok(None) if asked => return Err(fault(format!("has no entry '{stem}', the name of the data"))),
        Ok(None) => return Ok(None),
        Err(_) => {
            let one: Splits = serde_json::from_str(&text).map_err(|e| fault(format!("is no list of splits: {e}")))?;
            // A list without a name may be that of any array in the folder.
            match asked {
                true => one,
                false => return Ok(None),
            }
        }
    };
    let indices = split.train.iter().chain(&split.validation).chain(&split.test);
    if let Some(&bad) = indices.clone().find(|&&i| i >= count) {
        return Err(fault(format!("names shape {bad}, the data have {count} counted from 0")));
    }
    let mut seen = vec![false; count];
    for &i in indices {
        if std::mem::replace(&mut seen[i], true) {
            return Err(fault(format!("names shape {i} twice")));
        }
    }
    Ok(Some(split))
}

/// A random split: a tenth for test, a twentieth for validation, both empty below ten shapes.
pub(super) fn random(count: usize, seed: u64) -> Splits {
    let order = FlowRng::named(seed, "split").permutation(count);
    let (test, validation) = if count < 10 { (0, 0) } else { ((count / 10).max(1), (count / 20).max(1)) };
    let mut split = Splits {
        test: order[..test].to_vec(),
        validation: order[test..test + validation].to_vec(),
        train: order[test + validation..].to_vec(),
    };
    for part in [&mut split.train, &mut split.validation, &mut split.test] {
        part.sort_unstable();
    }
    split
}
