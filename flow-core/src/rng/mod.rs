//! The one source of randomness: explicit, seedable, serialisable.
//!
//! Candle's CPU generator cannot be seeded, so nothing in this workspace uses it. A [`FlowRng`] is
//! handed down as an argument; the same seed gives the same bits on the same machine whatever the
//! number of threads, and its state goes into checkpoints ([`FlowRng`] is `Serialize`).
//!
//! What is random about a sample must not depend on who computes it, or on what else is computed beside it: a batch that
//! four processes share out is to be the batch of one. [`FlowRng::for_rows`] gives every row of what is drawn a stream of
//! its own, found by the row's place in the whole batch ([`Share`]).

mod share;

use candle_core::{DType, Device, Shape, Tensor};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::hash::Fnv;

pub use share::Share;

/// Tensors of more numbers than this are drawn in parallel where rows have streams of their own.
const PARALLEL: usize = 1 << 14;

/// A seeded ChaCha12 generator that draws tensors.
///
/// ```
/// use candle_core::{DType, Device};
/// use flow_core::FlowRng;
///
/// # fn main() -> flow_core::Result<()> {
/// let mut rng = FlowRng::seed_from(7);
/// let noise = rng.normal((2, 3), DType::F32, &Device::Cpu)?;
/// assert_eq!(noise.dims(), &[2, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FlowRng {
    rng: ChaCha12Rng,
    /// The rows that tensors are drawn for; what is saved is the state alone.
    #[serde(skip)]
    rows: Option<Share>,
}

/// The streams of the rows of one draw.
struct Streams {
    /// At the beginning of stream zero.
    rng: ChaCha12Rng,
    /// The stream of the first row.
    first: u64,
}

impl Streams {
    fn row(&self, row: usize) -> ChaCha12Rng {
        let mut rng = self.rng.clone();
        rng.set_stream(self.first.wrapping_add(row as u64));
        rng
    }
}

impl FlowRng {
    /// A generator that depends on `seed` alone.
    pub fn seed_from(seed: u64) -> Self {
        Self::of(seed)
    }

    /// A generator for one named purpose, independent of the order in which purposes are asked for.
    ///
    /// Parameters are initialised this way, so that adding a layer does not change the others.
    pub fn named(seed: u64, name: &str) -> Self {
        let hash = Fnv::new().bytes(name.as_bytes()).value();
        Self::of(seed ^ hash.rotate_left(17))
    }

    fn of(seed: u64) -> Self {
        FlowRng { rng: ChaCha12Rng::seed_from_u64(seed), rows: None }
    }

    /// A child generator, for the same rows; the parent advances.
    pub fn fork(&mut self) -> Self {
        FlowRng { rows: self.rows, ..Self::of(self.rng.random()) }
    }

    /// The same generator for some rows of a batch: row `i` of a tensor that it draws depends on the state and on the
    /// row's place in the whole batch, and on nothing else. Processes that share a batch draw the numbers of one process,
    /// each only its own.
    ///
    /// This holds for tensors whose first dimension is the number of rows at hand or a multiple of it (so many rows for
    /// each). Everything else, single numbers and permutations too, is drawn as ever: the same for every share of a batch.
    /// Where rows are processed one by one, [`FlowRng::per_row`] has a generator for each.
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use flow_core::{FlowRng, Share};
    ///
    /// # fn main() -> flow_core::Result<()> {
    /// let rng = FlowRng::seed_from(7);
    /// let draw = |share: Share| rng.for_rows(share).normal((share.count, 3), DType::F32, &Device::Cpu);
    /// let whole = draw(Share::whole(5))?.to_vec2::<f32>()?;
    /// assert_eq!(whole[2..], draw(Share { first: 2, count: 3, of: 5 })?.to_vec2::<f32>()?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn for_rows(&self, rows: Share) -> Self {
        FlowRng { rng: self.rng.clone(), rows: Some(rows) }
    }

    /// Whether this is a generator for rows ([`FlowRng::for_rows`]).
    pub fn is_for_rows(&self) -> bool {
        self.rows.is_some()
    }

    /// Calls `f` with this generator for other rows if it is one for rows ([`FlowRng::for_rows`]), with itself otherwise:
    /// for what takes its rows in parts. The state is the same for every part then.
    pub fn at_rows<R>(&mut self, rows: Share, f: impl FnOnce(&mut FlowRng) -> R) -> R {
        if self.rows.is_some() { f(&mut self.for_rows(rows)) } else { f(self) }
    }

    /// Calls `f` with the number of each row and a generator: one of its own for every row of a generator for rows
    /// ([`FlowRng::for_rows`]), otherwise this one again and again.
    ///
    /// # Errors
    /// The first of `f`.
    pub fn per_row<T, E>(
        &mut self,
        rows: usize,
        mut f: impl FnMut(usize, &mut FlowRng) -> std::result::Result<T, E>,
    ) -> std::result::Result<Vec<T>, E> {
        match self.streams(rows) {
            None => (0..rows).map(|row| f(row, self)).collect(),
            Some(streams) => (0..rows).map(|row| f(row, &mut FlowRng { rng: streams.row(row), rows: None })).collect(),
        }
    }

    /// Which of how many rows `rows` rows are here: all of them unless this is a generator for rows.
    ///
    /// For what is drawn of a batch as a whole, and of which the rows at hand take their part.
    pub fn share_of(&self, rows: usize) -> Share {
        match self.each(rows) {
            Some((share, each)) => share.times(each),
            None => Share::whole(rows),
        }
    }

    /// The share of a generator for rows, and for how many rows each of it stands where there are `rows`.
    fn each(&self, rows: usize) -> Option<(Share, usize)> {
        let share = self.rows?;
        match share.count {
            0 => (rows == 0).then_some((share, 1)),
            count => rows.is_multiple_of(count).then_some((share, rows / count)),
        }
    }

    /// The streams of so many rows; the state advances by one number, however many rows there are.
    fn streams(&mut self, rows: usize) -> Option<Streams> {
        let (share, each) = self.each(rows)?;
        Some(Streams { rng: ChaCha12Rng::seed_from_u64(self.rng.random()), first: share.times(each).first as u64 })
    }

    /// Numbers for a tensor of this shape.
    fn numbers(&mut self, shape: &Shape, draw: impl Fn(&mut ChaCha12Rng) -> f32 + Sync) -> Vec<f32> {
        let (count, rows) = (shape.elem_count(), shape.dims().first().copied().unwrap_or(0));
        let Some(streams) = self.streams(rows) else { return (0..count).map(|_| draw(&mut self.rng)).collect() };
        let mut values = vec![0.0; count];
        let fill = |(row, values): (usize, &mut [f32])| {
            let mut rng = streams.row(row);
            values.iter_mut().for_each(|value| *value = draw(&mut rng));
        };
        let width = (count / rows.max(1)).max(1);
        if count > PARALLEL {
            values.par_chunks_mut(width).enumerate().for_each(fill);
        } else {
            values.chunks_mut(width).enumerate().for_each(fill);
        }
        values
    }

    /// Standard normal numbers.
    pub fn normal(&mut self, shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        let values = self.numbers(&shape, |rng| rng.sample(StandardNormal));
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }

    /// Numbers uniform in `[0, 1)`.
    pub fn uniform(&mut self, shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        let values = self.numbers(&shape, Rng::random);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }

    /// One number uniform in `[0, 1)`.
    pub fn next_uniform(&mut self) -> f64 {
        self.rng.random()
    }

    /// One standard normal number.
    pub fn next_normal(&mut self) -> f64 {
        self.rng.sample(StandardNormal)
    }

    /// One integer uniform in `0..bound`; `bound = 0` gives 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.rng.random_range(0..bound) }
    }

    /// A random permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut self.rng);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// What some rows draw, and what every share draws alike.
    #[derive(Default)]
    struct Drawn {
        normal: Vec<f32>,
        uniform: Vec<f32>,
        single: Vec<f64>,
        common: (f64, Vec<usize>),
    }

    #[test]
    fn rows_do_not_depend_on_how_they_are_shared_out() {
        let rng = FlowRng::seed_from(3);
        let draw = |share: Share, each: usize| {
            let mut rng = rng.for_rows(share).fork();
            let shape = (share.count * each, 5);
            let normal = values(&rng.normal(shape, DType::F32, &Device::Cpu).unwrap());
            // What is drawn next, and numbers in between, are in step on all ranks.
            let common = (rng.next_uniform(), rng.permutation(4));
            let single = rng.per_row(share.count, |_, rng| Ok::<_, ()>(rng.next_normal())).unwrap();
            let uniform = values(&rng.uniform(shape, DType::F32, &Device::Cpu).unwrap());
            Drawn { normal, uniform, single, common }
        };
        for each in [1, 3, 1000] {
            let whole = draw(Share::whole(7), each);
            for ranks in [1, 2, 4, 9] {
                let mut all = Drawn::default();
                for part in (0..ranks).map(|rank| draw(Share::part(7, rank, ranks), each)) {
                    all.normal.extend(part.normal);
                    all.uniform.extend(part.uniform);
                    all.single.extend(part.single);
                    assert_eq!(part.common, whole.common);
                }
                assert_eq!((&all.normal, &all.uniform), (&whole.normal, &whole.uniform), "{each} {ranks}");
                assert_eq!(all.single, whole.single);
            }
        }
    }

    #[test]
    fn rows_are_as_normal_as_one_stream() {
        let t = FlowRng::seed_from(5).for_rows(Share::whole(20_000)).normal((20_000, 2), DType::F32, &Device::Cpu);
        let v = values(&t.unwrap());
        let n = v.len() as f64;
        let moment = |k: i32| v.iter().map(|&x| f64::from(x).powi(k)).sum::<f64>() / n;
        // Five standard errors of the first two moments, and of the correlation of neighbours within and between rows.
        assert!(moment(1).abs() < 5.0 / n.sqrt() && (moment(2) - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
        for lag in [1, 2] {
            let correlation = v.windows(lag + 1).map(|w| f64::from(w[0] * w[lag])).sum::<f64>() / n;
            assert!(correlation.abs() < 5.0 / n.sqrt(), "{lag}: {correlation}");
        }
    }

    #[test]
    fn the_state_is_saved_without_the_rows_and_as_ever() {
        let rng = FlowRng::seed_from(1);
        let text = serde_json::to_string(&rng.for_rows(Share::whole(3))).unwrap();
        assert_eq!(serde_json::from_str::<FlowRng>(&text).unwrap(), rng);
        assert_eq!(text, serde_json::to_string(&rng.rng).unwrap());
    }

    #[test]
    fn shares_are_cut_and_multiplied() {
        let share = Share::part(103, 1, 4);
        assert_eq!(share, Share { first: 25, count: 26, of: 103 });
        assert_eq!(share.parts(10).map(Share::range).collect::<Vec<_>>(), [25..35, 35..45, 45..51]);
        assert_eq!(share.times(2), Share { first: 50, count: 52, of: 206 });
        assert_eq!(share.within_first(30), Share { first: 25, count: 5, of: 30 });
        assert_eq!(share.within_first(10), Share { first: 10, count: 0, of: 10 });
        let counts: Vec<usize> = (0..4).map(|rank| Share::part(2, rank, 4).count).collect();
        assert_eq!(counts.iter().sum::<usize>(), 2);
        assert!(Share::part(0, 0, 3).is_empty() && Share::whole(0).is_whole());
    }
}
