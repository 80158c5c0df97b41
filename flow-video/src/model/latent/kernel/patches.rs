//! Neighbourhoods of pixels: their gather from frames, and the scatter that is its adjoint.

use flow_core::kernels::{Real, vectorized};

use super::strips::Strip;
use super::{Shape, TAPS};

/// Which pixel a tap belongs to: that at the tap's offset, or that from which the pixel lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Towards {
    /// `q = p + (tap - centre)·dilation`: what a convolution reads.
    Tap,
    /// `q = p - (tap - centre)·dilation`: where a convolution that is a scatter writes.
    Centre,
}

/// A run of pixels of a frame row that have the tap's pixel inside the frame.
struct Run {
    tap: usize,
    /// Its first column in the strip's row.
    column: usize,
    /// Row and first column of the tap's pixels.
    at: [usize; 2],
    len: usize,
}

/// Calls `f` for every run of a frame row.
#[inline(always)]
fn runs(s: &Shape, dilation: usize, towards: Towards, row: usize, mut f: impl FnMut(Run)) {
    for tap in 0..TAPS {
        let towards_tap = if towards == Towards::Tap { tap } else { TAPS - 1 - tap };
        let (u, v) = (towards_tap / 3 * dilation, towards_tap % 3 * dilation);
        let Some(y) = (row + u).checked_sub(dilation).filter(|&y| y < s.height) else { continue };
        // Columns j with 0 ≤ j + v - dilation < width.
        let column = dilation.saturating_sub(v).min(s.width);
        let end = (s.width + dilation).saturating_sub(v).min(s.width);
        if column < end {
            f(Run { tap, column, at: [y, column + v - dilation], len: end - column });
        }
    }
}

/// The neighbourhoods of a strip's pixels in `frames`, `(B, steps, H, W, C)`, as `(steps, pixels, 9, C)`; zero outside.
pub(super) fn gather<T: Real>(
    s: &Shape,
    dilation: usize,
    towards: Towards,
    strip: &Strip,
    frames: &[T],
    patches: &mut [T],
) {
    let (c, patch) = (s.channels, s.patch());
    let steps = patches.len() / (strip.pixels(s) * patch).max(1);
    patches.fill(T::ZERO);
    vectorized(|| {
        let mut lines = patches.chunks_exact_mut(s.width * patch);
        for step in 0..steps {
            for ((sample, row), line) in strip.frame_rows().zip(&mut lines) {
                let frame = &frames[((strip.first + sample) * steps + step) * s.frame()..][..s.frame()];
                runs(s, dilation, towards, row, |run| {
                    let from = &frame[(run.at[0] * s.width + run.at[1]) * c..][..run.len * c];
                    let line = &mut line[run.column * patch + run.tap * c..];
                    copy_run(from, line, c, patch);
                });
            }
        }
    });
}

/// Adds `(steps, pixels, 9, C)` to the pixels of a window, `(count, steps, window rows, W, C)`.
pub(super) fn scatter_add<T: Real>(
    s: &Shape,
    dilation: usize,
    towards: Towards,
    strip: &Strip,
    patches: &[T],
    window: &mut [T],
) {
    let (c, patch) = (s.channels, s.patch());
    let steps = patches.len() / (strip.pixels(s) * patch).max(1);
    let rows = strip.window(s, dilation);
    let frame_len = rows.len() * s.width * c;
    vectorized(|| {
        let mut lines = patches.chunks_exact(s.width * patch);
        for step in 0..steps {
            for ((sample, row), line) in strip.frame_rows().zip(&mut lines) {
                let frame = &mut window[(sample * steps + step) * frame_len..][..frame_len];
                runs(s, dilation, towards, row, |run| {
                    let place = ((run.at[0] - rows.start) * s.width + run.at[1]) * c;
                    let to = &mut frame[place..][..run.len * c];
                    add_run(&line[run.column * patch + run.tap * c..], to, c, patch);
                });
            }
        }
    });
}

/// Copies consecutive pixels of `c` numbers to the beginnings of lines that lie `stride` apart.
#[inline(always)]
fn copy_run<T: Real>(pixels: &[T], lines: &mut [T], c: usize, stride: usize) {
    // Copies of a size that is known when this is compiled need no call.
    match c {
        4 => copy_fixed::<T, 4>(pixels, lines, stride),
        8 => copy_fixed::<T, 8>(pixels, lines, stride),
        12 => copy_fixed::<T, 12>(pixels, lines, stride),
        16 => copy_fixed::<T, 16>(pixels, lines, stride),
        24 => copy_fixed::<T, 24>(pixels, lines, stride),
        48 => copy_fixed::<T, 48>(pixels, lines, stride),
        _ => {
            for (pixel, line) in pixels.chunks_exact(c).zip(lines.chunks_mut(stride)) {
                line[..c].copy_from_slice(pixel);
            }
        }
    }
}

#[inline(always)]
fn copy_fixed<T: Real, const C: usize>(pixels: &[T], lines: &mut [T], stride: usize) {
    let (pixels, _) = pixels.as_chunks::<C>();
    for (pixel, line) in pixels.iter().zip(lines.chunks_mut(stride)) {
        if let Some(slots) = line.first_chunk_mut::<C>() {
            *slots = *pixel;
        }
    }
}

/// Adds the first `c` numbers of lines that lie `stride` apart to consecutive pixels.
#[inline(always)]
fn add_run<T: Real>(lines: &[T], pixels: &mut [T], c: usize, stride: usize) {
    match c {
        4 => add_fixed::<T, 4>(lines, pixels, stride),
        8 => add_fixed::<T, 8>(lines, pixels, stride),
        12 => add_fixed::<T, 12>(lines, pixels, stride),
        16 => add_fixed::<T, 16>(lines, pixels, stride),
        24 => add_fixed::<T, 24>(lines, pixels, stride),
        48 => add_fixed::<T, 48>(lines, pixels, stride),
        _ => {
            for (pixel, line) in pixels.chunks_exact_mut(c).zip(lines.chunks(stride)) {
                pixel.iter_mut().zip(line).for_each(|(sum, &value)| *sum += value);
            }
        }
    }
}

#[inline(always)]
fn add_fixed<T: Real, const C: usize>(lines: &[T], pixels: &mut [T], stride: usize) {
    let (pixels, _) = pixels.as_chunks_mut::<C>();
    for (pixel, line) in pixels.iter_mut().zip(lines.chunks(stride)) {
        if let Some(values) = line.first_chunk::<C>() {
            pixel.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value);
        }
    }
}
