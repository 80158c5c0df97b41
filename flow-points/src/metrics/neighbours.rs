//! Nearest neighbours within and between two sets of clouds: all that MMD, coverage and 1-NNA ask for.

use std::collections::HashSet;

use flow_core::FlowRng;

use super::Distances;
use super::matrix::pairs_within;
use crate::{Error, Result};

/// A cloud's nearest one in some set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// Its place in the set; the first of several that are equally near.
    pub index: usize,
    /// How far it is.
    pub distance: f64,
}

/// What is near a cloud.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The nearest other cloud of its own set, if it is not alone.
    pub own: Option<Nearest>,
    /// The nearest cloud of the other set.
    pub other: Nearest,
}

/// The nearest neighbours of all clouds of two sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// Of every sample.
    pub samples: Vec<Neighbour>,
    /// Of every reference.
    pub references: Vec<Neighbour>,
}

impl Neighbours {
    /// From the distances of all pairs.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when either set is empty.
    pub fn of(distances: &Distances) -> Result<Self> {
        let Distances { samples, across, references } = distances;
        let (n, m) = (across.rows, across.columns);
        let mut met = Met::new(n, m)?;
        for (i, j) in pairs_within(n) {
            met.meet(i, j, samples.at(i, j));
        }
        for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
            met.meet(i, n + j, across.at(i, j));
        }
        for (i, j) in pairs_within(m) {
            met.meet(n + i, n + j, references.at(i, j));
        }
        met.neighbours()
    }
}

/// What clouds of the union (samples, and counted on, references) have met so far.
pub(super) struct Met {
    samples: usize,
    /// The nearest sample and the nearest reference.
    nearest: Vec<[Option<Nearest>; 2]>,
}

impl Met {
    /// Nobody has met anybody yet.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when either set is empty.
    pub fn new(samples: usize, references: usize) -> Result<Self> {
        if samples == 0 || references == 0 {
            let reason = format!("{samples} samples and {references} references; both need at least one");
            return Err(Error::config("metrics", reason));
        }
        Ok(Met { samples, nearest: vec![[None; 2]; samples + references] })
    }

    /// The distance of the nearest cloud of the set of `v` that `u` has met; infinite before the first.
    pub fn least(&self, u: usize, v: usize) -> f64 {
        self.nearest[u][self.set(v)].map_or(f64::INFINITY, |nearest| nearest.distance)
    }

    /// Two different clouds meet.
    pub fn meet(&mut self, u: usize, v: usize, distance: f64) {
        for (from, to) in [(u, v), (v, u)] {
            let set = self.set(to);
            let new = Nearest { index: to - set * self.samples, distance };
            let nearest = &mut self.nearest[from][set];
            if nearest.is_none_or(|old| (new.distance, new.index) < (old.distance, old.index)) {
                *nearest = Some(new);
            }
        }
    }

    fn set(&self, cloud: usize) -> usize {
        usize::from(cloud >= self.samples)
    }

    /// What all have met.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for a cloud that has met none of the other set.
    pub fn neighbours(&self) -> Result<Neighbours> {
        let neighbour = |own: Option<Nearest>, other: Option<Nearest>| -> Result<Neighbour> {
            let other = other.ok_or_else(|| Error::config("metrics", "a distance to the other set is missing"))?;
            Ok(Neighbour { own, other })
        };
        let (samples, references) = self.nearest.split_at(self.samples);
        Ok(Neighbours {
            samples: samples.iter().map(|&[own, other]| neighbour(own, other)).collect::<Result<_>>()?,
            references: references.iter().map(|&[other, own]| neighbour(own, other)).collect::<Result<_>>()?,
        })
    }
}

/// MMD: the mean over references of the distance to the nearest sample.
pub fn minimum_matching_distance(neighbours: &Neighbours) -> f64 {
    let all = &neighbours.references;
    all.iter().map(|reference| reference.other.distance).sum::<f64>() / all.len() as f64
}

/// COV: the share of references that are the nearest one of some sample. Ties go to the first.
pub fn coverage(neighbours: &Neighbours) -> f64 {
    let hit: HashSet<usize> = neighbours.samples.iter().map(|sample| sample.other.index).collect();
    hit.len() as f64 / neighbours.references.len() as f64
}

/// 1-NNA: how often the nearest other cloud of the union comes from the same set (Lopez-Paz & Oquab 2017); one half if the
/// sets cannot be told apart, below it if samples are copies. Ties go to the same set.
pub fn one_nearest_neighbour(neighbours: &Neighbours) -> f64 {
    let right = same_set(neighbours);
    right.iter().filter(|r| **r).count() as f64 / right.len() as f64
}

/// The 1-NNA with a 95 % bootstrap interval over the clouds, neighbours held fixed.
pub fn one_nearest_neighbour_interval(neighbours: &Neighbours, rng: &mut FlowRng) -> (f64, [f64; 2]) {
    const DRAWS: usize = 1000;
    let right = same_set(neighbours);
    let share = |count: usize| count as f64 / right.len() as f64;
    let mut drawn: Vec<f64> =
        (0..DRAWS).map(|_| share((0..right.len()).filter(|_| right[rng.below(right.len())]).count())).collect();
    drawn.sort_by(f64::total_cmp);
    let all = share(right.iter().filter(|r| **r).count());
    (all, [drawn[DRAWS / 40], drawn[DRAWS - 1 - DRAWS / 40]])
}

/// For each sample, then each reference: whether its nearest other cloud is of its own set.
fn same_set(neighbours: &Neighbours) -> Vec<bool> {
    let all = neighbours.samples.iter().chain(&neighbours.references);
    all.map(|n| n.own.is_some_and(|own| own.distance <= n.other.distance)).collect()
}
