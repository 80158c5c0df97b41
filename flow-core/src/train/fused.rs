//! CPU kernels of the engine: one pass over memory per tensor and step.
//!
//! Composed Candle operations take about fourteen temporaries per parameter for an Adam step; these
//! kernels read and write every array once. They are elementwise, so that the number of threads cannot
//! change a bit.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::kernels::refuse_if_off;

/// Elements per task: small enough to share, large enough that sharing costs nothing.
const CHUNK: usize = 16 * 1024;

/// The two float types a model can have.
pub(super) trait Real: WithDType {
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn larger(self, other: Self) -> Self;
}

macro_rules! real {
    ($($t:ty),*) => {$(
        impl Real for $t {
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
real!(f32, f64);

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

fn update_chunk<T: Real>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], c: &StepConstants) {
    let [b1, a1] = [c.beta1, 1.0 - c.beta1].map(T::from_f64);
    let [b2, a2] = [c.beta2, 1.0 - c.beta2].map(T::from_f64);
    let [rate, root, eps, keep] = [c.rate, c.root_correction, c.epsilon, c.keep].map(T::from_f64);
    let elements = p.iter_mut().zip(g).zip(m.iter_mut().zip(v.iter_mut()));
    if c.maximum {
        elements.for_each(|((p, &g), (m, v))| {
            *m = b1 * *m + a1 * g;
            *v = (b2 * *v).larger(g.abs());
            *p = keep * *p - rate * *m / (*v + eps);
        });
    } else {
        elements.for_each(|((p, &g), (m, v))| {
            *m = b1 * *m + a1 * g;
            *v = b2 * *v + a2 * (g * g);
            *p = keep * *p - rate * *m / (v.sqrt() * root + eps);
        });
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
