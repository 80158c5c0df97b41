//! How far the kernels reach: what they are asked before they are used, and the tests' way to do without them.

use std::cell::Cell;
use std::fmt::Display;

use candle_core::{DType, Device, Tensor};

thread_local! {
    /// Whether this thread does without kernels.
    static OFF: Cell<bool> = const { Cell::new(false) };
}

/// Whether the kernels run on this device: on the CPU.
///
/// Ask on the thread that calls them, before work is spread over others.
pub fn runs_on(device: &Device) -> bool {
    device.is_cpu() && !OFF.get()
}

/// Whether the kernels take this tensor: f32 or f64 on the CPU.
pub fn accepts(t: &Tensor) -> bool {
    runs_on(t.device()) && matches!(t.dtype(), DType::F32 | DType::F64)
}

/// Refuses a kernel that is reached although [`accepts`] and [`runs_on`] say no: on another device it would be given memory
/// that it cannot read. [`fuse`](super::fuse) and [`read`](super::read) ask this themselves; what lends itself the memory
/// of tensors asks it first.
///
/// # Errors
/// Candle's error with the name of the kernel.
pub fn refuse_if_off(kernel: impl Display) -> candle_core::Result<()> {
    if OFF.get() {
        candle_core::bail!("{kernel}: a kernel of the CPU was reached without asking whether it takes the tensor");
    }
    Ok(())
}

/// Runs `f` as if all tensors of this thread lay on another device, as far as kernels are concerned.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn without<R>(f: impl FnOnce() -> R) -> R {
    /// Puts the switch back, also when `f` panics.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            OFF.set(self.0);
        }
    }
    let _before = Before(OFF.replace(true));
    f()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_kernels_is_of_this_thread_and_ends() {
        let t = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
        assert!(accepts(&t) && refuse_if_off("here").is_ok());
        without(|| {
            assert!(!accepts(&t) && !runs_on(&Device::Cpu));
            without(|| assert!(!accepts(&t)));
            assert!(!accepts(&t) && refuse_if_off("here").unwrap_err().to_string().contains("here"));
            std::thread::scope(|s| s.spawn(|| assert!(accepts(&t))).join()).unwrap();
        });
        assert!(std::panic::catch_unwind(|| without(|| panic!("inside"))).is_err());
        assert!(accepts(&t));
    }
}
