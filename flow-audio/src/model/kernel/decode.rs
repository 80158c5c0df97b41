//! The inverse of WaveFlow's flow, row by row: a row's parameters come from rows that are known by then.

use flow_core::kernels::Real;

use super::forward::{Row, Taps, front, run, tiles};
use super::{Shape, Weights};

/// The last columns of every row of every layer's input, for a width-causal network that is given a waveform in pieces.
pub(in super::super) struct History<T> {
    /// `(h - 1, 2 d, C)` for every layer.
    layers: Vec<Vec<T>>,
}

impl<T: Real> History<T> {
    /// That of nothing: zeros, with which a whole pass is padded.
    pub fn new(s: &Shape) -> Self {
        let zeros = |d: &[usize; 2]| vec![T::ZERO; s.rows() * 2 * d[1] * s.channels];
        History { layers: s.dilations.iter().map(zeros).collect() }
    }

    /// Numbers that are kept, whatever was decoded.
    pub fn len(&self) -> usize {
        self.layers.iter().map(Vec::len).sum()
    }

    /// Puts what was before into the padding of a complete row, and remembers its end.
    fn exchange(&mut self, s: &Shape, l: usize, r: usize, row: &mut [T]) {
        let len = 2 * s.dilations[l][1] * s.channels;
        let before = &mut self.layers[l][r * len..][..len];
        row[..len].copy_from_slice(before);
        before.copy_from_slice(&row[row.len() - len..]);
    }
}

/// The inputs of one layer that later rows still see: a ring of `2 d_h + 1` rows, each of all samples.
struct Queue<T> {
    rows: Vec<Vec<T>>,
}

impl<T: Real> Queue<T> {
    fn row(&self, r: usize) -> &[T] {
        &self.rows[r % self.rows.len()]
    }

    fn row_mut(&mut self, r: usize) -> &mut [T] {
        let slot = r % self.rows.len();
        &mut self.rows[slot]
    }
}

/// `x_0 = z_0`, `x_i = (z_i - t_i) e^{-log s_i}` for a batch `(B, h, W)`; also `Σ log s` of every sample.
///
/// With a history, for a batch of one, `z` is the continuation of what was decoded before.
pub(in super::super) fn decode<T: Real>(
    s: &Shape,
    weights: &Weights<T>,
    z: &[T],
    context: &[T],
    mut history: Option<&mut History<T>>,
) -> (Vec<T>, Vec<T>) {
    let (c, batch) = (s.channels, z.len() / s.input_len());
    let mut x = z.to_vec();
    let mut sums = vec![T::ZERO; batch];
    let queue =
        |(l, d): (usize, &[usize; 2])| Queue { rows: vec![vec![T::ZERO; batch * s.pitch(l) * c]; 2 * d[0] + 1] };
    let mut queues: Vec<Queue<T>> = s.dilations.iter().enumerate().map(queue).collect();
    let mut params = vec![T::ZERO; batch * s.width * 2];
    for r in 0..s.rows() {
        params.chunks_exact_mut(2).for_each(|pair| pair.copy_from_slice(&weights.head_bias));
        let first = queues[0].row_mut(r).chunks_exact_mut(s.pitch(0) * c);
        for (row, x) in first.zip(x.chunks_exact(s.input_len())) {
            front(s, weights, &x[r * s.width..][..s.width], &mut row[s.left(0) * c..]);
        }
        for (l, layer) in weights.layers.iter().enumerate() {
            if let Some(history) = history.as_deref_mut() {
                history.exchange(s, l, r, queues[l].row_mut(r));
            }
            let (known, later) = queues.split_at_mut(l + 1);
            let mut next = later.first_mut().map(|q| q.row_mut(r).chunks_exact_mut(s.pitch(l + 1) * c));
            let mut work = Vec::new();
            for (b, params) in params.chunks_exact_mut(2 * s.width).enumerate() {
                let len = s.pitch(l) * c;
                let taps = Taps::new(s, l, r, |row| &known[l].row(row)[b * len..][..len]);
                let row = Row { l, taps, context: s.context_row(&context[b * s.context_len()..], r) };
                let next = next.as_mut().and_then(Iterator::next);
                let next = next.map(|row| &mut row[s.left(l + 1) * c..][..s.width * c]);
                tiles(s, row, next, None, params, &mut work);
            }
            run(s, layer, work);
        }
        let samples = x.chunks_exact_mut(s.input_len()).zip(params.chunks_exact(2 * s.width));
        for ((x, params), sum) in samples.zip(&mut sums) {
            for (x, pair) in x[(r + 1) * s.width..].iter_mut().zip(params.chunks_exact(2)) {
                *x = (*x - pair[1]) * (T::ZERO - pair[0]).exp_bounded();
                *sum += pair[0];
            }
        }
    }
    (x, sums)
}
