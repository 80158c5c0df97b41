//! How alike two pictures are.

use crate::{Error, Result};

/// The peak signal-to-noise ratio of equal pictures, in dB, where the formula gives infinity: means stay finite.
pub const PSNR_LIMIT: f64 = 100.0;

/// Side and deviation of SSIM's Gaussian window.
const WINDOW: usize = 11;
const DEVIATION: f64 = 1.5;

/// `10 log₁₀(peak² / MSE)` in dB, at most [`PSNR_LIMIT`].
///
/// # Errors
/// Pictures of different sizes, or without pixels.
pub fn psnr(a: &[u8], b: &[u8], peak: f64) -> Result<f64> {
    check(a, b)?;
    let sum: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    Ok((10.0 * (peak * peak * a.len() as f64 / sum).log10()).min(PSNR_LIMIT))
}

/// The structural similarity of pictures `(C, H, W)`: the mean over channels and windows of
/// `(2 μ_a μ_b + c₁)(2 σ_ab + c₂) / ((μ_a² + μ_b² + c₁)(σ_a² + σ_b² + c₂))`, `c₁ = (0.01 peak)²`, `c₂ = (0.03 peak)²`
/// (Wang et al. 2004), over Gaussian windows of 11×11 pixels and deviation 1.5 that lie inside the picture; a smaller
/// picture has a window of its own size.
///
/// # Errors
/// Pictures of another size.
pub fn ssim(a: &[u8], b: &[u8], [channels, height, width]: [usize; 3], peak: f64) -> Result<f64> {
    check(a, b)?;
    if a.len() != channels * height * width {
        return Err(Error::config("ssim", format!("{} pixels for {channels}x{height}x{width}", a.len())));
    }
    let (rows, columns) = (window(height), window(width));
    let (c1, c2) = ((0.01 * peak).powi(2), (0.03 * peak).powi(2));
    let size = height * width;
    let mut total = 0.0;
    for (a, b) in a.chunks_exact(size).zip(b.chunks_exact(size)) {
        let blurred = |f: &dyn Fn(f64, f64) -> f64| {
            let values: Vec<f64> = a.iter().zip(b).map(|(&a, &b)| f(a.into(), b.into())).collect();
            blur(&values, width, &rows, &columns)
        };
        let (mean_a, mean_b) = (blurred(&|a, _| a), blurred(&|_, b| b));
        let (square_a, square_b, product) = (blurred(&|a, _| a * a), blurred(&|_, b| b * b), blurred(&|a, b| a * b));
        let mut sum = 0.0;
        for i in 0..mean_a.len() {
            let (ma, mb) = (mean_a[i], mean_b[i]);
            let (va, vb, cov) = (square_a[i] - ma * ma, square_b[i] - mb * mb, product[i] - ma * mb);
            sum += (2.0 * ma * mb + c1) * (2.0 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
        }
        total += sum / mean_a.len() as f64;
    }
    Ok(total / channels as f64)
}

fn check(a: &[u8], b: &[u8]) -> Result<()> {
    if a.len() != b.len() || a.is_empty() {
        return Err(Error::config("pictures", format!("{} and {} pixels cannot be compared", a.len(), b.len())));
    }
    Ok(())
}

/// A Gaussian of [`WINDOW`] weights, or of fewer that fit.
fn window(side: usize) -> Vec<f64> {
    let count = WINDOW.min(side);
    let middle = (count as f64 - 1.0) / 2.0;
    let weight = |i: usize| (-0.5 * ((i as f64 - middle) / DEVIATION).powi(2)).exp();
    let weights: Vec<f64> = (0..count).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// The weighted means over all windows inside a picture `width` columns wide: rows first, then columns.
fn blur(values: &[f64], width: usize, rows: &[f64], columns: &[f64]) -> Vec<f64> {
    let across: Vec<f64> = values
        .chunks_exact(width)
        .flat_map(|line| line.windows(columns.len()).map(|w| w.iter().zip(columns).map(|(v, c)| v * c).sum()))
        .collect();
    let width = width + 1 - columns.len();
    let height = across.len() / width;
    let mut out = Vec::with_capacity((height + 1 - rows.len()) * width);
    for top in 0..=height - rows.len() {
        for column in 0..width {
            out.push(rows.iter().enumerate().map(|(i, r)| r * across[(top + i) * width + column]).sum());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Direct sums over every window.
    fn naive(a: &[u8], b: &[u8], h: usize, w: usize) -> f64 {
        let (kh, kw) = (window(h), window(w));
        let (mut sum, mut count) = (0.0, 0.0);
        for y in 0..=h - kh.len() {
            for x in 0..=w - kw.len() {
                let mut m = [0.0; 5];
                for (i, r) in kh.iter().enumerate() {
                    for (j, c) in kw.iter().enumerate() {
                        let at = (y + i) * w + x + j;
                        let (p, q) = (f64::from(a[at]), f64::from(b[at]));
                        for (m, v) in m.iter_mut().zip([p, q, p * p, q * q, p * q]) {
                            *m += r * c * v;
                        }
                    }
                }
                let [ma, mb, aa, bb, ab] = m;
                let (c1, c2) = (6.5025, 58.5225);
                sum += (2.0 * ma * mb + c1) * (2.0 * (ab - ma * mb) + c2)
                    / ((ma * ma + mb * mb + c1) * (aa - ma * ma + bb - mb * mb + c2));
                count += 1.0;
            }
        }
        sum / count
    }

    fn picture(h: usize, w: usize, factor: usize) -> Vec<u8> {
        (0..h * w).map(|i| (i * i * factor % 251) as u8).collect()
    }

    #[test]
    fn similarity_is_that_of_the_definition() {
        for (h, w) in [(16, 13), (11, 11), (5, 20), (1, 1)] {
            let (a, b) = (picture(h, w, 7), picture(h, w, 11));
            let got = ssim(&a, &b, [1, h, w], 255.0).unwrap();
            assert!((got - naive(&a, &b, h, w)).abs() < 1e-9, "{h}x{w}");
            assert!((ssim(&a, &a, [1, h, w], 255.0).unwrap() - 1.0).abs() < 1e-12);
            let colours: Vec<u8> = a.iter().chain(&b).copied().collect();
            let swapped: Vec<u8> = b.iter().chain(&a).copied().collect();
            assert!((ssim(&colours, &swapped, [2, h, w], 255.0).unwrap() - got).abs() < 1e-9, "channels are averaged");
        }
        assert!(ssim(&[1, 2], &[1, 2], [1, 1, 3], 255.0).is_err());
    }

    #[test]
    fn noise_ratio_is_that_of_the_definition() {
        assert!((psnr(&[0, 0, 0, 0], &[5, 5, 5, 5], 255.0).unwrap() - 34.1514).abs() < 1e-4);
        assert_eq!(psnr(&[3], &[3], 255.0).unwrap(), PSNR_LIMIT);
        assert!(psnr(&[], &[], 255.0).is_err() && psnr(&[1], &[1, 2], 255.0).is_err());
    }
}
