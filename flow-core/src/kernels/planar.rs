//! Many planar maps, one after the other, in one pass over each row.

use candle_core::Shape;
use rayon::prelude::*;

use super::op::Fused;
use super::{Pass, Real, run_vectorized};

/// Partial sums of a scalar product.
const LANES: usize = 8;

/// Factors of a log-determinant whose product is taken before one logarithm; in f64 it cannot leave the range.
const GROUP: usize = 8;

/// Where fewer groups than this share parameters, their rows are divided, so that there is work for every thread.
const PARTS: usize = 16;

/// `K` maps `x + û·tanh(wᵀx + b)`: operands `x` `(B, D)` and parameters `(G, K·(2D + 1))`, step by step `u`, `w`, `b`, of
/// which each row serves `B/G` consecutive rows of `x`. The value is `(B, D + 1)`: the image, and `ln |det|` behind it.
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

/// What a step says of a row besides its direction.
#[derive(Clone, Copy)]
struct Scalars<T> {
    /// `wᵀu`, `wᵀw`, the same with what keeps it from zero, and `û = u + shift·w`.
    along: T,
    norm: T,
    square: T,
    shift: T,
    /// `tanh(wᵀx + b)` and `wᵀû`.
    bend: T,
    slope: T,
}

/// A pass over one row.
struct Forward<'a, T> {
    sizes: &'a PlanarSteps,
    params: &'a [T],
    /// `x`, and what comes of it.
    z: &'a mut [T],
    /// Where the row before each step and its scalars are kept, if they are.
    kept: Option<(&'a mut [T], &'a mut Vec<Scalars<T>>)>,
}

#[inline(always)]
fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut sums = [T::ZERO; LANES];
    let (a_parts, b_parts) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let mut sum = T::ZERO;
    for (&x, &y) in a_parts.remainder().iter().zip(b_parts.remainder()) {
        sum += x * y;
    }
    for (x, y) in a_parts.zip(b_parts) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let pairs = [sums[0] + sums[4], sums[1] + sums[5], sums[2] + sums[6], sums[3] + sums[7]];
    sum + ((pairs[0] + pairs[2]) + (pairs[1] + pairs[3]))
}

impl<T: Real> Pass for Forward<'_, T> {
    /// `ln |det|`.
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Forward { sizes, params, z, mut kept } = self;
        let (dims, one) = (sizes.dims, T::from_f64(1.0));
        let (start, tiny) = (T::from_f64(sizes.slack - 1.0), T::from_f64(sizes.tiny));
        let (mut total, mut product) = (0.0, 1.0);
        for (k, step) in params.chunks_exact(2 * dims + 1).enumerate() {
            let (u, w, b) = (&step[..dims], &step[dims..2 * dims], step[2 * dims]);
            let (along, norm, height) = (dot(w, u), dot(w, w), dot(w, z));
            let square = norm + tiny;
            let shift = (along.softplus() + start - along) / square;
            let (bend, slope) = ((height + b).tanh_fast(), along + shift * norm);
            if let Some((path, scalars)) = &mut kept {
                path[k * dims..][..dims].copy_from_slice(z);
                scalars.push(Scalars { along, norm, square, shift, bend, slope });
            }
            let across = shift * bend;
            for ((z, &u), &w) in z.iter_mut().zip(u).zip(w) {
                *z += bend * u + across * w;
            }
            product *= (one + slope * (one - bend * bend)).to_f64();
            if k % GROUP == GROUP - 1 {
                (total, product) = (total + product.ln(), 1.0);
            }
        }
        total + product.ln()
    }
}

/// The way back over one row: from the gradient of the image in `grad` to that of the row, adding those of parameters.
struct Backward<'a, T> {
    dims: usize,
    params: &'a [T],
    path: &'a [T],
    scalars: &'a [Scalars<T>],
    grad_log: T,
    grad: &'a mut [T],
    grad_params: &'a mut [T],
}

impl<T: Real> Pass for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Backward { dims, params, path, scalars, grad_log, grad, grad_params } = self;
        let (one, two, width) = (T::from_f64(1.0), T::from_f64(2.0), 2 * dims + 1);
        for (k, s) in scalars.iter().enumerate().rev() {
            let step = &params[k * width..][..width];
            let (u, w, x) = (&step[..dims], &step[dims..2 * dims], &path[k * dims..][..dims]);
            let (grad_u, grad_w) = (dot(grad, u), dot(grad, w));
            let gate = one - s.bend * s.bend;
            let share = grad_log / (one + s.slope * gate);
            // Of the tanh, of its argument, of wᵀû.
            let of_bend = grad_u + s.shift * grad_w - two * share * s.slope * s.bend;
            let (of_height, of_slope) = (of_bend * gate, share * gate);
            // Of the shift in û = u + shift·w, and through it of wᵀu and wᵀw; û has the gradient bend·g + of_slope·w.
            let of_shift = s.bend * grad_w + of_slope * s.norm;
            let sigmoid = one / (one + (T::ZERO - s.along).exp_bounded());
            let of_along = of_shift * (sigmoid - one) / s.square;
            let of_norm = T::ZERO - of_shift * s.shift / s.square;
            let to_u = of_slope + of_along;
            let (by_grad, by_w) = (s.shift * s.bend, two * (of_slope * s.shift + of_norm));
            let (out_u, rest) = grad_params[k * width..][..width].split_at_mut(dims);
            let (out_w, out_b) = rest.split_at_mut(dims);
            for d in 0..dims.min(out_u.len()).min(out_w.len()).min(grad.len()).min(u.len()).min(w.len()).min(x.len()) {
                let g = grad[d];
                out_u[d] += s.bend * g + to_u * w[d];
                out_w[d] += of_height * x[d] + to_u * u[d] + by_grad * g + by_w * w[d];
                grad[d] = g + of_height * w[d];
            }
            out_b[0] += of_height;
        }
    }
}

impl PlanarSteps {
    fn width(&self) -> usize {
        self.steps * (2 * self.dims + 1)
    }

    fn rows_per_group(&self) -> usize {
        self.rows / self.groups.max(1)
    }

    /// Into how many parts the rows of a group are divided.
    fn parts(&self) -> usize {
        PARTS.div_ceil(self.groups.max(1)).min(self.rows_per_group()).max(1)
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
        let mut out = vec![T::ZERO; self.rows * (self.dims + 1)];
        let each = out.par_chunks_mut(self.dims + 1).zip(x.par_chunks(self.dims)).enumerate();
        each.for_each(|(row, (out, x))| {
            let group = row / self.rows_per_group();
            let (z, log) = out.split_at_mut(self.dims);
            z.copy_from_slice(x);
            let params = &params[group * self.width()..][..self.width()];
            log[0] = T::from_f64(run_vectorized(Forward { sizes: self, params, z, kept: None }));
        });
        Ok(out)
    }

    fn backward<T: Real>(&self, [x, params]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let (dims, width, parts) = (self.dims, self.width(), self.parts());
        let rows = self.rows_per_group().div_ceil(parts).max(1);
        let mut grad_x = vec![T::ZERO; self.rows * dims];
        let mut partial = vec![T::ZERO; self.groups * parts * width];
        // The rows of each part, with their group.
        let slices: Vec<(usize, &mut [T])> = grad_x
            .chunks_mut((self.rows_per_group() * dims).max(1))
            .enumerate()
            .flat_map(|(group, all)| {
                let mut parts_of: Vec<(usize, &mut [T])> = all.chunks_mut(rows * dims).map(|p| (group, p)).collect();
                parts_of.resize_with(parts, || (group, &mut []));
                parts_of
            })
            .collect();
        slices.into_par_iter().zip(partial.par_chunks_mut(width)).enumerate().for_each(
            |(part, ((group, out), sum))| {
                let first = group * self.rows_per_group() + part % parts * rows;
                let params = &params[group * width..][..width];
                let (mut path, mut scalars) = (vec![T::ZERO; self.steps * dims], Vec::with_capacity(self.steps));
                let mut z = vec![T::ZERO; dims];
                for (row, out) in out.chunks_exact_mut(dims).enumerate().map(|(r, out)| (first + r, out)) {
                    z.copy_from_slice(&x[row * dims..][..dims]);
                    scalars.clear();
                    run_vectorized(Forward { sizes: self, params, z: &mut z, kept: Some((&mut path, &mut scalars)) });
                    let grad = &grad[row * (dims + 1)..][..dims + 1];
                    out.copy_from_slice(&grad[..dims]);
                    let (grad_log, scalars) = (grad[dims], &scalars[..]);
                    run_vectorized(Backward {
                        dims,
                        params,
                        path: &path,
                        scalars,
                        grad_log,
                        grad: out,
                        grad_params: sum,
                    });
                }
            },
        );
        Ok([Some(grad_x), Some(summed(partial, parts, width))])
    }
}

/// The sum of each `parts` consecutive rows, in their order.
fn summed<T: Real>(partial: Vec<T>, parts: usize, width: usize) -> Vec<T> {
    if parts == 1 {
        return partial;
    }
    let mut sums = Vec::with_capacity(partial.len() / parts);
    for group in partial.chunks_exact(parts * width) {
        let (first, others) = group.split_at(width);
        let start = sums.len();
        sums.extend_from_slice(first);
        for other in others.chunks_exact(width) {
            sums[start..].iter_mut().zip(other).for_each(|(sum, &value)| *sum += value);
        }
    }
    sums
}
