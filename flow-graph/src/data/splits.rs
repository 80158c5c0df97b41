//! Train, validation and test parts of a set of molecules, as indices.

use std::path::Path;

use flow_core::FlowRng;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Loaded;
use crate::{Error, Result};

/// Three disjoint lists of indices into one set of molecules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Splits {
    /// What the model learns from.
    pub train: Vec<usize>,
    /// What training decisions look at: early stopping, the best checkpoint.
    pub validation: Vec<usize>,
    /// What is reported, and looked at by nothing else.
    pub test: Vec<usize>,
    /// Entries that a file of test indices names but that are no molecules, being bad lines.
    pub missing: usize,
}

impl Splits {
    /// Cuts `count` molecules by seeded permutations into fractions, the rest to train.
    ///
    /// A fraction above zero is at least one molecule. The test part depends on its own fraction and the seed
    /// alone, not on that of the validation part.
    ///
    /// # Errors
    /// A fraction outside `[0, 1)`, or parts that leave nothing to train on.
    pub fn cut(count: usize, validation: f64, test: f64, seed: u64) -> Result<Self> {
        let all = (0..count).collect();
        let (rest, test) = hold_out(all, test, count, seed, "test")?;
        let (train, validation) = hold_out(rest, validation, count, seed, "validation")?;
        Ok(Splits { train, validation, test, missing: 0 })
    }

    /// The test part from a file, a JSON array of [`entries`](Loaded::entries); of the others a fraction to
    /// validate on, by a seeded permutation.
    ///
    /// This is how ZINC250k and QM9 are split in the literature (`valid_idx_zinc250k.json`).
    ///
    /// # Errors
    /// A file that is no such array, an index beyond the source or repeated, a fraction outside `[0, 1)`, or
    /// parts that leave nothing to train on; the message names the file.
    pub fn from_file(path: &Path, loaded: &Loaded, validation: f64, seed: u64) -> Result<Self> {
        let listed = read_indices(path, loaded.entry_count)?;
        let mut is_test = vec![false; loaded.entry_count];
        listed.iter().for_each(|&entry| is_test[entry] = true);
        let (test, rest): (Vec<_>, Vec<_>) = (0..loaded.len()).partition(|&index| is_test[loaded.entries[index]]);
        if rest.is_empty() {
            let reason = format!("names all {} molecules, which leaves none to train on", loaded.len());
            return Err(Error::File { path: path.into(), reason });
        }
        let (train, validation) = hold_out(rest, validation, loaded.len(), seed, "validation")?;
        Ok(Splits { train, validation, missing: listed.len() - test.len(), test })
    }
}

/// `(rest, held out)`, both shuffled, so that the first ones of either are a fair sample of a sorted source.
fn hold_out(indices: Vec<usize>, fraction: f64, of: usize, seed: u64, part: &str) -> Result<(Vec<usize>, Vec<usize>)> {
    if !(0.0..1.0).contains(&fraction) {
        return Err(Error::config(part, format!("must be a fraction of at least 0 and below 1, got {fraction}")));
    }
    let count = if fraction > 0.0 { ((of as f64 * fraction).round() as usize).max(1) } else { 0 };
    if count >= indices.len() {
        let reason = format!("cannot hold {count} of {} molecules out, none would be left to train on", indices.len());
        return Err(Error::config(part, reason));
    }
    let order = FlowRng::named(seed, part).permutation(indices.len());
    let shuffled: Vec<usize> = order.into_iter().map(|place| indices[place]).collect();
    let (held, rest) = shuffled.split_at(count);
    Ok((rest.to_vec(), held.to_vec()))
}

/// Indices as such files have them: an array of numbers (ZINC250k), or an object with one array of numbers or of digits in
/// quotes (QM9, `{"valid_idxs": ["5", …]}`).
struct Listed(Vec<usize>);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(ListedVisitor)
    }
}

struct ListedVisitor;

impl<'de> Visitor<'de> for ListedVisitor {
    type Value = Listed;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of indices, or an object that holds one")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Listed, A::Error> {
        let mut indices = Vec::new();
        while let Some(Index(index)) = items.next_element()? {
            indices.push(index);
        }
        Ok(Listed(indices))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> std::result::Result<Listed, A::Error> {
        let Some((_, Listed(indices))) = fields.next_entry::<String, Listed>()? else {
            return Err(serde::de::Error::custom("an object without an array"));
        };
        match fields.next_key::<String>()? {
            Some(second) => Err(serde::de::Error::custom(format!("a second field, '{second}'; which one is meant?"))),
            None => Ok(Listed(indices)),
        }
    }
}

/// A number, or its digits in quotes.
struct Index(usize);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected an index, as 5 or \"5\"")]
        enum Either {
            Number(usize),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(index) => Ok(Index(index)),
            Either::Text(text) => match text.trim().parse() {
                Ok(index) => Ok(Index(index)),
                Err(_) => Err(serde::de::Error::custom(format!("expected an index, found '{text}'"))),
            },
        }
    }
}

/// The distinct indices below `count` in a JSON array.
fn read_indices(path: &Path, count: usize) -> Result<Vec<usize>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let Listed(indices) = serde_json::from_slice(&bytes).map_err(|error| Error::Line {
        path: path.into(),
        line: error.line().max(1),
        column: error.column().max(1),
        reason: format!("expected a JSON array of indices: {error}"),
    })?;
    let fail = |place: usize, reason: String| {
        Err(Error::File { path: path.into(), reason: format!("index {} of the list: {reason}", place + 1) })
    };
    let mut seen = vec![false; count];
    for (place, &index) in indices.iter().enumerate() {
        match seen.get_mut(index) {
            None => return fail(place, format!("{index} is beyond the {count} entries of the data")),
            Some(true) => return fail(place, format!("{index} is there twice")),
            Some(new) => *new = true,
        }
    }
    if indices.is_empty() {
        return Err(Error::File { path: path.into(), reason: "is a list without indices".into() });
    }
    Ok(indices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{OpenOptions, open};

    #[test]
    fn parts_are_disjoint_complete_and_decided_by_the_seed() {
        let splits = Splits::cut(100, 0.1, 0.2, 3).unwrap();
        assert_eq!((splits.train.len(), splits.validation.len(), splits.test.len()), (70, 10, 20));
        let mut all = [&splits.train[..], &splits.validation, &splits.test].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert_eq!(splits, Splits::cut(100, 0.1, 0.2, 3).unwrap());
        assert_ne!(splits.test, Splits::cut(100, 0.1, 0.2, 4).unwrap().test);
        assert_eq!(splits.test, Splits::cut(100, 0.3, 0.2, 3).unwrap().test);
        assert_eq!(Splits::cut(10, 0.001, 0.0, 0).unwrap().validation.len(), 1);
    }

    #[test]
    fn impossible_fractions_are_refused() {
        for (count, validation, test) in
            [(10, 0.5, 0.5), (10, 1.0, 0.0), (10, 0.0, -0.1), (10, f64::NAN, 0.0), (0, 0.0, 0.0)]
        {
            assert!(Splits::cut(count, validation, test, 0).is_err(), "{count} {validation} {test}");
        }
    }

    /// Five entries of which the second is bad.
    fn data() -> (tempfile::TempDir, Loaded) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("five.smi");
        std::fs::write(&path, "smiles\nC\nC(\n# no entry\nCC\n\nCCC\nCCCC\n").unwrap();
        let loaded = open(&path, &OpenOptions::default()).unwrap();
        (folder, loaded)
    }

    #[test]
    fn a_file_of_indices_counts_bad_lines_too() {
        let (folder, loaded) = data();
        let path = folder.path().join("test.json");
        for form in [r#"{"valid_idxs": ["3", "1", "0"]}"#, r#"{"test": [3, 1, 0]}"#, r#"["3", "01", 0]"#, "[3, 1, 0]"] {
            std::fs::write(&path, form).unwrap();
            let splits = Splits::from_file(&path, &loaded, 0.25, 1).unwrap();
            assert_eq!((splits.test.as_slice(), splits.missing), ([0, 2].as_slice(), 1), "{form}");
        }
        let splits = Splits::from_file(&path, &loaded, 0.25, 1).unwrap();
        assert_eq!((splits.test.as_slice(), splits.missing), ([0, 2].as_slice(), 1));
        assert_eq!(loaded.source_strings.get(2), Some("CCC"));
        let mut others = [splits.train, splits.validation].concat();
        others.sort_unstable();
        assert_eq!(others, [1, 3]);
    }

    #[test]
    fn malformed_files_of_indices_say_where() {
        let (folder, loaded) = data();
        let path = folder.path().join("test.json");
        for (content, expected) in [
            ("", "test.json: line 1, column 1: expected a JSON array of indices"),
            ("[1,\n 2", "line 2, column 2"),
            ("[1, -2]", "line 1, column"),
            ("{\"a\": 1}", "expected a JSON array"),
            ("{}", "without an array"),
            ("{\"a\": [1], \"b\": [2]}", "a second field, 'b'"),
            ("[\"x\"]", "found 'x'"),
            ("[1.5]", "expected a JSON array"),
            ("[]", "without indices"),
            ("[4, 5]", "index 2 of the list: 5 is beyond the 5 entries"),
            ("[4, 4]", "index 2 of the list: 4 is there twice"),
            ("[0, 1, 2, 3, 4]", "leaves none to train on"),
            ("[18446744073709551616]", "expected a JSON array"),
        ] {
            std::fs::write(&path, content).unwrap();
            let error = Splits::from_file(&path, &loaded, 0.0, 0).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("test.json"), "{content}: {error}");
        }
    }
}
