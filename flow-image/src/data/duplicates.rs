//! Images that are in a data set more than once: those of the test part that training has seen.

use std::collections::HashSet;

use super::{Dataset, Splits};
use crate::Result;

/// How many images of each part are, value by value, images of another part, or of the same one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Duplicates {
    /// Test images that are also training images.
    pub test_in_train: usize,
    /// Validation images that are also training images.
    pub validation_in_train: usize,
    /// Test images that are also validation images.
    pub test_in_validation: usize,
    /// Training images that repeat an earlier one.
    pub train_repeated: usize,
}

impl Duplicates {
    /// Counts them; labels are not compared.
    pub fn of(splits: &Splits) -> Self {
        let train = distinct(&splits.train);
        let validation = distinct(&splits.validation);
        let shared = |set: &Dataset, with: &HashSet<&[u8]>| images(set).filter(|image| with.contains(image)).count();
        Duplicates {
            test_in_train: shared(&splits.test, &train),
            validation_in_train: shared(&splits.validation, &train),
            test_in_validation: shared(&splits.test, &validation),
            train_repeated: splits.train.len() - train.len(),
        }
    }

    /// A sentence about them, with the remedy; nothing where there are none.
    pub fn note(&self, splits: &Splits) -> Option<String> {
        let parts = [
            (self.test_in_train, format!("of {} test images are also training images", splits.test.len())),
            (
                self.validation_in_train,
                format!("of {} validation images are also training images", splits.validation.len()),
            ),
            (self.test_in_validation, format!("of {} test images are also validation images", splits.test.len())),
            (self.train_repeated, format!("of {} training images repeat another one", splits.train.len())),
        ];
        let found: Vec<String> =
            parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        (!found.is_empty()).then(|| format!("duplicates: {}; --dedup removes them", found.join(", ")))
    }
}

/// The parts without images that are in them twice, or in a later part: the test part keeps what it shares with the
/// others, the training part loses it.
///
/// # Errors
/// A training part of which nothing is left.
pub(super) fn dedup(splits: Splits) -> Result<Splits> {
    let before = [&splits.train, &splits.validation, &splits.test].map(Dataset::len);
    let test = without(&splits.test, &HashSet::new())?;
    let mut seen = distinct(&test);
    let validation = without(&splits.validation, &seen)?;
    seen.extend(distinct(&validation));
    let train = without(&splits.train, &seen)?;
    if train.is_empty() {
        let reason = "all training images are also test or validation images; nothing is left to train on";
        return Err(crate::Error::config(splits.train.source(), reason));
    }
    let removed = [before[0] - train.len(), before[1] - validation.len(), before[2] - test.len()];
    let note = format!(
        "--dedup removed {} training, {} validation and {} test images that are there twice",
        removed[0], removed[1], removed[2]
    );
    Ok(Splits { train: train.with_notes([note]), validation, test })
}

/// The first of equal images, unless it is among `seen`.
fn without(set: &Dataset, seen: &HashSet<&[u8]>) -> Result<Dataset> {
    let mut own = HashSet::new();
    let is_new = |(_, image): &(usize, &[u8])| !seen.contains(image) && own.insert(image.to_vec());
    let kept: Vec<usize> = images(set).enumerate().filter(is_new).map(|(index, _)| index).collect();
    set.subset(kept)
}

fn images(set: &Dataset) -> impl Iterator<Item = &[u8]> {
    set.images().chunks_exact(set.image_size().max(1))
}

fn distinct(set: &Dataset) -> HashSet<&[u8]> {
    images(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(values: &[u8]) -> Dataset {
        let pairs = values.iter().flat_map(|&v| [v, 7]).collect::<Vec<u8>>();
        Dataset::new(pairs, [1, 1, 2], 256, "x").unwrap()
    }

    fn splits() -> Splits {
        Splits { train: part(&[1, 2, 3, 3, 4]), validation: part(&[2, 5]), test: part(&[1, 1, 5, 6]) }
    }

    #[test]
    fn shared_and_repeated_images_are_counted() {
        let found = Duplicates::of(&splits());
        assert_eq!((found.test_in_train, found.validation_in_train), (2, 1));
        assert_eq!((found.test_in_validation, found.train_repeated), (1, 1));
        let note = found.note(&splits()).unwrap();
        assert!(note.starts_with("duplicates: 2 of 4 test images are also training images, 1 of 2 val"), "{note}");
        let clean = Splits { train: part(&[1]), validation: part(&[2]), test: part(&[3]) };
        assert_eq!(Duplicates::of(&clean).note(&clean), None);
    }

    #[test]
    fn removal_leaves_every_image_in_one_part_once() {
        let clean = dedup(splits()).unwrap();
        let firsts = |set: &Dataset| set.images().iter().copied().step_by(2).collect::<Vec<u8>>();
        assert_eq!(
            [firsts(&clean.train), firsts(&clean.validation), firsts(&clean.test)],
            [vec![3, 4], vec![2], vec![1, 5, 6]]
        );
        assert_eq!(Duplicates::of(&clean), Duplicates::default());
        assert!(clean.notes()[0].contains("removed 3 training, 1 validation and 1 test"), "{:?}", clean.notes());
        let twins = Splits { train: part(&[1]), validation: part(&[2]), test: part(&[1]) };
        assert!(dedup(twins).unwrap_err().to_string().contains("nothing is left"));
    }
}
