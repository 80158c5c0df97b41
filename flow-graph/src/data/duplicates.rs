//! Molecules that occur more than once, within a source and across its parts.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::{MoleculeSet, Splits};
use crate::{Result, smiles};

/// Which molecules of a set are the same by [`smiles::canonical`]: without stereo, whatever the order of the atoms and the
/// Kekulé form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicates {
    /// For every molecule the first one that is the same.
    first: Vec<usize>,
}

/// How many molecules the parts of a split have in common.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shared {
    /// Molecules of the set that repeat an earlier one.
    pub repeated: usize,
    /// Molecules of the validation part that are in the training part too.
    pub validation: usize,
    /// Molecules of the test part that are in the training part too.
    pub test: usize,
}

impl Duplicates {
    /// Compares all molecules of a set, on all threads of rayon's pool.
    pub fn of(molecules: &MoleculeSet) -> Self {
        let name = |index: usize| molecules.get(index).map(|molecule| smiles::canonical(&molecule));
        let names: Vec<Option<String>> = (0..molecules.len()).into_par_iter().map(name).collect();
        let mut seen = HashMap::with_capacity(names.len());
        let mut first = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            first.push(match name {
                Some(name) => *seen.entry(name.as_str()).or_insert(index),
                // What has no name repeats nothing.
                None => index,
            });
        }
        Duplicates { first }
    }

    /// The molecules that repeat no earlier one.
    pub fn distinct(&self) -> Vec<usize> {
        (0..self.first.len()).filter(|&index| self.first[index] == index).collect()
    }

    /// What the parts of a split have in common.
    pub fn shared(&self, splits: &Splits) -> Shared {
        let train: HashSet<usize> = splits.train.iter().map(|&index| self.first[index]).collect();
        let also = |part: &[usize]| part.iter().filter(|&&index| train.contains(&self.first[index])).count();
        Shared {
            repeated: self.first.len() - self.distinct().len(),
            validation: also(&splits.validation),
            test: also(&splits.test),
        }
    }

    /// [`Splits::cut`] of the distinct molecules.
    ///
    /// # Errors
    /// As [`Splits::cut`].
    pub fn cut(&self, validation: f64, test: f64, seed: u64) -> Result<Splits> {
        let distinct = self.distinct();
        let mut splits = Splits::cut(distinct.len(), validation, test, seed)?;
        for part in [&mut splits.train, &mut splits.validation, &mut splits.test] {
            part.iter_mut().for_each(|index| *index = distinct[*index]);
        }
        Ok(splits)
    }

    /// Keeps each molecule once: in the test part where it is there, else in the validation part, else in training.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when nothing is left to train on.
    pub fn removed_from(&self, mut splits: Splits) -> Result<Splits> {
        let mut seen = HashSet::new();
        for part in [&mut splits.test, &mut splits.validation, &mut splits.train] {
            part.retain(|&index| seen.insert(self.first[index]));
        }
        if splits.train.is_empty() {
            let reason =
                "every training molecule is in the validation or test part too, none would be left to train on";
            return Err(crate::Error::config("duplicates", reason));
        }
        Ok(splits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(strings: &[&str]) -> MoleculeSet {
        let mut set = MoleculeSet::new();
        strings.iter().for_each(|s| set.push(&smiles::parse(s).unwrap()).unwrap());
        set
    }

    #[test]
    fn duplicates_are_found_however_written() {
        let set = set(&[
            "CCO",
            "OCC",
            "C1=CC=CC=C1F",
            "Fc1ccccc1",
            "C[C@H](N)O",
            "CC(N)O",
            "CN",
            "c1cc2sc1CCCCCC2",
            "C1CCCCCc2ccc1s2",
        ]);
        let duplicates = Duplicates::of(&set);
        assert_eq!(duplicates.distinct(), [0, 2, 4, 6, 7]);
        let splits = Splits { train: vec![0, 2, 6, 5], validation: vec![7], test: vec![1, 3, 8, 4], missing: 0 };
        assert_eq!(duplicates.shared(&splits), Shared { repeated: 4, validation: 0, test: 3 });
        let kept = duplicates.removed_from(splits).unwrap();
        assert_eq!((kept.train, kept.validation.len(), kept.test.len()), (vec![6], 0, 4));
        let all_held_out = Splits { train: vec![0], test: vec![1], ..Splits::default() };
        assert!(duplicates.removed_from(all_held_out).is_err());
    }

    #[test]
    fn a_cut_of_distinct_molecules_shares_nothing() {
        let strings: Vec<String> = (0..60).map(|i| format!("{}O", "C".repeat(1 + i % 20))).collect();
        let set = set(&strings.iter().map(String::as_str).collect::<Vec<_>>());
        let duplicates = Duplicates::of(&set);
        assert!(duplicates.shared(&Splits::cut(60, 0.1, 0.2, 1).unwrap()).test > 5);
        let splits = duplicates.cut(0.1, 0.2, 1).unwrap();
        assert_eq!((splits.train.len(), splits.validation.len(), splits.test.len()), (14, 2, 4));
        assert_eq!(duplicates.shared(&splits), Shared { repeated: 40, validation: 0, test: 0 });
    }
}
