//! CPU kernels: matrix products on cache-sized blocks, patches, and the fused networks built of them.
//!
//! Every kernel splits the batch into chunks whose number depends on the shapes alone and adds the
//! chunks' weight gradients in order, so results do not depend on the number of threads.

pub(crate) mod coupling_net;
pub(crate) mod gemm;
pub(crate) mod patches;
mod simd;

use gemm::{Size, Start, View};

/// The element types of the kernels: f32 (vectorised) and f64 (where gradients are checked).
pub(crate) trait Real:
    candle_core::WithDType
    + std::ops::Add<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::AddAssign
    + PartialOrd
{
    /// Zero.
    const ZERO: Self;

    /// The fastest product this machine has.
    ///
    /// # Safety
    /// Slices must be as long as [`gemm::gemm`] checks.
    unsafe fn gemm(size: Size, a: View<'_, Self>, b: &[Self], c: &mut [Self], start: Start<'_, Self>, relu: bool);
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    unsafe fn gemm(size: Size, a: View<'_, f64>, b: &[f64], c: &mut [f64], start: Start<'_, f64>, relu: bool) {
        unsafe { gemm::portable(size, a, b, c, start, relu) }
    }
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    unsafe fn gemm(size: Size, a: View<'_, f32>, b: &[f32], c: &mut [f32], start: Start<'_, f32>, relu: bool) {
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
}
