//! The gated activation `tanh(a) · sigmoid(b)` of rows whose first half is `a` and whose second is `b`.
//!
//! Loops run over whole rows through functions of their own: the compiler then knows that their slices do not overlap
//! and vectorises them.

use super::super::{Pass, Real, run_vectorized};

/// Replaces `a` by `tanh a` and `b` by `sigmoid b`, and sets `gated` to their product.
///
/// A sigmoid is `½ + ½ tanh(b/2)`; NaN stays NaN.
pub fn gate<T: Real>(hidden: usize, rows: &mut [T], gated: &mut [T]) {
    run_vectorized(Gate { hidden, rows, gated });
}

/// The arguments of [`gate`].
struct Gate<'a, T> {
    hidden: usize,
    rows: &'a mut [T],
    gated: &'a mut [T],
}

impl<T: Real> Pass for Gate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let rows = self.rows.chunks_exact_mut(2 * self.hidden);
        for (row, gated) in rows.zip(self.gated.chunks_exact_mut(self.hidden)) {
            let (a, b) = row.split_at_mut(self.hidden);
            tanh(a);
            sigmoid(b);
            multiply(a, b, gated);
        }
    }
}

#[inline(always)]
fn tanh<T: Real>(row: &mut [T]) {
    row.iter_mut().for_each(|v| *v = v.tanh_fast());
}

#[inline(always)]
fn sigmoid<T: Real>(row: &mut [T]) {
    let half = T::from_f64(0.5);
    row.iter_mut().for_each(|v| *v = half + half * (half * *v).tanh_fast());
}

#[inline(always)]
fn multiply<T: Real>(a: &[T], b: &[T], out: &mut [T]) {
    out.iter_mut().zip(a.iter().zip(b)).for_each(|(slot, (&a, &b))| *slot = a * b);
}

/// For what [`gate`] left in `rows` and the gradient `grad` of the product: sets `gated` to the product, and `out` to the
/// gradients of `a` and of `b` beside each other.
pub fn backward<T: Real>(hidden: usize, rows: &[T], grad: &[T], gated: &mut [T], out: &mut [T]) {
    run_vectorized(Backward { hidden, rows, grad, gated, out });
}

/// The arguments of [`backward`].
struct Backward<'a, T> {
    hidden: usize,
    rows: &'a [T],
    grad: &'a [T],
    gated: &'a mut [T],
    out: &'a mut [T],
}

impl<T: Real> Pass for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let h = self.hidden;
        let rows = self.rows.chunks_exact(2 * h).zip(self.out.chunks_exact_mut(2 * h));
        let products = self.grad.chunks_exact(h).zip(self.gated.chunks_exact_mut(h));
        for ((row, out), (grad, gated)) in rows.zip(products) {
            let (a, b) = row.split_at(h);
            let (da, db) = out.split_at_mut(h);
            multiply(a, b, gated);
            slope(a, b, grad, da, |a, b, g, one| g * b * (one - a * a));
            slope(a, b, grad, db, |a, b, g, one| g * a * b * (one - b));
        }
    }
}

/// One of the gradients by its formula.
#[inline(always)]
fn slope<T: Real>(a: &[T], b: &[T], grad: &[T], out: &mut [T], formula: impl Fn(T, T, T, T) -> T) {
    let one = T::from_f64(1.0);
    for (((slot, &a), &b), &g) in out.iter_mut().zip(a).zip(b).zip(grad) {
        *slot = formula(a, b, g, one);
    }
}
