//! The vector types behind the CPU kernels: one small trait, one implementation per instruction set.
//!
//! A kernel body is written once against [`Vector`], marked `#[inline(always)]`, and instantiated
//! inside functions that carry the matching `#[target_feature]`; the instruction set is chosen at run
//! time. Everything `unsafe` about the kernels lives in this folder.

/// A register of `LANES` numbers.
///
/// # Safety
/// Methods may use instructions that the running machine must have; pointers must be valid for
/// `LANES` (or, where masked, `count`) elements.
pub(super) trait Vector: Copy {
    /// The element type.
    type Elem: Copy;
    /// Elements per register.
    const LANES: usize;

    unsafe fn zero() -> Self;
    unsafe fn splat(p: *const Self::Elem) -> Self;
    unsafe fn load(p: *const Self::Elem) -> Self;
    unsafe fn load_first(p: *const Self::Elem, count: usize) -> Self;
    unsafe fn store(self, p: *mut Self::Elem);
    unsafe fn store_first(self, p: *mut Self::Elem, count: usize);
    /// `self + a·b`.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// `max(self, 0)`, except that NaN stays NaN.
    unsafe fn relu(self) -> Self;
    /// The sum of its numbers.
    unsafe fn sum(self) -> Self::Elem;
    /// `a + b`.
    fn plus(a: Self::Elem, b: Self::Elem) -> Self::Elem;
}

/// Asks for the cache line at `p`, which need not be valid: a hint.
#[inline(always)]
pub(super) fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // Safety: a prefetch never faults, and SSE is part of the architecture.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(in super::super) struct F32x16(__m512);

    #[inline(always)]
    unsafe fn mask16(count: usize) -> __mmask16 {
        if count >= 16 { !0 } else { (1u16 << count) - 1 }
    }

    impl Vector for F32x16 {
        type Elem = f32;
        const LANES: usize = 16;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { F32x16(_mm512_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            unsafe { F32x16(_mm512_set1_ps(*p)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { F32x16(_mm512_loadu_ps(p)) }
        }
        #[inline(always)]
        unsafe fn load_first(p: *const f32, count: usize) -> Self {
            unsafe { F32x16(_mm512_maskz_loadu_ps(mask16(count), p)) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm512_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn store_first(self, p: *mut f32, count: usize) {
            unsafe { _mm512_mask_storeu_ps(p, mask16(count), self.0) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, a: Self, b: Self) -> Self {
            unsafe { F32x16(_mm512_fmadd_ps(a.0, b.0, self.0)) }
        }
        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // The second operand of max wins when one is NaN.
            unsafe { F32x16(_mm512_max_ps(_mm512_setzero_ps(), self.0)) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe { _mm512_reduce_add_ps(self.0) }
        }
        #[inline(always)]
        fn plus(a: f32, b: f32) -> f32 {
            a + b
        }
    }

    #[derive(Clone, Copy)]
    pub(in super::super) struct F32x8(__m256);

    #[inline(always)]
    unsafe fn mask8(count: usize) -> __m256i {
        const TABLE: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        unsafe { _mm256_loadu_si256(TABLE.as_ptr().add(8 - count.min(8)).cast()) }
    }

    impl Vector for F32x8 {
        type Elem = f32;
        const LANES: usize = 8;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { F32x8(_mm256_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            unsafe { F32x8(_mm256_set1_ps(*p)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { F32x8(_mm256_loadu_ps(p)) }
        }
        #[inline(always)]
        unsafe fn load_first(p: *const f32, count: usize) -> Self {
            unsafe { F32x8(_mm256_maskload_ps(p, mask8(count))) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm256_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn store_first(self, p: *mut f32, count: usize) {
            unsafe { _mm256_maskstore_ps(p, mask8(count), self.0) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, a: Self, b: Self) -> Self {
            unsafe { F32x8(_mm256_fmadd_ps(a.0, b.0, self.0)) }
        }
        #[inline(always)]
        unsafe fn relu(self) -> Self {
            unsafe { F32x8(_mm256_max_ps(_mm256_setzero_ps(), self.0)) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe {
                let halves = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
                _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)))
            }
        }
        #[inline(always)]
        fn plus(a: f32, b: f32) -> f32 {
            a + b
        }
    }
}

/// Numbers in a [`Portable`] register.
pub(super) const PORTABLE_LANES: usize = 4;

/// Plain arrays: every other machine, and f64 (used where gradients are checked).
#[derive(Clone, Copy)]
pub(super) struct Portable<T>([T; PORTABLE_LANES]);

impl<T: super::Real> Vector for Portable<T> {
    type Elem = T;
    const LANES: usize = PORTABLE_LANES;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Portable([T::ZERO; 4])
    }
    #[inline(always)]
    unsafe fn splat(p: *const T) -> Self {
        unsafe { Portable([*p; 4]) }
    }
    #[inline(always)]
    unsafe fn load(p: *const T) -> Self {
        unsafe { Portable(*p.cast::<[T; 4]>()) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const T, count: usize) -> Self {
        let mut out = [T::ZERO; 4];
        for (i, slot) in out.iter_mut().enumerate().take(count) {
            *slot = unsafe { *p.add(i) };
        }
        Portable(out)
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut T) {
        unsafe { *p.cast::<[T; 4]>() = self.0 }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut T, count: usize) {
        for (i, &v) in self.0.iter().enumerate().take(count) {
            unsafe { *p.add(i) = v }
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Portable(self.0.map(|v| if v < T::ZERO { T::ZERO } else { v }))
    }
    #[inline(always)]
    unsafe fn sum(self) -> T {
        (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
    }
    #[inline(always)]
    fn plus(a: T, b: T) -> T {
        a + b
    }
}
