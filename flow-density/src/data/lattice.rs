//! Columns whose numbers repeat, and the steps between them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Distances are taken for multiples of a step if they are within this share of it.
const EVEN: f64 = 1e-4;
/// Steps of a column, at most: finer ones are those of the numbers themselves.
const MOST_STEPS: f64 = 1e9;
/// A value that fills this share of the rows, and is there this many times, is a spike.
const SPIKE: (f64, usize) = (0.02, 5);

/// Numbers at equal distances, `origin + k·step` with whole `k`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lattice {
    /// One of the numbers.
    pub origin: f64,
    /// The distance from each to the next.
    pub step: f64,
}

impl Lattice {
    /// The number of the lattice that is nearest.
    pub fn nearest(&self, value: f64) -> f64 {
        self.origin + ((value - self.origin) / self.step).round() * self.step
    }

    /// The coarsest lattice that holds these numbers, which are sorted and differ; `None` if they lie at no equal
    /// distances, or there is but one.
    fn of(distinct: &[f64]) -> Option<Self> {
        let lattice = Lattice::of_decimals(distinct).or_else(|| Lattice::of_distances(distinct))?;
        let off = |v: f64| (v - lattice.nearest(v)).abs() > EVEN * lattice.step + blur(distinct);
        (lattice.step > 0.0 && !distinct.iter().any(|&v| off(v))).then_some(lattice)
    }

    /// Of numbers that were written with few decimals: their integers in units of the last place have an exact divisor.
    fn of_decimals(distinct: &[f64]) -> Option<Self> {
        const PLACES: i32 = 15;
        /// What single precision leaves of a decimal, in units of its last place.
        const CLOSE: f64 = 1e-5;
        let range = distinct.last()? - distinct.first()?;
        for places in 0..=PLACES {
            let (scale, blur) = (10.0_f64.powi(places), blur(distinct) * 10.0_f64.powi(places));
            if blur > 0.1 || range * scale > MOST_STEPS {
                return None;
            }
            let whole = |&v: &f64| (v * scale - (v * scale).round()).abs() <= CLOSE + blur;
            if distinct.iter().all(whole) {
                let units: Vec<i64> = distinct.iter().map(|v| (v * scale).round() as i64).collect();
                // Numbers that are closer to each other than to the next place have more places.
                if units.windows(2).any(|pair| pair[0] == pair[1]) {
                    continue;
                }
                let step = units.windows(2).fold(0, |step, pair| divisor(step, pair[1] - pair[0]));
                return Some(Lattice { origin: *units.first()? as f64 / scale, step: step as f64 / scale });
            }
        }
        None
    }

    /// Of other numbers at equal distances, as thirds or integers that were standardised: the divisor of their distances, as
    /// far as those are exact.
    fn of_distances(distinct: &[f64]) -> Option<Self> {
        let (&low, &high) = (distinct.first()?, distinct.last()?);
        let (blur, range) = (blur(distinct), high - low);
        let mut step = 0.0_f64;
        for pair in distinct.windows(2) {
            step = common(step, pair[1] - pair[0], blur);
            if step * MOST_STEPS < range || step * EVEN < blur {
                return None;
            }
        }
        // The whole range tells the step better than one distance; its last digits are of the subtraction.
        let step = range / (range / step).round();
        Some(Lattice { origin: low, step: format!("{step:.11e}").parse().unwrap_or(step) })
    }
}

/// What the last digit of the numbers leaves of their distances.
fn blur(distinct: &[f64]) -> f64 {
    let largest = [distinct.first(), distinct.last()].into_iter().flatten().fold(0.0_f64, |most, v| most.max(v.abs()));
    4.0 * f64::EPSILON * largest
}

fn divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// The greatest common divisor of two distances, of which the first may be zero, as far as they are exact.
fn common(a: f64, b: f64, blur: f64) -> f64 {
    let (mut a, mut b) = (a.max(b), a.min(b));
    while b > blur {
        let rest = a % b;
        // A little more or less than a multiple is one.
        let close = (EVEN * b).max(blur * a / b);
        (a, b) = (b, if rest < close || b - rest < close { 0.0 } else { rest });
    }
    if b > 0.0 { b } else { a }
}

/// How often the numbers of a column repeat.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Census {
    pub(super) rows: usize,
    /// Numbers that differ.
    pub(super) distinct: usize,
    /// Those of them that still differ when models see them.
    pub(super) seen: usize,
    /// The most frequent number and how often it is there.
    mode: (f64, usize),
    pub(super) lattice: Option<Lattice>,
}

impl Census {
    /// Of the numbers of a column, which models see through `seen`.
    pub(super) fn of(mut values: Vec<f64>, seen: impl Fn(f64) -> f32) -> Self {
        let rows = values.len();
        values.sort_by(f64::total_cmp);
        let mode = values.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).max_by_key(|run| run.1);
        values.dedup();
        let mut narrow: Vec<f32> = values.iter().map(|&v| seen(v)).collect();
        narrow.dedup();
        let lattice = Lattice::of(&values);
        Census { rows, distinct: values.len(), seen: narrow.len(), mode: mode.unwrap_or((0.0, 0)), lattice }
    }

    /// Whether numbers repeat so often that a flow can make spikes of them.
    pub(super) fn is_discrete(&self) -> bool {
        let (_, count) = self.mode;
        2 * self.distinct <= self.rows || (count >= SPIKE.1 && count as f64 >= SPIKE.0 * self.rows as f64)
    }

    /// Whether single precision makes one number of several.
    pub(super) fn is_blurred(&self) -> bool {
        self.seen < self.distinct
    }
}

/// `35 distinct values in 150 rows, in steps of 0.1, the most frequent 3 in 26`.
impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} distinct values in {} rows", self.distinct, self.rows)?;
        if let Some(lattice) = &self.lattice {
            write!(f, ", in steps of {}", lattice.step)?;
        }
        write!(f, ", the most frequent one, {}, in {}", self.mode.0, self.mode.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarsest_lattice_is_found() {
        let tenths: Vec<f64> = [43, 44, 46, 47, 50, 79].iter().map(|&k| f64::from(k) / 10.0).collect();
        for (values, step) in [
            (vec![0.0, 1.0, 2.0, 5.0], Some(1.0)),
            (vec![0.0, 2.0, 5.0], Some(1.0)),
            (vec![0.0, 4.0, 10.0], Some(2.0)),
            (vec![0.0, 1.0], Some(1.0)),
            (tenths, Some(0.1)),
            (vec![5155487.5291, 5155487.5292, 5155488.1919], Some(0.0001)),
            (vec![-1.0 / 3.0, 0.0, 1.0 / 3.0, 1.0], Some(0.333333333333)),
            (vec![0.0, 1.0, std::f64::consts::SQRT_2, std::f64::consts::PI], None),
            (vec![0.0, 1e-12, 1.0], None),
            (vec![7.0], None),
            (vec![], None),
        ] {
            assert_eq!(Lattice::of(&values).map(|lattice| lattice.step), step, "{values:?}");
        }
        let mut rng = flow_core::FlowRng::seed_from(1);
        let mut normals: Vec<f64> = (0..1000).map(|_| rng.next_normal()).collect();
        normals.sort_by(f64::total_cmp);
        assert_eq!(Lattice::of(&normals), None);
        let lattice = Lattice { origin: 4.3, step: 0.1 };
        assert!((lattice.nearest(4.449) - 4.4).abs() < 1e-12 && (lattice.nearest(4.451) - 4.5).abs() < 1e-12);
    }

    #[test]
    fn numbers_that_repeat_are_discrete_and_measured_ones_are_not() {
        let mut rng = flow_core::FlowRng::seed_from(1);
        let mut normals = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.next_normal()).collect() };
        let census = |values: Vec<f64>| Census::of(values, |v| v as f32);
        assert!(!census(normals(1000)).is_discrete());
        assert!(!census(normals(1000).iter().map(|v| (v * 1e4).round() / 1e4).collect()).is_discrete());
        assert!(census(normals(1000).iter().map(|v| v.round()).collect()).is_discrete());
        // A tenth of zeros among numbers that differ.
        assert!(census([normals(900), vec![0.0; 100]].concat()).is_discrete());
        let rounded = census(vec![1e9, 1e9 + 1.0, 1e9 + 2.0, 2e9]);
        assert!(rounded.is_blurred() && (rounded.distinct, rounded.seen) == (4, 2), "{rounded:?}");
    }
}
