//! Planar maps undone, the last first, and the gradients of that.

use candle_core::Shape;
use rayon::prelude::*;

use super::{Backward, Forward, Maps, PlanarSteps, Row, Tabulate};
use crate::kernels::lanes::{dot, dots, move_along};
use crate::kernels::{Fused, Kept, Pass, Real, in_chunks, run_vectorized};
use crate::numerics::root;

/// The inverse of [`PlanarSteps`]: operands `z` `(B, D)` and parameters as there. The value is `(B, D + 1)`: the row that has
/// the image `z`, and `ln |det|` of the inverse behind it, which is not a number where no such row is found.
///
/// Of each map a number is found by iteration, in f64: `a + wᵀû·tanh(a + b) = wᵀz` for `a = wᵀx`.
pub(crate) struct Inverted {
    pub(crate) steps: PlanarSteps,
    /// What was found, for the gradient.
    found: Kept,
}

/// The gradients of the inverse at a row.
pub(crate) struct Pulled<T> {
    /// The image of the row.
    pub(crate) z: Vec<T>,
    pub(crate) grad_z: Vec<T>,
    pub(crate) grad_params: Vec<T>,
}

/// A pass over one row.
struct Undo<'a, T> {
    dims: usize,
    params: &'a [T],
    maps: &'a Maps<T>,
    /// `z`, and what comes of it.
    x: &'a mut [T],
}

impl<T: Real> Pass for Undo<'_, T> {
    /// `ln |det|` of the inverse, if the row has one.
    type Output = Option<f64>;

    #[inline(always)]
    fn run(self) -> Option<f64> {
        let Undo { dims, params, maps, x } = self;
        let mut total = 0.0;
        for (k, step) in params.chunks_exact(2 * dims + 1).enumerate().rev() {
            let (u, w, b) = (&step[..dims], &step[dims..2 * dims], step[2 * dims]);
            let slope = maps.slope[k].to_f64();
            let bend = bend_of(slope, (dot(w, x) + b).to_f64())?;
            let back = T::from_f64(-bend);
            move_along(x, u, w, back, maps.shift[k] * back);
            total -= (1.0 + slope * (1.0 - bend * bend)).ln();
        }
        Some(total)
    }
}

/// `tanh h` where `h + slope·tanh h = target`.
fn bend_of(slope: f64, target: f64) -> Option<f64> {
    let f = |h: f64| {
        let bend = h.tanh();
        (h + slope * bend, 1.0 + slope * (1.0 - bend * bend))
    };
    root::increasing(f, target, [target - slope.abs(), target + slope.abs()]).map(f64::tanh)
}

/// Takes the gradient of a row, in `grad`, and `grad_log` of the inverse's log-determinant, on to the image.
///
/// With `J = I + tanh'·û·wᵀ` of a map, the inverse has the transpose `J⁻ᵀ = I - tanh'/det·w·ûᵀ`.
struct Onwards<'a, T> {
    dims: usize,
    params: &'a [T],
    maps: &'a Maps<T>,
    row: &'a Row<T>,
    grad_log: T,
    grad: &'a mut [T],
}

impl<T: Real> Pass for Onwards<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Onwards { dims, params, maps, row, grad_log, grad } = self;
        let (one, two) = (T::from_f64(1.0), T::from_f64(2.0));
        for (k, step) in params.chunks_exact(2 * dims + 1).enumerate() {
            let (u, w) = (&step[..dims], &step[dims..2 * dims]);
            let (bend, slope) = (row.bend[k], maps.slope[k]);
            let gate = one - bend * bend;
            let share = gate / (one + slope * gate);
            let (along_u, along_w) = dots(grad, u, w);
            // What the log-determinant of this map adds to the gradient of the row, along w.
            let of_log = two * grad_log * slope * bend * share;
            let along = along_u + maps.shift[k] * along_w + of_log * slope;
            move_along(grad, w, w, of_log - share * along, T::ZERO);
        }
    }
}

impl PlanarSteps {
    /// The gradients of the inverse at the rows `x` that it found, for the gradient `(B, D + 1)` of its value.
    pub(crate) fn pull_back_inverse<T: Real>(&self, [x, params]: [&[T]; 2], grad: &[T]) -> Pulled<T> {
        let (dims, width) = (self.dims, self.width());
        let (mut images, mut grad_z) = (x.to_vec(), vec![T::ZERO; self.rows * dims]);
        let parts =
            self.grouped().divided(&mut images, dims).into_par_iter().zip(self.grouped().divided(&mut grad_z, dims));
        let partial = in_chunks(parts.len() * width, width, parts, |(images, grads), sum| {
            let ((group, first, images), (_, _, grads)) = (images, grads);
            let params = &params[group * width..][..width];
            let maps = run_vectorized(Tabulate { sizes: self, params, with_gradients: true });
            let (mut row, mut path) = (Row::new(self.steps), vec![T::ZERO; self.steps * dims]);
            let mut against = vec![T::ZERO; dims];
            let rows = images.chunks_exact_mut(dims).zip(grads.chunks_exact_mut(dims));
            for ((z, out), grad) in rows.zip(grad[first * (dims + 1)..].chunks_exact(dims + 1)) {
                let (maps, kept) = (&maps, Some(&mut path[..]));
                run_vectorized(Forward { dims, params, maps, z, row: &mut row, path: kept });
                out.copy_from_slice(&grad[..dims]);
                let grad_log = grad[dims];
                run_vectorized(Onwards { dims, params, maps, row: &row, grad_log, grad: out });
                // A parameter moves the row that has the image z against what it does to the image of the row.
                against.iter_mut().zip(&*out).for_each(|(against, &grad)| *against = T::ZERO - grad);
                let (path, row, grad, grad_log) = (&path[..], &mut row, &mut against[..], T::ZERO - grad_log);
                run_vectorized(Backward { dims, params, maps, path, row, grad_log, grad, grad_params: sum });
            }
        });
        Pulled { z: images, grad_z, grad_params: self.grouped().summed(partial, width) }
    }
}

impl Inverted {
    pub(crate) fn new(steps: PlanarSteps) -> Self {
        Inverted { steps, found: Kept::default() }
    }

    /// The value.
    fn solve<T: Real>(&self, [z, params]: [&[T]; 2]) -> Vec<T> {
        let (dims, width) = (self.steps.dims, self.steps.width());
        let mut out = vec![T::ZERO; self.steps.rows * (dims + 1)];
        self.steps.grouped().spread(&mut out, dims + 1).into_par_iter().for_each(|(group, first, out)| {
            let params = &params[group * width..][..width];
            let maps = run_vectorized(Tabulate { sizes: &self.steps, params, with_gradients: false });
            for (out, z) in out.chunks_exact_mut(dims + 1).zip(z[first * dims..].chunks_exact(dims)) {
                let (x, log) = out.split_at_mut(dims);
                x.copy_from_slice(z);
                let found = run_vectorized(Undo { dims, params, maps: &maps, x });
                log[0] = T::from_f64(found.unwrap_or(f64::NAN));
            }
        });
        out
    }

    /// The rows in a value.
    fn rows_of<T: Real>(&self, value: &[T]) -> Vec<T> {
        let dims = self.steps.dims;
        value.chunks_exact(dims + 1).flat_map(|row| &row[..dims]).copied().collect()
    }
}

impl Fused<2> for Inverted {
    fn name(&self) -> &'static str {
        "inverse of a planar chain"
    }

    fn shape(&self) -> Shape {
        self.steps.shape()
    }

    fn forward<T: Real>(&self, operands: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        let out = self.solve(operands);
        self.found.put(self.rows_of(&out));
        Ok(out)
    }

    fn backward<T: Real>(&self, [z, params]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        // Taken for the time being: a lock held here could be met again by the same thread, which steals work while it waits.
        let x = match self.found.take() {
            Some(found) => found,
            None => self.rows_of(&self.solve([z, params])),
        };
        let pulled = self.steps.pull_back_inverse([&x, params], grad);
        self.found.put(x);
        Ok([Some(pulled.grad_z), Some(pulled.grad_params)])
    }
}
