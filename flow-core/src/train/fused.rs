//! CPU kernels of the engine: one pass over memory per tensor and step.
//!
//! Composed Candle operations take about fourteen temporaries per parameter for an Adam step; these
//! kernels read and write every array once. They are elementwise, so that the number of threads cannot
//! change a bit.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::kernels::{Pass, refuse_if_off, run_by_256};

/// Elements per task: small enough to share, large enough that sharing costs nothing.
const CHUNK: usize = 16 * 1024;

/// The two float types a model can have.
pub(super) trait Real: WithDType {
    /// Below which a first and a second moment are nothing, although products with rates are still far from subnormal.
    const NOTHING: [Self; 2];
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn larger(self, other: Self) -> Self;
}

macro_rules! real {
    ($($t:ty: $nothing:expr),*) => {$(
        impl Real for $t {
            const NOTHING: [Self; 2] = $nothing;
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn larger(self, other: Self) -> Self {
                if self > other { self } else { other }
            }
        }
    )*};
}
real!(f32: [1e-30, 1e-36], f64: [1e-250, 1e-300]);

/// First and second moment of one parameter, in the parameter's own precision.
#[derive(Debug, Clone)]
pub(super) enum HostMoments {
    F32(Vec<f32>, Vec<f32>),
    F64(Vec<f64>, Vec<f64>),
}

/// The numbers of one update, the same for every element: see [`Optimizer`](super::Optimizer).
#[derive(Debug, Clone, Copy)]
pub(super) struct StepConstants {
    pub beta1: f64,
    pub beta2: f64,
    /// Learning rate over the bias correction of the first moment.
    pub rate: f64,
    /// `1 / √(1 - β₂ᵗ)`; unused by Adamax.
    pub root_correction: f64,
    pub epsilon: f64,
    /// `1 - learning_rate · weight_decay`.
    pub keep: f64,
    /// Whether the second moment is a running maximum (Adamax).
    pub maximum: bool,
}

/// An update of one parameter and its moments by its gradient, as an in-place operation.
pub(super) struct FusedStep<'a> {
    pub constants: StepConstants,
    pub moments: RefCell<&'a mut HostMoments>,
}

impl InplaceOp2 for FusedStep<'_> {
    fn name(&self) -> &'static str {
        "fused optimizer step"
    }

    fn cpu_fwd(&self, p: &mut CpuStorage, pl: &Layout, g: &CpuStorage, gl: &Layout) -> candle_core::Result<()> {
        let c = &self.constants;
        match (p, g, &mut **self.moments.borrow_mut()) {
            (CpuStorage::F32(p), CpuStorage::F32(g), HostMoments::F32(m, v)) => {
                update(window_mut(p, pl)?, window(g, gl)?, m, v, c)
            }
            (CpuStorage::F64(p), CpuStorage::F64(g), HostMoments::F64(m, v)) => {
                update(window_mut(p, pl)?, window(g, gl)?, m, v, c)
            }
            _ => bail!("parameter, gradient and moments must be all f32 or all f64"),
        }
    }
}

/// Chunks the four arrays and updates each chunk, in parallel when there is more than one.
fn update<T: Real>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], c: &StepConstants) -> candle_core::Result<()> {
    if p.len() != g.len() || p.len() != m.len() || p.len() != v.len() {
        bail!("parameter of {} elements, gradient of {}, moments of {} and {}", p.len(), g.len(), m.len(), v.len());
    }
    if p.len() <= CHUNK {
        update_chunk(p, g, m, v, c);
        return Ok(());
    }
    let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
    let arrays = p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(moments);
    arrays.for_each(|((p, g), (m, v))| update_chunk(p, g, m, v, c));
    Ok(())
}

/// Elements that are updated together.
const BLOCK: usize = 16;

fn update_chunk<T: Real>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], c: &StepConstants) {
    // Roots and divisions take most of the time, and of them 512 bits at once are no faster than twice 256.
    if c.maximum {
        run_by_256(Update { p, g, m, v, rule: Rule::<T, true>::new(c) });
    } else {
        run_by_256(Update { p, g, m, v, rule: Rule::<T, false>::new(c) });
    }
}

/// What is done to one element, with a running `MAXIMUM` in the place of the second moment or not.
#[derive(Clone, Copy)]
struct Rule<T, const MAXIMUM: bool> {
    beta: [T; 2],
    one_minus_beta: [T; 2],
    rate: T,
    root_correction: T,
    epsilon: T,
    keep: T,
    /// Moments below this count as zero.
    nothing: [T; 2],
}

impl<T: Real, const MAXIMUM: bool> Rule<T, MAXIMUM> {
    fn new(c: &StepConstants) -> Self {
        Rule {
            beta: [c.beta1, c.beta2].map(T::from_f64),
            one_minus_beta: [1.0 - c.beta1, 1.0 - c.beta2].map(T::from_f64),
            rate: T::from_f64(c.rate),
            root_correction: T::from_f64(c.root_correction),
            epsilon: T::from_f64(c.epsilon),
            keep: T::from_f64(c.keep),
            nothing: T::NOTHING,
        }
    }

    /// Moments that only decay, as those of a pixel that is rarely on, would end as subnormal numbers, with which a
    /// processor computes a hundred times more slowly; long before that they move no parameter.
    #[inline(always)]
    fn apply(self, p: &mut T, g: T, m: &mut T, v: &mut T) {
        let Rule { beta: [b1, b2], one_minus_beta: [a1, a2], rate, root_correction, epsilon, keep, nothing } = self;
        let zero = T::from_f64(0.0);
        let first = b1 * *m + a1 * g;
        let second = if MAXIMUM { (b2 * *v).larger(g.abs()) } else { b2 * *v + a2 * (g * g) };
        *m = if first.abs() < nothing[0] { zero } else { first };
        // Not before the first: a step is measured by it.
        *v = if *m == zero && second < nothing[1] { zero } else { second };
        let size = if MAXIMUM { *v } else { v.sqrt() * root_correction };
        *p = keep * *p - rate * *m / (size + epsilon);
    }
}

/// The update of a chunk.
struct Update<'a, T, const MAXIMUM: bool> {
    p: &'a mut [T],
    g: &'a [T],
    m: &'a mut [T],
    v: &'a mut [T],
    rule: Rule<T, MAXIMUM>,
}

impl<T: Real, const MAXIMUM: bool> Pass for Update<'_, T, MAXIMUM> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Update { p, g, m, v, rule } = self;
        let ((p, p_rest), (g, g_rest)) = (p.as_chunks_mut::<BLOCK>(), g.as_chunks::<BLOCK>());
        let ((m, m_rest), (v, v_rest)) = (m.as_chunks_mut::<BLOCK>(), v.as_chunks_mut::<BLOCK>());
        for ((p, g), (m, v)) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
            // Copies, of which it is plain that none overlaps another.
            let (mut new_p, mut new_m, mut new_v) = (*p, *m, *v);
            for i in 0..BLOCK {
                rule.apply(&mut new_p[i], g[i], &mut new_m[i], &mut new_v[i]);
            }
            (*p, *m, *v) = (new_p, new_m, new_v);
        }
        for ((p, &g), (m, v)) in p_rest.iter_mut().zip(g_rest).zip(m_rest.iter_mut().zip(v_rest)) {
            rule.apply(p, g, m, v);
        }
    }
}

/// `average ← average + weight · (value - average)` in place.
pub(super) struct FusedLerp {
    pub weight: f64,
}

impl InplaceOp2 for FusedLerp {
    fn name(&self) -> &'static str {
        "fused weight average"
    }

    fn cpu_fwd(&self, a: &mut CpuStorage, al: &Layout, x: &CpuStorage, xl: &Layout) -> candle_core::Result<()> {
        match (a, x) {
            (CpuStorage::F32(a), CpuStorage::F32(x)) => lerp(window_mut(a, al)?, window(x, xl)?, self.weight as f32),
            (CpuStorage::F64(a), CpuStorage::F64(x)) => lerp(window_mut(a, al)?, window(x, xl)?, self.weight),
            _ => bail!("average and parameter must be both f32 or both f64"),
        }
        Ok(())
    }
}

fn lerp<T: Real>(average: &mut [T], value: &[T], weight: T) {
    let chunk = |a: &mut [T], x: &[T]| a.iter_mut().zip(x).for_each(|(a, &x)| *a += weight * (x - *a));
    if average.len() <= CHUNK {
        return chunk(average, value);
    }
    average.par_chunks_mut(CHUNK).zip(value.par_chunks(CHUNK)).for_each(|(a, x)| chunk(a, x));
}

fn window<'a, T>(data: &'a [T], layout: &Layout) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("needs contiguous tensors"),
    }
}

fn window_mut<'a, T>(data: &'a mut [T], layout: &Layout) -> candle_core::Result<&'a mut [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&mut data[start..end]),
        None => bail!("needs contiguous tensors"),
    }
}

/// Applies an in-place operation whose source may share its storage with the destination.
///
/// Candle refuses such a source; a hand-written gradient that *is* its parameter deserves a copy instead.
pub(super) fn apply(target: &Tensor, source: &Tensor, op: &impl InplaceOp2) -> candle_core::Result<()> {
    refuse_if_off(op.name())?;
    let source = source.contiguous()?;
    target.inplace_op2(&source, op).or_else(|_| target.inplace_op2(&source.copy()?, op))
}
