//! Convolutions in half precision, on a GPU.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor};

/// What was asked of the process.
static ON_GPUS: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What a test asks of this thread, wherever it computes.
    static HERE: Cell<bool> = const { Cell::new(false) };
}

/// From now on, convolutions of f32 tensors on CUDA multiply in bf16, in this whole process: [`conv2d`](super::conv2d) rounds its
/// operands, and widens what comes of them. Everything else stays in f32, log-determinants above all.
///
/// A flow stays invertible, since both directions compute a coupling's network in the same way; its likelihood is exact for the
/// network with rounded weights. Gradients come through the same roundings. There is no such choice of f16: its range is too small
/// for gradients without scaling them.
pub fn set_bf16_convolutions(on: bool) {
    ON_GPUS.store(on, Ordering::Relaxed);
}

/// Runs `work` with composed convolutions of this thread as they are made on a GPU, wherever they are computed.
#[cfg(test)]
pub(crate) fn with_bf16_convolutions<R>(work: impl FnOnce() -> R) -> R {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            HERE.set(self.0);
        }
    }
    let _reset = Reset(HERE.replace(true));
    work()
}

/// Whether a composed convolution of `x` multiplies in bf16.
pub(super) fn is_half(x: &Tensor) -> bool {
    x.dtype() == DType::F32 && (HERE.get() || (x.device().is_cuda() && ON_GPUS.load(Ordering::Relaxed)))
}
