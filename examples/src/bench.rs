//! What the benchmark programs share.

use std::time::Instant;

use anyhow::Result;
use candle_core::Device;

/// What some work returns, and the seconds until the device has done it, not only been told.
///
/// # Errors
/// Those of the work and of the device.
pub fn timed<T>(device: &Device, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    device.synchronize()?;
    let begun = Instant::now();
    let value = work()?;
    device.synchronize()?;
    Ok((value, begun.elapsed().as_secs_f64()))
}

/// A field of `/proc/self/status` in MiB, `VmHWM` for the peak; zero where there is none.
pub fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// The middle one of some times.
pub fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
