//! Many planar maps, one after the other, in one pass over each row.

mod inverse;

use candle_core::Shape;
pub(crate) use inverse::{Inverted, Pulled};
use rayon::prelude::*;

use super::groups::Groups;
use super::lanes::{dot, dots, lanes, lanes_mut, move_along};
use super::op::Fused;
use super::{Pass, Real, in_chunks, run_vectorized};

/// Factors of a log-determinant whose product is taken before one logarithm; in f64 it cannot leave the range.
const GROUP: usize = 8;

/// `K` maps `x + û·tanh(wᵀx + b)`: operands `x` `(B, D)` and parameters `(G, K·(2D + 1))`, step by step `u`, `w`, `b`, of
/// which each row serves `B/G` consecutive rows of `x`. The value is `(B, D + 1)`: the image, and `ln |det|` behind it.
#[derive(Clone, Copy)]
pub(crate) struct PlanarSteps {
    pub(crate) rows: usize,
    pub(crate) dims: usize,
    pub(crate) steps: usize,
    pub(crate) groups: usize,
    /// What keeps `wᵀû` above minus one.
    pub(crate) slack: f64,
    /// What keeps `w/|w|²` finite.
    pub(crate) tiny: f64,
}

/// What the maps of a group are, whatever the row, step by step: `û = u + shift·w`.
struct Maps<T> {
    /// `wᵀw`.
    norm: Vec<T>,
    shift: Vec<T>,
    /// `wᵀû`.
    slope: Vec<T>,
    /// The derivatives of the shift with respect to `wᵀu` and `wᵀw`; empty unless gradients are wanted.
    by_along: Vec<T>,
    by_norm: Vec<T>,
}

/// What a row makes of the maps, step by step.
struct Row<T> {
    /// `tanh(wᵀx + b)`, and its derivative.
    bend: Vec<T>,
    gate: Vec<T>,
    /// The gradient of the determinant.
    share: Vec<T>,
}

impl<T: Real> Row<T> {
    fn new(steps: usize) -> Self {
        let zeros = || vec![T::ZERO; steps];
        Row { bend: zeros(), gate: zeros(), share: zeros() }
    }
}

/// Makes [`Maps`].
struct Tabulate<'a, T> {
    sizes: &'a PlanarSteps,
    params: &'a [T],
    with_gradients: bool,
}

impl<T: Real> Pass for Tabulate<'_, T> {
    type Output = Maps<T>;

    #[inline(always)]
    fn run(self) -> Maps<T> {
        let Tabulate { sizes, params, with_gradients } = self;
        let (dims, steps, one) = (sizes.dims, sizes.steps, T::from_f64(1.0));
        let (start, tiny) = (T::from_f64(sizes.slack - 1.0), T::from_f64(sizes.tiny));
        let (mut along, mut norm) = (vec![T::ZERO; steps], vec![T::ZERO; steps]);
        for ((along, norm), step) in along.iter_mut().zip(&mut norm).zip(params.chunks_exact(2 * dims + 1)) {
            let (u, w) = (&step[..dims], &step[dims..2 * dims]);
            (*along, *norm) = dots(w, u, w);
        }
        // Plain loops over numbers, which the compiler turns into vectors.
        let square: Vec<T> = norm.iter().map(|&norm| norm + tiny).collect();
        let mut shift = vec![T::ZERO; steps];
        for ((shift, &along), &square) in shift.iter_mut().zip(&along).zip(&square) {
            *shift = (along.softplus() + start - along) / square;
        }
        let slope = along.iter().zip(&shift).zip(&norm).map(|((&along, &shift), &norm)| along + shift * norm).collect();
        let (mut by_along, mut by_norm) = (Vec::new(), Vec::new());
        if with_gradients {
            (by_along, by_norm) = (vec![T::ZERO; steps], vec![T::ZERO; steps]);
            for ((by, &along), &square) in by_along.iter_mut().zip(&along).zip(&square) {
                *by = (one / (one + (T::ZERO - along).exp_bounded()) - one) / square;
            }
            for ((by, &shift), &square) in by_norm.iter_mut().zip(&shift).zip(&square) {
                *by = (T::ZERO - shift) / square;
            }
        }
        Maps { norm, shift, slope, by_along, by_norm }
    }
}

/// A pass over one row.
struct Forward<'a, T> {
    dims: usize,
    params: &'a [T],
    maps: &'a Maps<T>,
    /// `x`, and what comes of it.
    z: &'a mut [T],
    row: &'a mut Row<T>,
    /// Where the row before each step is kept, if it is.
    path: Option<&'a mut [T]>,
}

impl<T: Real> Pass for Forward<'_, T> {
    /// `ln |det|`.
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Forward { dims, params, maps, z, row, mut path } = self;
        let one = T::from_f64(1.0);
        let numbers = row.bend.iter_mut().zip(&maps.shift);
        for (k, (step, (bend, &shift))) in params.chunks_exact(2 * dims + 1).zip(numbers).enumerate() {
            let (u, w, b) = (&step[..dims], &step[dims..2 * dims], step[2 * dims]);
            if let Some(path) = &mut path {
                path[k * dims..][..dims].copy_from_slice(z);
            }
            *bend = (dot(w, z) + b).tanh_fast();
            move_along(z, u, w, *bend, shift * *bend);
        }
        let mut total = 0.0;
        for (slope, bend) in maps.slope.chunks(GROUP).zip(row.bend.chunks(GROUP)) {
            let factors = slope.iter().zip(bend).map(|(&slope, &bend)| (one + slope * (one - bend * bend)).to_f64());
            total += factors.product::<f64>().ln();
        }
        total
    }
}

/// The way back over one row: from the gradient of the image in `grad` to that of the row, adding those of parameters.
struct Backward<'a, T> {
    dims: usize,
    params: &'a [T],
    maps: &'a Maps<T>,
    path: &'a [T],
    row: &'a mut Row<T>,
    grad_log: T,
    grad: &'a mut [T],
    grad_params: &'a mut [T],
}

/// The factors of a step's gradients.
struct Factors<T> {
    of_height: T,
    bend: T,
    to_u: T,
    by_grad: T,
    by_w: T,
}

impl<T: Real> Pass for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Backward { dims, params, maps, path, row, grad_log, grad, grad_params } = self;
        let (one, two, width) = (T::from_f64(1.0), T::from_f64(2.0), 2 * dims + 1);
        for (((gate, share), &bend), &slope) in row.gate.iter_mut().zip(&mut row.share).zip(&row.bend).zip(&maps.slope)
        {
            *gate = one - bend * bend;
            *share = grad_log / (one + slope * *gate);
        }
        for k in (0..maps.shift.len()).rev() {
            let step = &params[k * width..][..width];
            let (u, w, x) = (&step[..dims], &step[dims..2 * dims], &path[k * dims..][..dims]);
            let (bend, gate, share) = (row.bend[k], row.gate[k], row.share[k]);
            let (shift, slope, norm) = (maps.shift[k], maps.slope[k], maps.norm[k]);
            let (grad_u, grad_w) = dots(grad, u, w);
            // Of the tanh, of its argument, of wᵀû.
            let of_bend = grad_u + shift * grad_w - two * share * slope * bend;
            let (of_height, of_slope) = (of_bend * gate, share * gate);
            // Of the shift in û = u + shift·w, and through it of wᵀu and wᵀw; û has the gradient bend·g + of_slope·w.
            let of_shift = bend * grad_w + of_slope * norm;
            let (of_along, of_norm) = (of_shift * maps.by_along[k], of_shift * maps.by_norm[k]);
            let factors = Factors {
                of_height,
                bend,
                to_u: of_slope + of_along,
                by_grad: shift * bend,
                by_w: two * (of_slope * shift + of_norm),
            };
            let (out_u, rest) = grad_params[k * width..][..width].split_at_mut(dims);
            let (out_w, out_b) = rest.split_at_mut(dims);
            factors.add([u, w, x], grad, out_u, out_w);
            out_b[0] += of_height;
        }
    }
}

impl<T: Real> Factors<T> {
    /// Adds the gradients of `u` and `w`, and takes `grad` back before the step.
    #[inline(always)]
    fn add(&self, [u, w, x]: [&[T]; 3], grad: &mut [T], out_u: &mut [T], out_w: &mut [T]) {
        let ((u, u_rest), (w, w_rest), (x, x_rest)) = (lanes(u), lanes(w), lanes(x));
        let ((grad, grad_rest), (out_u, out_u_rest)) = (lanes_mut(grad), lanes_mut(out_u));
        let (out_w, out_w_rest) = lanes_mut(out_w);
        let whole = u.iter().zip(w).zip(x).zip(grad.iter_mut()).zip(out_u.iter_mut().zip(out_w));
        for ((((u, w), x), grad), (out_u, out_w)) in whole {
            self.add_lanes([u, w, x], grad, out_u, out_w);
        }
        let rest = u_rest.iter().zip(w_rest).zip(x_rest).zip(grad_rest).zip(out_u_rest.iter_mut().zip(out_w_rest));
        for ((((&u, &w), &x), grad), (out_u, out_w)) in rest {
            let slots = [grad, out_u, out_w].map(std::array::from_mut);
            let [grad, out_u, out_w] = slots;
            self.add_lanes([&[u], &[w], &[x]], grad, out_u, out_w);
        }
    }

    #[inline(always)]
    fn add_lanes<const N: usize>(
        &self,
        [u, w, x]: [&[T; N]; 3],
        grad: &mut [T; N],
        out_u: &mut [T; N],
        out_w: &mut [T; N],
    ) {
        let &Factors { of_height, bend, to_u, by_grad, by_w } = self;
        for lane in 0..N {
            let (u, w, g) = (u[lane], w[lane], grad[lane]);
            out_u[lane] += bend * g + to_u * w;
            out_w[lane] += of_height * x[lane] + to_u * u + by_grad * g + by_w * w;
            grad[lane] = g + of_height * w;
        }
    }
}

impl PlanarSteps {
    fn width(&self) -> usize {
        self.steps * (2 * self.dims + 1)
    }

    fn grouped(&self) -> Groups {
        Groups { rows: self.rows, groups: self.groups }
    }
}

impl Fused<2> for PlanarSteps {
    fn name(&self) -> &'static str {
        "planar chain"
    }

    fn shape(&self) -> Shape {
        (self.rows, self.dims + 1).into()
    }

    fn forward<T: Real>(&self, [x, params]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        let (dims, width) = (self.dims, self.width());
        let mut out = vec![T::ZERO; self.rows * (dims + 1)];
        self.grouped().spread(&mut out, dims + 1).into_par_iter().for_each(|(group, first, out)| {
            let params = &params[group * width..][..width];
            let maps = run_vectorized(Tabulate { sizes: self, params, with_gradients: false });
            let mut row = Row::new(self.steps);
            for (out, x) in out.chunks_exact_mut(dims + 1).zip(x[first * dims..].chunks_exact(dims)) {
                let (z, log) = out.split_at_mut(dims);
                z.copy_from_slice(x);
                let pass = Forward { dims, params, maps: &maps, z, row: &mut row, path: None };
                log[0] = T::from_f64(run_vectorized(pass));
            }
        });
        Ok(out)
    }

    fn backward<T: Real>(&self, [x, params]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let (dims, width) = (self.dims, self.width());
        let mut grad_x = vec![T::ZERO; self.rows * dims];
        let parts = self.grouped().divided(&mut grad_x, dims);
        let partial = in_chunks(parts.len() * width, width, parts.into_par_iter(), |(group, first, out), sum| {
            let params = &params[group * width..][..width];
            let maps = run_vectorized(Tabulate { sizes: self, params, with_gradients: true });
            let (mut row, mut path) = (Row::new(self.steps), vec![T::ZERO; self.steps * dims]);
            let mut z = vec![T::ZERO; dims];
            let rows = x[first * dims..].chunks_exact(dims).zip(grad[first * (dims + 1)..].chunks_exact(dims + 1));
            for (out, (x, grad)) in out.chunks_exact_mut(dims).zip(rows) {
                z.copy_from_slice(x);
                let (maps, row, kept) = (&maps, &mut row, Some(&mut path[..]));
                run_vectorized(Forward { dims, params, maps, z: &mut z, row, path: kept });
                out.copy_from_slice(&grad[..dims]);
                let (path, grad_log, grad) = (&path[..], grad[dims], out);
                run_vectorized(Backward { dims, params, maps, path, row, grad_log, grad, grad_params: sum });
            }
        });
        Ok([Some(grad_x), Some(self.grouped().summed(partial, width))])
    }
}
