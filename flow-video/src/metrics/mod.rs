//! Numbers about predictions: bits/dim, PSNR and SSIM of the best of many futures, diversity, calibration.

mod evaluation;
mod pictures;

pub use evaluation::{
    BestOf, Calibration, Curves, Evaluation, Margin, MeanAndError, Protocol, Take, bits_per_frame, evaluate,
};
pub use flow_core::numerics::mean_and_error;
pub use pictures::{PSNR_LIMIT, psnr, ssim};
