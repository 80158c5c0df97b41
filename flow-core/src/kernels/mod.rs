//! CPU kernels: matrix products on cache-sized blocks, patches, and the fused networks built of them.
//!
//! Every kernel that adds up gradients of a batch's parts splits it into chunks whose number depends on the shapes alone, and
//! adds them in order; where every number is a sum of its own the number of threads may choose the shares. So results do not
//! depend on the number of threads.
//!
//! A modality whose network is not a chain of tensor operations (ragged graphs, say) writes its own
//! forward and backward pass over slices, generic over [`Real`]: f64 where its gradient is checked against
//! finite differences, f32 where it must be fast. It splits its batch in the same way, and [`fuse`] makes an operation of
//! Candle of the two passes.
//!
//! Kernels are for what [`accepts`] takes; whoever calls one has another way in Candle's operations for everything else,
//! which is what runs on GPUs.
//!
//! ```
//! use flow_core::kernels::{Size, Start, View, gemm};
//!
//! let (a, b) = ([1.0_f32, 2.0, 3.0, 4.0], [1.0, 0.0, 0.0, 1.0]);
//! let mut c = [10.0; 4];
//! gemm(Size { m: 2, k: 2, n: 2 }, View::transposed(&a, 2), &b, &mut c, Start::Old, false);
//! assert_eq!(c, [11.0, 13.0, 12.0, 14.0]);
//! ```

pub(crate) mod affine;
pub(crate) mod channels;
pub(crate) mod concat_squash;
pub(crate) mod conv;
pub(crate) mod coupling_net;
pub(crate) mod dense;
mod dots;
pub(crate) mod gaussianize;
mod gemm;
mod groups;
mod lanes;
pub(crate) mod maxout;
pub(crate) mod mix;
mod op;
mod packed;
pub(crate) mod panels;
pub(crate) mod patches;
pub(crate) mod planar;
pub(crate) mod product;
mod reach;
mod real;
mod simd;
pub(crate) mod sparse;
pub(crate) mod spline;
pub(crate) mod sylvester;

use std::mem::MaybeUninit;

use candle_core::{Layout, Storage, Tensor};
pub use coupling_net::{gate, gate_backward};
pub use gemm::{Size, Start, View, gemm, transpose};
pub(crate) use op::gradients;
pub use op::{Fused, Kept, fuse, fuse_on_host};
pub use panels::Panels;
use rayon::prelude::*;
#[cfg(any(test, feature = "testing"))]
pub(crate) use reach::without;
pub use reach::{accepts, refuse_if_off, runs_on};
pub use real::Real;

use crate::{Error, Result};

/// Log-scales of activation normalization are stored divided by this, which multiplies their learning rate: the Glow
/// authors' `logscale_factor`.
pub(crate) const LOG_SCALE_FACTOR: f64 = 3.0;

/// `len` numbers whose chunks are computed in parallel, each with a companion: a chunk is zeros at first, cleared by the
/// thread that fills it.
///
/// # Panics
/// With fewer companions than chunks: a bug in the calling kernel, never input.
pub(crate) fn in_chunks<T: Real, I: IndexedParallelIterator>(
    len: usize,
    chunk: usize,
    companions: I,
    fill: impl Fn(I::Item, &mut [T]) + Sync + Send,
) -> Vec<T> {
    let chunk = chunk.max(1);
    assert!(companions.len() >= len.div_ceil(chunk), "a chunk has no companion");
    let mut all = Vec::with_capacity(len);
    let slots = all.spare_capacity_mut()[..len].par_chunks_mut(chunk);
    slots.zip(companions).for_each(|(slots, companion)| {
        slots.fill(MaybeUninit::new(T::ZERO));
        // Safety: all of it was just written, and numbers have the layout of their slots.
        fill(companion, unsafe { &mut *(std::ptr::from_mut(slots) as *mut [T]) });
    });
    // Safety: every slot was written, as there is a companion for each chunk.
    unsafe { all.set_len(len) };
    all
}

/// Runs `f` compiled for the widest vectors of this machine.
///
/// The closure is inlined into a function that carries the instruction set, so that its loops are
/// vectorised for it; elementwise kernels need no intrinsics of their own.
#[inline(always)]
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    struct Closure<F>(F);
    impl<R, F: FnOnce() -> R> Pass for Closure<F> {
        type Output = R;
        #[inline(always)]
        fn run(self) -> R {
            (self.0)()
        }
    }
    run_vectorized(Closure(f))
}

/// What [`run_vectorized`] runs. A closure with a long body is not inlined, and then compiled for the least of machines;
/// an `#[inline(always)]` implementation of this trait is.
pub(crate) trait Pass {
    /// What it returns.
    type Output;

    /// The loops.
    fn run(self) -> Self::Output;
}

/// [`vectorized`] for loops that are too long for a closure.
#[inline(always)]
pub(crate) fn run_vectorized<P: Pass>(pass: P) -> P::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx2,fma")]
        unsafe fn wide<P: Pass>(pass: P) -> P::Output {
            pass.run()
        }
        if is_x86_feature_detected!("avx512f") && has_256() {
            // Safety: the features were just detected.
            return unsafe { wide(pass) };
        }
    }
    run_by_256(pass)
}

/// [`run_vectorized`] with vectors of 256 bits at most.
#[inline(always)]
pub(crate) fn run_by_256<P: Pass>(pass: P) -> P::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn narrow<P: Pass>(pass: P) -> P::Output {
            pass.run()
        }
        if has_256() {
            // Safety: the features were just detected.
            return unsafe { narrow(pass) };
        }
    }
    pass.run()
}

/// Whether the machine has vectors of 256 bits and fused products.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_256() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Lends the elements of a CPU tensor to a kernel, made contiguous first if it is strided. For what [`accepts`] takes.
///
/// # Errors
/// A tensor of another device or type, and what `f` returns.
#[track_caller]
pub fn read<T: Real, R>(t: &Tensor, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    refuse_if_off(std::panic::Location::caller())?;
    lend(t, f)
}

/// [`read`] for a kernel that has no other form: the elements of a tensor of another device are copied to the CPU.
///
/// # Errors
/// A tensor of another type, and what `f` returns.
pub fn read_on_host<T: Real, R>(t: &Tensor, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    lend(&t.to_device(&candle_core::Device::Cpu)?, f)
}

fn lend<T: Real, R>(t: &Tensor, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => f(contiguous(cpu.as_slice::<T>()?, layout)?),
        _ => Err(Error::config("cpu kernel", "was given a tensor of another device")),
    }
}

/// The elements of a contiguous layout.
pub(crate) fn contiguous<'a, T>(data: &'a [T], layout: &Layout) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        // A part of an empty tensor begins beyond its end.
        Some((start, end)) if start == end => Ok(&[]),
        Some((start, end)) => Ok(&data[start..end]),
        None => candle_core::bail!("a fused kernel was given a strided tensor; call contiguous() first"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_an_empty_tensor_is_empty() {
        let empty = Tensor::zeros((0, 4), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let part = empty.narrow(1, 2, 1).unwrap();
        assert_eq!(read::<f32, _>(&part, |values| Ok(values.len())).unwrap(), 0);
    }

    #[test]
    fn chunks_are_cleared_and_filled() {
        for (len, chunk) in [(0, 3), (7, 3), (9, 3), (2, 5), (5000, 700)] {
            // Memory that is likely to be given out again.
            drop(vec![f64::NAN; len]);
            let all = in_chunks(len, chunk, (0..len.div_ceil(chunk)).into_par_iter(), |index, part: &mut [f64]| {
                assert!(part.iter().all(|&v| v == 0.0));
                part[0] = index as f64 + 1.0;
            });
            let expected: Vec<f64> =
                (0..len).map(|i| if i % chunk == 0 { (i / chunk) as f64 + 1.0 } else { 0.0 }).collect();
            assert_eq!(all, expected);
        }
    }
}
