//! Many Sylvester maps, one after the other, in one pass over each row.

use candle_core::Shape;
use rayon::prelude::*;

use super::groups::Groups;
use super::lanes::{dot, dots, move_along};
use super::{Fused, Pass, Real, in_chunks, run_vectorized};

/// `K` maps `x + Q·R·tanh(R̃·Qᵀx + b)` of `M` units: operands `x` `(B, D)` and parameters `(G, K·(M·D + M·(M + 2)))` in the order
/// that [`SylvesterChain`](crate::layers::SylvesterChain) says, of which each row serves `B/G` consecutive rows of `x`. The
/// value is `(B, D + 1)`: the image, and `ln |det|` behind it.
#[derive(Clone, Copy)]
pub(crate) struct SylvesterSteps {
    pub(crate) rows: usize,
    pub(crate) groups: usize,
    pub(crate) dims: usize,
    pub(crate) units: usize,
    pub(crate) steps: usize,
    /// The greatest entry of a diagonal.
    pub(crate) limit: f64,
    /// What keeps `v/|v|²` finite.
    pub(crate) tiny: f64,
}

/// The parameters of one map as they lie: `M` vectors along which axes are reflected, the rows of two triangles from their
/// diagonals on, and shifts; or the gradients of all these.
struct Map<S> {
    v: S,
    r: S,
    r_tilde: S,
    b: S,
}

/// What a row makes of one map.
struct Row<T> {
    /// The row and what reflections make of it, the last first, `(M + 1, D)`: its first `M` entries then are `Qᵀx`.
    along: Vec<T>,
    /// `R·h`, filled up with zeros, and what reflections make of it, `(M + 1, D)`: the last is `Q·R·h`.
    bump: Vec<T>,
    /// `tanh(R̃·Qᵀx + b)`.
    h: Vec<T>,
    /// `2/|v|²` of each reflection.
    turn: Vec<T>,
    /// The diagonals of both triangles, constrained.
    diagonal: Vec<[T; 2]>,
}

/// Where row `i` of a triangle of `units` rows begins, which is the place of its diagonal.
const fn triangle(units: usize, i: usize) -> usize {
    i * units - i * i.saturating_sub(1) / 2
}

impl SylvesterSteps {
    /// Numbers of one map.
    fn per_step(&self) -> usize {
        self.units * self.dims + self.units * (self.units + 2)
    }

    fn width(&self) -> usize {
        self.steps * self.per_step()
    }

    fn grouped(&self) -> Groups {
        Groups { rows: self.rows, groups: self.groups }
    }

    fn map<'a, T>(&self, step: &'a [T]) -> Map<&'a [T]> {
        let corner = triangle(self.units, self.units);
        let (v, rest) = step.split_at(self.units * self.dims);
        let (r, rest) = rest.split_at(corner);
        let (r_tilde, b) = rest.split_at(corner);
        Map { v, r, r_tilde, b }
    }

    fn map_mut<'a, T>(&self, step: &'a mut [T]) -> Map<&'a mut [T]> {
        let corner = triangle(self.units, self.units);
        let (v, rest) = step.split_at_mut(self.units * self.dims);
        let (r, rest) = rest.split_at_mut(corner);
        let (r_tilde, b) = rest.split_at_mut(corner);
        Map { v, r, r_tilde, b }
    }

    fn row<T: Real>(&self) -> Row<T> {
        let zeros = |len: usize| vec![T::ZERO; len];
        Row {
            along: zeros((self.units + 1) * self.dims),
            bump: zeros((self.units + 1) * self.dims),
            h: zeros(self.units),
            turn: zeros(self.units),
            diagonal: vec![[T::ZERO; 2]; self.units],
        }
    }
}

/// `x - turn·(vᵀx)·v` in the place of `x`.
#[inline(always)]
fn reflect<T: Real>(x: &mut [T], v: &[T], turn: T) {
    let back = T::ZERO - turn * dot(v, x);
    move_along(x, v, v, back, T::ZERO);
}

/// Copies row `from` of `rows` to row `to`.
#[inline(always)]
fn copy_row<T: Real>(rows: &mut [T], dims: usize, from: usize, to: usize) {
    rows.copy_within(from * dims..(from + 1) * dims, to * dims);
}

/// One map of one row.
struct Forward<'a, T> {
    sizes: &'a SylvesterSteps,
    step: &'a [T],
    /// `x`, and what comes of it.
    z: &'a mut [T],
    row: &'a mut Row<T>,
}

impl<T: Real> Pass for Forward<'_, T> {
    /// `ln |det|`.
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Forward { sizes, step, z, row } = self;
        let &SylvesterSteps { dims, units, .. } = sizes;
        let Map { v, r, r_tilde, b } = sizes.map(step);
        let (one, two) = (T::from_f64(1.0), T::from_f64(2.0));
        let (limit, tiny) = (T::from_f64(sizes.limit), T::from_f64(sizes.tiny));
        for (turn, v) in row.turn.iter_mut().zip(v.chunks_exact(dims)) {
            *turn = two / (dot(v, v) + tiny);
        }
        row.along[..dims].copy_from_slice(z);
        for j in 0..units {
            // The last reflection comes first.
            let v = &v[(units - 1 - j) * dims..][..dims];
            copy_row(&mut row.along, dims, j, j + 1);
            reflect(&mut row.along[(j + 1) * dims..][..dims], v, row.turn[units - 1 - j]);
        }
        let along = &row.along[units * dims..][..units];
        let mut determinant = 1.0;
        for i in 0..units {
            let at = triangle(units, i);
            row.diagonal[i] = [r[at].tanh_fast() * limit, r_tilde[at].tanh_fast() * limit];
            let [_, own] = row.diagonal[i];
            let height = own * along[i] + dot(&r_tilde[at + 1..at + units - i], &along[i + 1..]) + b[i];
            row.h[i] = height.tanh_fast();
        }
        row.bump[..dims].fill(T::ZERO);
        for i in 0..units {
            let (at, [own, other], h) = (triangle(units, i), row.diagonal[i], row.h[i]);
            row.bump[i] = own * h + dot(&r[at + 1..at + units - i], &row.h[i + 1..]);
            determinant *= (one + own * other * (one - h * h)).to_f64();
        }
        for j in 0..units {
            copy_row(&mut row.bump, dims, j, j + 1);
            reflect(&mut row.bump[(j + 1) * dims..][..dims], &v[j * dims..][..dims], row.turn[j]);
        }
        z.iter_mut().zip(&row.bump[units * dims..]).for_each(|(z, &bump)| *z += bump);
        determinant.ln()
    }
}

/// The way back over one map of one row, which [`Forward`] has just gone: from the gradient of the image in `grad` to that of
/// the row, adding those of parameters.
struct Backward<'a, T> {
    sizes: &'a SylvesterSteps,
    step: &'a [T],
    row: &'a Row<T>,
    grad_log: T,
    grad: &'a mut [T],
    grad_step: &'a mut [T],
    /// Room for two rows.
    room: &'a mut [T],
}

/// The gradient of `y = x - turn·(vᵀx)·v` with respect to `v`, added to `out`, and that of `y` in `grad` turned into that of `x`.
#[inline(always)]
fn reflect_back<T: Real>(x: &[T], v: &[T], turn: T, grad: &mut [T], out: &mut [T]) {
    let (of_x, of_grad) = dots(v, x, grad);
    // turn = 2/(|v|² + tiny) has the gradient -turn²·v.
    move_along(out, grad, x, T::ZERO - turn * of_x, T::ZERO - turn * of_grad);
    move_along(out, v, v, turn * turn * of_x * of_grad, T::ZERO);
    move_along(grad, v, v, T::ZERO - turn * of_grad, T::ZERO);
}

impl<T: Real> Pass for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Backward { sizes, step, row, grad_log, grad, grad_step, room } = self;
        let &SylvesterSteps { dims, units, .. } = sizes;
        let (Map { v, r, r_tilde, .. }, out) = (sizes.map(step), sizes.map_mut(grad_step));
        let (one, two, limit) = (T::from_f64(1.0), T::from_f64(2.0), T::from_f64(sizes.limit));
        let (of_bump, of_along) = room.split_at_mut(dims);
        of_bump.copy_from_slice(grad);
        for j in (0..units).rev() {
            let (v, out) = (&v[j * dims..][..dims], &mut out.v[j * dims..][..dims]);
            reflect_back(&row.bump[j * dims..][..dims], v, row.turn[j], of_bump, out);
        }
        let along = &row.along[units * dims..][..units];
        of_along.fill(T::ZERO);
        for i in 0..units {
            let (h, [own, other]) = (row.h[i], row.diagonal[i]);
            let gate = one - h * h;
            let share = grad_log / (one + own * other * gate);
            // Column i of R, of which rows up to i have an entry.
            let mut of_h = own * of_bump[i] - two * share * own * other * h;
            for k in 0..i {
                of_h += r[triangle(units, k) + i - k] * of_bump[k];
            }
            let of_height = of_h * gate;
            let at = triangle(units, i);
            let (own_r, own_tilde) = (own / limit, other / limit);
            out.r[at] += (of_bump[i] * h + share * other * gate) * limit * (one - own_r * own_r);
            out.r_tilde[at] += (of_height * along[i] + share * own * gate) * limit * (one - own_tilde * own_tilde);
            out.b[i] += of_height;
            of_along[i] += other * of_height;
            for k in i + 1..units {
                out.r[at + k - i] += of_bump[i] * row.h[k];
                out.r_tilde[at + k - i] += of_height * along[k];
                of_along[k] += r_tilde[at + k - i] * of_height;
            }
        }
        for j in (0..units).rev() {
            let place = units - 1 - j;
            let (v, out) = (&v[place * dims..][..dims], &mut out.v[place * dims..][..dims]);
            reflect_back(&row.along[j * dims..][..dims], v, row.turn[place], of_along, out);
        }
        grad.iter_mut().zip(&*of_along).for_each(|(grad, &along)| *grad += along);
    }
}

impl Fused<2> for SylvesterSteps {
    fn name(&self) -> &'static str {
        "sylvester chain"
    }

    fn shape(&self) -> Shape {
        (self.rows, self.dims + 1).into()
    }

    fn forward<T: Real>(&self, [x, params]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        let (dims, width) = (self.dims, self.width());
        let mut out = vec![T::ZERO; self.rows * (dims + 1)];
        self.grouped().spread(&mut out, dims + 1).into_par_iter().for_each(|(group, first, out)| {
            let (params, mut row) = (&params[group * width..][..width], self.row());
            for (out, x) in out.chunks_exact_mut(dims + 1).zip(x[first * dims..].chunks_exact(dims)) {
                let (z, log) = out.split_at_mut(dims);
                z.copy_from_slice(x);
                let mut total = 0.0;
                for step in params.chunks_exact(self.per_step()) {
                    total += run_vectorized(Forward { sizes: self, step, z, row: &mut row });
                }
                log[0] = T::from_f64(total);
            }
        });
        Ok(out)
    }

    fn backward<T: Real>(&self, [x, params]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let (dims, width, per_step) = (self.dims, self.width(), self.per_step());
        let mut grad_x = vec![T::ZERO; self.rows * dims];
        let parts = self.grouped().divided(&mut grad_x, dims);
        let partial = in_chunks(parts.len() * width, width, parts.into_par_iter(), |(group, first, out), sum| {
            let params = &params[group * width..][..width];
            let mut states: Vec<Row<T>> = (0..self.steps).map(|_| self.row()).collect();
            let (mut z, mut room) = (vec![T::ZERO; dims], vec![T::ZERO; 2 * dims]);
            let rows = x[first * dims..].chunks_exact(dims).zip(grad[first * (dims + 1)..].chunks_exact(dims + 1));
            for (out, (x, grad)) in out.chunks_exact_mut(dims).zip(rows) {
                z.copy_from_slice(x);
                for (step, row) in params.chunks_exact(per_step).zip(&mut states) {
                    run_vectorized(Forward { sizes: self, step, z: &mut z, row });
                }
                out.copy_from_slice(&grad[..dims]);
                let steps = params.chunks_exact(per_step).zip(sum.chunks_exact_mut(per_step)).zip(&states);
                for ((step, grad_step), row) in steps.rev() {
                    let (grad_log, grad, room) = (grad[dims], &mut *out, &mut room[..]);
                    run_vectorized(Backward { sizes: self, step, row, grad_log, grad, grad_step, room });
                }
            }
        });
        Ok([Some(grad_x), Some(self.grouped().summed(partial, width))])
    }
}
