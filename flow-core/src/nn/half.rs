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

/// From now on, convolutions of f32 tensors on CUDA multiply in bf16, in this whole process: [`conv2d`](super::conv2d) and
/// [`CouplingNet`](super::CouplingNet) round their operands, and widen what comes of them. Everything else stays in f32, log-determinants above all.
///
/// A flow stays invertible, since both directions compute a coupling's network in the same way, and its likelihood is that of the
/// network with roundings. Its inverse is exact only where a reconstructed input rounds as the original did; elsewhere it is good to
/// about three digits. That is too little for reversible back-propagation, at depth above all, and so gradients of likelihoods are taken
/// by plain back-propagation, whose memory grows with depth. There is no such choice of f16: its range is too small for gradients
/// without scaling them.
///
/// It is a choice of the process, as the device is, and not of the model: nothing of it is written to a checkpoint.
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

/// An operand in bf16; on the CPU, whose products do not take it, the same numbers in their own type.
pub(crate) fn round(t: &Tensor) -> candle_core::Result<Tensor> {
    let rounded = t.to_dtype(DType::BF16)?;
    if t.device().is_cpu() { rounded.to_dtype(t.dtype()) } else { Ok(rounded) }
}

/// Whether a composed convolution of `x` multiplies in bf16.
pub(crate) fn is_half(x: &Tensor) -> bool {
    x.dtype() == DType::F32 && (HERE.get() || (x.device().is_cuda() && ON_GPUS.load(Ordering::Relaxed)))
}
