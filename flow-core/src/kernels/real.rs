//! The numbers that kernels compute with.

use super::gemm::{self, Size, Start, View};
use super::{dots, simd};

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
