//! Train, validation and test parts of a data set.

use flow_core::FlowRng;
use flow_core::train::Fingerprint;

use super::{Dataset, numbers};
use crate::{Error, Result};

/// The three parts of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Splits {
    /// What the model learns from.
    pub train: Dataset,
    /// What training decisions look at: early stopping, the best checkpoint.
    pub validation: Dataset,
    /// What is reported, and looked at by nothing else.
    pub test: Dataset,
}

impl Splits {
    /// Cuts one set into three by a seeded permutation: `validation` and `test` images, the rest to train.
    ///
    /// # Errors
    /// Parts that leave no image to train on.
    pub fn cut(set: &Dataset, validation: usize, test: usize, seed: u64) -> Result<Self> {
        let (rest, test) = hold_out(set, test, seed, "test")?;
        let (train, validation) = hold_out(&rest, validation, seed, "validation")?;
        Ok(Splits { train, validation, test })
    }

    /// By what a run knows its data again.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&[("train", &self.train), ("validation", &self.validation), ("test", &self.test)])
    }

    /// What was left out, changed or rounded in reading, every sentence once.
    pub fn notes(&self) -> Vec<&str> {
        let mut notes: Vec<&str> = Vec::new();
        for note in [&self.train, &self.validation, &self.test].into_iter().flat_map(|set| set.notes()) {
            if !notes.contains(&note.as_str()) {
                notes.push(note);
            }
        }
        notes
    }

    /// The same step applied to all three parts.
    ///
    /// # Errors
    /// Those of the step.
    pub fn map(self, step: impl Fn(Dataset) -> Result<Dataset>) -> Result<Self> {
        Ok(Splits { train: step(self.train)?, validation: step(self.validation)?, test: step(self.test)? })
    }
}

/// The fingerprint of some parts.
pub(crate) fn fingerprint(parts: &[(&str, &Dataset)]) -> Fingerprint {
    parts.iter().fold(Fingerprint::new("images"), |print, (name, set)| print.part(name, set.len(), set.hash()))
}

/// The parts that a source has of its own.
pub(crate) struct Parts {
    pub(crate) train: Dataset,
    pub(crate) validation: Option<Dataset>,
    pub(crate) test: Option<Dataset>,
}

impl Parts {
    /// A source without parts.
    pub(crate) fn whole(train: Dataset) -> Self {
        Parts { train, validation: None, test: None }
    }

    /// The same parts with a word about how they were read.
    pub(crate) fn with_note(mut self, note: Option<String>) -> Self {
        self.train = self.train.with_notes(note);
        self
    }

    /// Numbered classes of all parts: a small part may lack the highest one.
    ///
    /// # Errors
    /// None that a source can cause.
    pub(crate) fn with_equal_classes(self) -> Result<Self> {
        let parts = [Some(&self.train), self.validation.as_ref(), self.test.as_ref()];
        let classes = parts.into_iter().flatten().map(|set| set.class_names().len()).max().unwrap_or(0);
        let widen = |set: Dataset| match set.labels().map(<[u32]>::to_vec) {
            Some(labels) => set.with_labels(labels, numbers(classes)),
            None => Ok(set),
        };
        Ok(Parts {
            train: widen(self.train)?,
            validation: self.validation.map(widen).transpose()?,
            test: self.test.map(widen).transpose()?,
        })
    }
}

/// `(rest, held out)`, both in the order of a permutation that depends on `seed` and `part` alone, so
/// that the first images of either are a fair sample of a source sorted by class.
pub(crate) fn hold_out(set: &Dataset, count: usize, seed: u64, part: &str) -> Result<(Dataset, Dataset)> {
    if count >= set.len() {
        let reason = format!("cannot hold {count} of {} images out for {part}", set.len());
        return Err(Error::config(set.source(), reason));
    }
    let order = FlowRng::named(seed, part).permutation(set.len());
    let (held, rest) = order.split_at(count);
    Ok((set.subset(rest.iter().copied())?, set.subset(held.iter().copied())?))
}

/// How many of `count` images a fraction means: rounded, at least one where the fraction is not zero.
pub fn share(count: usize, fraction: f64) -> usize {
    if fraction <= 0.0 { 0 } else { ((count as f64 * fraction).round() as usize).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting() -> Dataset {
        Dataset::new((0..100).collect(), [1, 1, 1], 256, "x").unwrap()
    }

    #[test]
    fn parts_are_disjoint_complete_and_decided_by_the_seed() {
        let splits = Splits::cut(&counting(), 10, 20, 3).unwrap();
        assert_eq!((splits.train.len(), splits.validation.len(), splits.test.len()), (70, 10, 20));
        let mut all = [splits.train.images(), splits.validation.images(), splits.test.images()].concat();
        all.sort_unstable();
        assert_eq!(all, counting().images());
        assert_eq!(splits, Splits::cut(&counting(), 10, 20, 3).unwrap());
        assert_ne!(splits.test, Splits::cut(&counting(), 10, 20, 4).unwrap().test);
        // The test part must not move when somebody asks for a larger validation part.
        assert_eq!(splits.test, Splits::cut(&counting(), 30, 20, 3).unwrap().test);
    }

    #[test]
    fn nothing_left_to_train_on_is_an_error() {
        assert!(Splits::cut(&counting(), 80, 20, 0).is_err());
        assert!(Splits::cut(&counting(), 0, 0, 0).unwrap().test.is_empty());
        assert_eq!((share(10, 0.0), share(10, 0.01), share(10, 0.25)), (0, 1, 3));
    }
}
