//! A colour map in which equal steps look equal.

/// Red, green and blue of a value in `[0, 1]`, from nearly black over violet and orange to pale yellow; values outside,
/// and NaN, are taken as the nearer end, NaN as the lower one.
///
/// Lightness rises linearly in Oklab (Ottosson 2020), in which equal distances look equal, while the hue turns and the
/// chroma is as large as the screen's colours allow: what is twice as high looks twice as light, in grey as well.
pub fn heat(value: f32) -> [u8; 3] {
    let t = if value.is_nan() { 0.0 } else { f64::from(value.clamp(0.0, 1.0)) };
    let lightness = 0.12 + 0.84 * t;
    // From violet (300 degrees) over red (20) to yellow (105).
    let hue = (-60.0 + 165.0 * t).to_radians();
    let wanted = 0.17 * (std::f64::consts::PI * (0.12 + 0.76 * t)).sin();
    // The largest chroma up to the wanted one that the screen shows.
    let (mut low, mut high) = (0.0, wanted);
    if linear_rgb(lightness, hue, wanted).iter().all(|c| (0.0..=1.0).contains(c)) {
        low = wanted;
    } else {
        for _ in 0..24 {
            let middle = (low + high) / 2.0;
            let fits = linear_rgb(lightness, hue, middle).iter().all(|c| (0.0..=1.0).contains(c));
            if fits { low = middle } else { high = middle }
        }
    }
    linear_rgb(lightness, hue, low).map(|c| (gamma(c.clamp(0.0, 1.0)) * 255.0).round() as u8)
}

/// Oklab in polar form to linear sRGB.
fn linear_rgb(lightness: f64, hue: f64, chroma: f64) -> [f64; 3] {
    let (a, b) = (chroma * hue.cos(), chroma * hue.sin());
    let l = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let m = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let s = (lightness - 0.089_484_177_5 * a - 1.291_485_548_0 * b).powi(3);
    [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701_0 * s,
    ]
}

/// The transfer function of sRGB.
fn gamma(c: f64) -> f64 {
    if c <= 0.003_130_8 { 12.92 * c } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lightness in CIE L*, another scale than the one the map is made in.
    fn lightness([r, g, b]: [u8; 3]) -> f64 {
        let linear = |c: u8| {
            let c = f64::from(c) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        let y = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
        116.0 * y.cbrt() - 16.0
    }

    #[test]
    fn lightness_rises_evenly_from_dark_to_pale() {
        let steps: Vec<f64> = (0..=16).map(|i| lightness(heat(i as f32 / 16.0))).collect();
        assert!(steps[0] < 8.0 && steps[16] > 92.0, "{steps:?}");
        for pair in steps.windows(2).skip(1) {
            let step = pair[1] - pair[0];
            assert!((3.0..9.0).contains(&step), "{steps:?}");
        }
        assert_eq!(heat(f32::NAN), heat(0.0));
        assert_eq!((heat(-3.0), heat(f32::INFINITY)), (heat(0.0), heat(1.0)));
    }
}
