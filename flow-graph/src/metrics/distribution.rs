//! How often each value occurs, and how far two such distributions are apart.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ring_sizes;
use crate::molecule::Molecule;

/// Counts by value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Distribution<K: Ord> {
    counts: BTreeMap<K, u64>,
}

impl<K: Ord> Default for Distribution<K> {
    fn default() -> Self {
        Distribution { counts: BTreeMap::new() }
    }
}

impl<K: Ord> Distribution<K> {
    /// Counts one more.
    pub fn add(&mut self, value: K) {
        *self.counts.entry(value).or_default() += 1;
    }

    /// Values with their counts, in order.
    pub fn counts(&self) -> impl Iterator<Item = (&K, u64)> {
        self.counts.iter().map(|(value, &count)| (value, count))
    }

    /// Number of values counted.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The share of a value, 0 where nothing is counted.
    pub fn fraction(&self, value: &K) -> f64 {
        self.counts.get(value).map_or(0.0, |&count| count as f64 / self.total() as f64)
    }

    /// Total variation: half the summed differences of the shares, 0 for equal distributions and 1 for
    /// disjoint ones. `None` unless both count something, or neither does (then 0).
    pub fn distance(&self, other: &Self) -> Option<f64> {
        match (self.total(), other.total()) {
            (0, 0) => return Some(0.0),
            (0, _) | (_, 0) => return None,
            _ => {}
        }
        let here = self.counts.keys().map(|value| (self.fraction(value) - other.fraction(value)).abs());
        let only_there = other.counts.keys().filter(|value| !self.counts.contains_key(value));
        Some((here.sum::<f64>() + only_there.map(|value| other.fraction(value)).sum::<f64>()) / 2.0)
    }
}

impl Distribution<usize> {
    /// The mean, `None` where nothing is counted.
    pub fn mean(&self) -> Option<f64> {
        let sum: f64 = self.counts.iter().map(|(&value, &count)| value as f64 * count as f64).sum();
        (self.total() > 0).then(|| sum / self.total() as f64)
    }
}

/// What a set of molecules is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Structure {
    /// Heavy atoms per molecule.
    pub sizes: Distribution<usize>,
    /// Kinds of atoms, such as `C` and `N+`.
    pub atoms: Distribution<String>,
    /// Kinds of bonds in Kekulé form.
    pub bonds: Distribution<&'static str>,
    /// Sizes of rings, see [`ring_sizes`].
    pub ring_sizes: Distribution<usize>,
    /// Rings per molecule.
    pub ring_counts: Distribution<usize>,
}

impl Structure {
    /// The structure of a set of molecules.
    pub fn of<'a>(molecules: impl IntoIterator<Item = &'a Molecule>) -> Self {
        let mut structure = Structure::default();
        for molecule in molecules {
            structure.sizes.add(molecule.len());
            molecule.atoms().for_each(|atom| structure.atoms.add(atom.to_string()));
            let name = |order: u8| ["single", "double", "triple"][usize::from(order) - 1];
            molecule.bonds().for_each(|(_, _, bond)| structure.bonds.add(name(bond.order())));
            let rings = ring_sizes(molecule);
            structure.ring_counts.add(rings.len());
            rings.into_iter().for_each(|size| structure.ring_sizes.add(size));
        }
        structure
    }

    /// How far each distribution is from that of another set.
    pub fn distances(&self, other: &Structure) -> Distances {
        Distances {
            sizes: self.sizes.distance(&other.sizes),
            atoms: self.atoms.distance(&other.atoms),
            bonds: self.bonds.distance(&other.bonds),
            ring_sizes: self.ring_sizes.distance(&other.ring_sizes),
            ring_counts: self.ring_counts.distance(&other.ring_counts),
        }
    }
}

/// Total variation of the distributions of a [`Structure`], `None` where one of them is empty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Distances {
    /// Of the numbers of atoms.
    pub sizes: Option<f64>,
    /// Of the kinds of atoms.
    pub atoms: Option<f64>,
    /// Of the kinds of bonds.
    pub bonds: Option<f64>,
    /// Of the sizes of rings.
    pub ring_sizes: Option<f64>,
    /// Of the numbers of rings.
    pub ring_counts: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[usize]) -> Distribution<usize> {
        let mut distribution = Distribution::default();
        values.iter().for_each(|&value| distribution.add(value));
        distribution
    }

    #[test]
    fn total_variation_of_known_distributions() {
        assert_eq!(of(&[1, 2]).distance(&of(&[2, 1, 1, 2])), Some(0.0));
        assert_eq!(of(&[1, 1]).distance(&of(&[2])), Some(1.0));
        assert_eq!(of(&[1, 2]).distance(&of(&[2, 2, 3, 3])), Some(0.5));
        assert_eq!((of(&[]).distance(&of(&[1])), of(&[]).distance(&of(&[]))), (None, Some(0.0)));
        assert_eq!((of(&[1, 2, 2]).mean(), of(&[]).mean()), (Some(5.0 / 3.0), None));
    }
}
