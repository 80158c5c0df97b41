//! The greatest of some sums, unit by unit, with where it was found.

use candle_core::Shape;
use rayon::prelude::*;

use super::op::Fused;
use super::{Real, vectorized};

/// `h_u = max_p (s_{p·U + u} + b_{p·U + u})`: operands `s` `(B, P·U)` and `b` `(P·U,)`, value `(B, U)`. Of equal sums the
/// first is chosen, and gets the gradient.
#[derive(Clone, Copy)]
pub(crate) struct Maxout {
    pub(crate) batch: usize,
    pub(crate) units: usize,
    pub(crate) pieces: usize,
}

impl Maxout {
    /// The greatest sums, and the pieces that they are of.
    pub(crate) fn choose<T: Real>(&self, sums: &[T], bias: &[T]) -> (Vec<T>, Vec<u8>) {
        let (units, width) = (self.units.max(1), (self.units * self.pieces).max(1));
        let (mut value, mut chosen) = (vec![T::ZERO; self.batch * self.units], vec![0; self.batch * self.units]);
        let rows = value.par_chunks_mut(units).zip(chosen.par_chunks_mut(units)).zip(sums.par_chunks(width));
        rows.for_each(|((value, chosen), sums)| {
            for (piece, (sums, bias)) in sums.chunks_exact(units).zip(bias.chunks_exact(units)).enumerate() {
                vectorized(|| {
                    for (((h, c), &s), &b) in value.iter_mut().zip(chosen.iter_mut()).zip(sums).zip(bias) {
                        let sum = s + b;
                        // NaN stays, wherever it is.
                        #[allow(clippy::eq_op, reason = "only NaN differs from itself")]
                        let wins = piece == 0 || sum > *h || sum != sum;
                        *h = if wins { sum } else { *h };
                        *c = if wins { piece as u8 } else { *c };
                    }
                });
            }
        });
        (value, chosen)
    }

    /// The gradient of the sums, `(B, P·U)`: that of each unit in the place of its chosen piece.
    pub(crate) fn spread<T: Real>(&self, chosen: &[u8], grad: &[T]) -> Vec<T> {
        let (units, width) = (self.units.max(1), (self.units * self.pieces).max(1));
        let mut out = vec![T::ZERO; self.batch * self.units * self.pieces];
        let rows = out.par_chunks_mut(width).zip(chosen.par_chunks(units)).zip(grad.par_chunks(units));
        rows.for_each(|((out, chosen), grad)| {
            for (u, (&piece, &g)) in chosen.iter().zip(grad).enumerate() {
                out[usize::from(piece) * units + u] = g;
            }
        });
        out
    }
}

impl Fused<2> for Maxout {
    fn name(&self) -> &'static str {
        "maxout"
    }

    fn shape(&self) -> Shape {
        (self.batch, self.units).into()
    }

    fn forward<T: Real>(&self, [sums, bias]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        Ok(self.choose(sums, bias).0)
    }

    fn backward<T: Real>(&self, [sums, bias]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let of_sums = self.spread(&self.choose(sums, bias).1, grad);
        let mut of_bias = vec![T::ZERO; bias.len()];
        for row in of_sums.chunks_exact(bias.len().max(1)) {
            of_bias.iter_mut().zip(row).for_each(|(sum, &g)| *sum += g);
        }
        Ok([Some(of_sums), Some(of_bias)])
    }
}
