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

use crate::{Error, Result};

/// Log-scales of activation normalization are stored divided by this, which multiplies their learning rate: the Glow
/// authors' `logscale_factor`.
pub(crate) const LOG_SCALE_FACTOR: f64 = 3.0;

/// The element types of the kernels: f32 (vectorised) and f64 (where gradients are checked).
///
/// Kernels need nothing of other types, so only these two implement it.
pub trait Real:
    candle_core::WithDType
    + std::ops::Add<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::AddAssign
    + std::ops::MulAssign
    + PartialOrd
{
    /// Zero.
    const ZERO: Self;

    /// `e^x`, with `x` clamped to `±80` so that neither the result nor its reciprocal overflows in f32.
    fn exp_bounded(self) -> Self;

    /// `tanh x`, branch-free in f32.
    fn tanh_fast(self) -> Self;

    /// `ln(1 + e^x)` without overflow.
    fn softplus(self) -> Self;

    /// Numbers in a register of [`Real::gemm`].
    fn lanes() -> usize;

    /// The fastest product this machine has; the left operand is made of parts of as many columns each.
    ///
    /// # Safety
    /// Slices must be as long as [`gemm::gemm`] checks and parts divide the inner dimension; panels must be packed for [`Real::lanes`].
    unsafe fn gemm(
        size: Size,
        a: &[View<'_, Self>],
        b: gemm::Right<'_, Self>,
        c: &mut [Self],
        start: Start<'_, Self>,
        relu: bool,
    );

    /// `A·Bᵀ` of row-major matrices.
    ///
    /// # Safety
    /// Slices must be as long as `m·k`, `n·k` and `m·n`, and `k` not zero.
    unsafe fn dots(size: Size, a: &[Self], b: &[Self], c: &mut [Self]);
}

/// `12!` down to `0!`.
const EXP_FACTORIALS: [f64; 13] =
    [479_001_600.0, 39_916_800.0, 3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0];

impl Real for f64 {
    const ZERO: Self = 0.0;

    /// Branch-free, so that loops over it vectorise: `2^n · e^r` with `|r| ≤ ½ ln 2` and a Taylor polynomial of degree 13
    /// (relative error of its end below `2^-57`).
    #[inline(always)]
    fn exp_bounded(self) -> Self {
        let x = self.clamp(-80.0, 80.0);
        // Adding 1.5·2⁵² rounds to the nearest integer, which then stands in the low bits.
        const ROUND: f64 = 6_755_399_441_055_744.0;
        let shifted = x * std::f64::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        // ln 2 in two parts, the first with zeros at its end, so that the remainder is exact.
        let r = (x - n * 0.693_147_180_369_123_8) - n * 1.908_214_929_270_587_7e-10;
        let mut p = 1.0 / 6_227_020_800.0;
        for factorial in EXP_FACTORIALS {
            p = p * r + 1.0 / factorial;
        }
        p * f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52)
    }

    #[inline(always)]
    fn tanh_fast(self) -> Self {
        self.tanh()
    }

    #[inline(always)]
    fn softplus(self) -> Self {
        self.max(0.0) + (-self.abs()).exp().ln_1p()
    }

    fn lanes() -> usize {
        simd::PORTABLE_LANES
    }

    unsafe fn gemm(
        size: Size,
        a: &[View<'_, f64>],
        b: gemm::Right<'_, f64>,
        c: &mut [f64],
        start: Start<'_, f64>,
        relu: bool,
    ) {
        unsafe { gemm::portable(size, a, b, c, start, relu) }
    }

    unsafe fn dots(size: Size, a: &[f64], b: &[f64], c: &mut [f64]) {
        unsafe { dots::blocks::<simd::Portable<f64>>(size, a, b, c) }
    }
}

impl Real for f32 {
    const ZERO: Self = 0.0;

    /// Branch-free, so that loops over it vectorise: `2^n · e^r` with `|r| ≤ ½ ln 2` and a Taylor
    /// polynomial of degree 7 (relative error below `2^-22`).
    #[inline(always)]
    fn exp_bounded(self) -> Self {
        let x = self.clamp(-80.0, 80.0);
        // Adding and subtracting 1.5·2²³ rounds to the nearest integer.
        const ROUND: f32 = 12_582_912.0;
        let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
        // ln 2 in two parts, so that the remainder is exact.
        let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
        let mut p = 1.0 / 5040.0_f32;
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = p * r + c;
        }
        p * f32::from_bits(((n as i32 + 127) as u32) << 23)
    }

    /// `x P(x²)/Q(x²)` of degrees 5 and 4, near the best in relative error for `|x| ≤ 9.1` (below `2e-9`, far under f32's
    /// rounding), where `tanh` rounds to one; fitted by reweighted least squares on Chebyshev nodes.
    #[inline(always)]
    fn tanh_fast(self) -> Self {
        const P: [f32; 6] = [-1.203_382_7e-11, 3.035_582e-8, 2.791_207e-5, 3.863_599_9e-3, 0.136_761_42, 1.0];
        const Q: [f32; 5] = [1.280_703_7e-6, 3.930_295_3e-4, 2.722_853_7e-2, 0.470_094_74, 1.0];
        let x = self.clamp(-9.1, 9.1);
        let q = x * x;
        let (mut above, mut below) = (P[0], Q[0]);
        for c in &P[1..] {
            above = above * q + c;
        }
        for c in &Q[1..] {
            below = below * q + c;
        }
        let value = x * above / below;
        // Written so that NaN stays.
        let inside = if value > 1.0 { 1.0 } else { value };
        if inside < -1.0 { -1.0 } else { inside }
    }

    /// Branch-free: `ln(1 + y) = 2 artanh(y/(2 + y))`, whose series to the 13th power has a relative error below `2e-8` for
    /// `y = e^{-|x|}`, at most one.
    #[inline(always)]
    fn softplus(self) -> Self {
        let above = if self < 0.0 { 0.0 } else { self };
        let y = (-self.abs()).exp_bounded();
        let s = y / (2.0 + y);
        let q = s * s;
        let mut sum = 2.0 / 13.0_f32;
        for c in [2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 0.4, 2.0 / 3.0, 2.0] {
            sum = sum * q + c;
        }
        above + s * sum
    }

    fn lanes() -> usize {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return 16;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return 8;
            }
        }
        simd::PORTABLE_LANES
    }

    unsafe fn gemm(
        size: Size,
        a: &[View<'_, f32>],
        b: gemm::Right<'_, f32>,
        c: &mut [f32],
        start: Start<'_, f32>,
        relu: bool,
    ) {
        #[cfg(target_arch = "x86_64")]
        unsafe {
            if is_x86_feature_detected!("avx512f") {
                return gemm::x86::avx512(size, a, b, c, start, relu);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return gemm::x86::avx2(size, a, b, c, start, relu);
            }
        }
        unsafe { gemm::portable(size, a, b, c, start, relu) }
    }

    unsafe fn dots(size: Size, a: &[f32], b: &[f32], c: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        unsafe {
            if dots::x86::has_avx512() {
                return dots::x86::avx512(size, a, b, c);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return dots::x86::avx2(size, a, b, c);
            }
        }
        unsafe { dots::blocks::<simd::Portable<f32>>(size, a, b, c) }
    }
}

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
    fn the_exponential_is_accurate() {
        for i in -8000..=8000 {
            let x = i as f32 * 0.01;
            let (got, want) = (f64::from(x.exp_bounded()), f64::from(x).exp());
            assert!(((got - want) / want).abs() < 3e-7, "{x}: {got} {want}");
            let (got, want) = (f64::from(x).exp_bounded(), want);
            assert!(((got - want) / want).abs() < 4e-16, "{x}: {got} {want}");
        }
        assert!(f64::INFINITY.exp_bounded().is_finite() && f64::NAN.exp_bounded().is_nan());
        assert!(f32::INFINITY.exp_bounded().is_finite() && f32::NAN.exp_bounded().is_nan());
    }

    #[test]
    fn the_hyperbolic_tangent_is_accurate() {
        for i in -20_000..=20_000 {
            let x = i as f32 * 0.001 + 1e-5;
            let (got, want) = (f64::from(x.tanh_fast()), f64::from(x).tanh());
            assert!(((got - want) / want).abs() < 4e-7, "{x}: {got} {want}");
        }
        assert!(f32::NAN.tanh_fast().is_nan());
        assert_eq!((0.0_f32.tanh_fast(), 1e6_f32.tanh_fast(), (-1e6_f32).tanh_fast()), (0.0, 1.0, -1.0));
    }

    #[test]
    fn the_softplus_is_accurate() {
        for i in -8000..=8000 {
            let x = i as f32 * 0.01 + 1e-4;
            let want = f64::from(x).max(0.0) + (-f64::from(x).abs()).exp().ln_1p();
            let single = f64::from(x.softplus());
            assert!((single / want - 1.0).abs() < 4e-7, "{x}: {single} {want}");
        }
        assert!(f32::NAN.softplus().is_nan() && f64::NAN.softplus().is_nan());
        assert_eq!((1e30_f32.softplus(), f32::INFINITY.softplus()), (1e30, f32::INFINITY));
        assert!((0.0..1e-30).contains(&f32::NEG_INFINITY.softplus()));
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
