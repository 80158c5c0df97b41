//! Gate, shift and nonlinearity of a block's rows and tangents, and their adjoint.
//!
//! Loops run over whole rows through functions of their own: the compiler then knows that their slices do not overlap
//! and vectorises them.

use super::super::{Real, vectorized};

/// The nonlinearity between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Tanh,
    Softplus,
    Swish,
}

/// `1/(1 + e^-x)`.
#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    let one = T::from_f64(1.0);
    one / (one + (T::ZERO - x).exp_bounded())
}

impl Act {
    /// Value, slope and curvature.
    #[inline(always)]
    fn derivatives<T: Real>(self, u: T) -> [T; 3] {
        let (one, two) = (T::from_f64(1.0), T::from_f64(2.0));
        match self {
            Act::Tanh => {
                let h = u.tanh_fast();
                let slope = one - h * h;
                [h, slope, T::ZERO - two * h * slope]
            }
            Act::Softplus => {
                let s = sigmoid(u);
                [u.softplus(), s, s * (one - s)]
            }
            Act::Swish => {
                let s = sigmoid(u);
                let bend = s * (one - s);
                [u * s, s + u * bend, bend * (two + u * (one - two * s))]
            }
        }
    }
}

/// One row of a block of `count` rows, which holds the values first and then `copies - 1` times the tangents.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) row: usize,
    pub(super) count: usize,
    pub(super) copies: usize,
}

impl Rows {
    #[inline(always)]
    fn of<T>(self, block: &[T], copy: usize, n: usize) -> &[T] {
        &block[(copy * self.count + self.row) * n..][..n]
    }

    #[inline(always)]
    fn of_mut<T>(self, block: &mut [T], copy: usize, n: usize) -> &mut [T] {
        &mut block[(copy * self.count + self.row) * n..][..n]
    }
}

/// `out = a(y ⊙ g + s)` for a row, and the same way up for its tangents; without `act` the last layer's affine map.
#[inline(always)]
pub(super) fn squash<T: Real>(act: Option<Act>, gates: &[T], y: &[T], out: &mut [T], work: &mut [T], at: Rows) {
    let n = gates.len() / 2;
    let (g, s) = gates.split_at(n);
    vectorized(|| match act {
        None => {
            affine(at.of(y, 0, n), g, s, at.of_mut(out, 0, n));
            for copy in 1..at.copies {
                product(at.of(y, copy, n), g, at.of_mut(out, copy, n));
            }
        }
        // Matched here, outside the loops, so that each is compiled for its own activation.
        Some(Act::Tanh) => activate(Act::Tanh, g, s, y, out, work, at),
        Some(Act::Softplus) => activate(Act::Softplus, g, s, y, out, work, at),
        Some(Act::Swish) => activate(Act::Swish, g, s, y, out, work, at),
    });
}

#[inline(always)]
fn activate<T: Real>(act: Act, g: &[T], s: &[T], y: &[T], out: &mut [T], work: &mut [T], at: Rows) {
    let n = g.len();
    let y0 = at.of(y, 0, n);
    if at.copies == 1 {
        return values(act, y0, g, s, at.of_mut(out, 0, n));
    }
    let slope = &mut work[..n];
    values_and_slopes(act, y0, g, s, at.of_mut(out, 0, n), slope);
    for copy in 1..at.copies {
        product(at.of(y, copy, n), slope, at.of_mut(out, copy, n));
    }
}

/// The adjoint of [`squash`] in place: `grad` holds gradients of the layer's outputs and gets those of `y`; sums over
/// rows go to the gates and shifts of the group. `work` has room for three rows.
#[inline(always)]
pub(super) fn unsquash<T: Real>(
    act: Option<Act>,
    gates: &[T],
    y: &[T],
    grad: &mut [T],
    sums: &mut [T],
    work: &mut [T],
    at: Rows,
) {
    let n = gates.len() / 2;
    let (g, s) = gates.split_at(n);
    let (dg, ds) = sums.split_at_mut(n);
    vectorized(|| match act {
        None => {
            collect(at.of(y, 0, n), g, at.of_mut(grad, 0, n), dg, ds);
            for copy in 1..at.copies {
                collect_gate(at.of(y, copy, n), g, at.of_mut(grad, copy, n), dg);
            }
        }
        Some(Act::Tanh) => deactivate(Act::Tanh, g, s, y, grad, dg, ds, work, at),
        Some(Act::Softplus) => deactivate(Act::Softplus, g, s, y, grad, dg, ds, work, at),
        Some(Act::Swish) => deactivate(Act::Swish, g, s, y, grad, dg, ds, work, at),
    });
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the inner part of one function, inlined into it")]
fn deactivate<T: Real>(
    act: Act,
    g: &[T],
    s: &[T],
    y: &[T],
    grad: &mut [T],
    dg: &mut [T],
    ds: &mut [T],
    work: &mut [T],
    at: Rows,
) {
    let n = g.len();
    let y0 = at.of(y, 0, n);
    if at.copies == 1 {
        let d = at.of_mut(grad, 0, n);
        times_slope(act, y0, g, s, d);
        return collect(y0, g, d, dg, ds);
    }
    let (slope, rest) = work.split_at_mut(n);
    let (bend, rest) = rest.split_at_mut(n);
    let along = &mut rest[..n];
    slopes_and_bends(act, y0, g, s, slope, bend);
    along.fill(T::ZERO);
    for copy in 1..at.copies {
        // Through the tangent: ḣ = a'(u)·u̇ with u̇ = ẏ·g.
        through_tangent(at.of(y, copy, n), slope, g, at.of_mut(grad, copy, n), along);
    }
    let d = at.of_mut(grad, 0, n);
    for j in 0..n {
        d[j] = d[j] * slope[j] + along[j] * g[j] * bend[j];
        dg[j] += along[j] * slope[j];
    }
    collect(y0, g, d, dg, ds);
}

/// `out = y·g + s`.
#[inline(always)]
fn affine<T: Real>(y: &[T], g: &[T], s: &[T], out: &mut [T]) {
    let n = out.len();
    let (y, g, s) = (&y[..n], &g[..n], &s[..n]);
    for j in 0..n {
        out[j] = y[j] * g[j] + s[j];
    }
}

/// `out = y·g`.
#[inline(always)]
fn product<T: Real>(y: &[T], g: &[T], out: &mut [T]) {
    let n = out.len();
    let (y, g) = (&y[..n], &g[..n]);
    for j in 0..n {
        out[j] = y[j] * g[j];
    }
}

/// `out = a(y·g + s)`.
#[inline(always)]
fn values<T: Real>(act: Act, y: &[T], g: &[T], s: &[T], out: &mut [T]) {
    let n = out.len();
    let (y, g, s) = (&y[..n], &g[..n], &s[..n]);
    for j in 0..n {
        out[j] = act.derivatives(y[j] * g[j] + s[j])[0];
    }
}

/// The same, and `slope = a'(y·g + s)·g`.
#[inline(always)]
fn values_and_slopes<T: Real>(act: Act, y: &[T], g: &[T], s: &[T], out: &mut [T], slope: &mut [T]) {
    let n = out.len();
    let (y, g, s, slope) = (&y[..n], &g[..n], &s[..n], &mut slope[..n]);
    for j in 0..n {
        let [value, steepness, _] = act.derivatives(y[j] * g[j] + s[j]);
        out[j] = value;
        slope[j] = steepness * g[j];
    }
}

/// `d ·= a'(y·g + s)`.
#[inline(always)]
fn times_slope<T: Real>(act: Act, y: &[T], g: &[T], s: &[T], d: &mut [T]) {
    let n = d.len();
    let (y, g, s) = (&y[..n], &g[..n], &s[..n]);
    for j in 0..n {
        d[j] *= act.derivatives(y[j] * g[j] + s[j])[1];
    }
}

/// `slope = a'(y·g + s)` and `bend = a''(y·g + s)`.
#[inline(always)]
fn slopes_and_bends<T: Real>(act: Act, y: &[T], g: &[T], s: &[T], slope: &mut [T], bend: &mut [T]) {
    let n = slope.len();
    let (y, g, s, bend) = (&y[..n], &g[..n], &s[..n], &mut bend[..n]);
    for j in 0..n {
        [_, slope[j], bend[j]] = act.derivatives(y[j] * g[j] + s[j]);
    }
}

/// `along += d·ẏ`, then `d ·= slope·g`.
#[inline(always)]
fn through_tangent<T: Real>(dot: &[T], slope: &[T], g: &[T], d: &mut [T], along: &mut [T]) {
    let n = d.len();
    let (dot, slope, g, along) = (&dot[..n], &slope[..n], &g[..n], &mut along[..n]);
    for j in 0..n {
        along[j] += d[j] * dot[j];
        d[j] *= slope[j] * g[j];
    }
}

/// `dg += d·y`, `ds += d`, then `d ·= g`.
#[inline(always)]
fn collect<T: Real>(y: &[T], g: &[T], d: &mut [T], dg: &mut [T], ds: &mut [T]) {
    let n = d.len();
    let (y, g, dg, ds) = (&y[..n], &g[..n], &mut dg[..n], &mut ds[..n]);
    for j in 0..n {
        dg[j] += d[j] * y[j];
        ds[j] += d[j];
        d[j] *= g[j];
    }
}

/// `dg += d·y`, then `d ·= g`: of a tangent, to which no shift is added.
#[inline(always)]
fn collect_gate<T: Real>(y: &[T], g: &[T], d: &mut [T], dg: &mut [T]) {
    let n = d.len();
    let (y, g, dg) = (&y[..n], &g[..n], &mut dg[..n]);
    for j in 0..n {
        dg[j] += d[j] * y[j];
        d[j] *= g[j];
    }
}
