//! The CPU kernels that hand-written passes are built of, for the crates of the modalities.
//!
//! A modality whose network is not a chain of tensor operations (ragged graphs, say) writes its own
//! forward and backward pass over slices, generic over [`Real`]: f64 where its gradient is checked against
//! finite differences, f32 where it must be fast. It splits its batch into chunks whose number depends on
//! the shapes alone and adds the chunks' gradients in order, so that results do not depend on the number
//! of threads.
//!
//! ```
//! use flow_core::kernel::{Size, Start, View, gemm};
//!
//! let (a, b) = ([1.0_f32, 2.0, 3.0, 4.0], [1.0, 0.0, 0.0, 1.0]);
//! let mut c = [10.0; 4];
//! gemm(Size { m: 2, k: 2, n: 2 }, View::transposed(&a, 2), &b, &mut c, Start::Old, false);
//! assert_eq!(c, [11.0, 13.0, 12.0, 14.0]);
//! ```

pub use crate::nn::kernels::gemm::{Size, Start, View, gemm};
pub use crate::nn::kernels::{Real, vectorized};
