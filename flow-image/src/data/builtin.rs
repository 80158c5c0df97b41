//! The built-in data set: handwritten digits that need no file.
//!
//! 1,797 digits of 8×8 pixels with 17 grey levels: the test part of "Optical Recognition of Handwritten
//! Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository 1998, CC BY 4.0), shipped as
//! a data set of the `smartcore` crate. Each pixel counts the dark ones among 4×4 pixels of a scan, hence 0
//! to 16.

use super::{Dataset, Splits};
use crate::{Error, Result};

/// Grey levels of a pixel: 0 to 16.
pub const LEVELS: usize = 17;

const VALIDATION: usize = 97;
const TEST: usize = 200;

/// The seed of the published split, so that numbers on it can be compared.
const SEED: u64 = 8;

/// 1,500 digits to train, 97 to validate and 200 to test, shuffled the same way every time.
///
/// # Errors
/// A `smartcore` that ships something else than integers 0 to 16 in rows of 64.
pub fn digits() -> Result<Splits> {
    let raw = smartcore::dataset::digits::load_dataset();
    let levels = integers(&raw.data, LEVELS as u8 - 1)?;
    let labels = integers(&raw.target, 9)?.into_iter().map(u32::from).collect();
    let names = (0..10).map(|digit| digit.to_string()).collect();
    let set = Dataset::new(levels, [1, 8, 8], LEVELS, "built-in digits (UCI optical digits, 8x8, 17 levels)")?;
    Splits::cut(&set.with_labels(labels, names)?, VALIDATION, TEST, SEED)
}

/// Floats that must be integers `0..=max`.
fn integers(values: &[f32], max: u8) -> Result<Vec<u8>> {
    let integer = |(index, &value): (usize, &f32)| {
        if value.fract() == 0.0 && (0.0..=f32::from(max)).contains(&value) {
            return Ok(value as u8);
        }
        Err(Error::config("built-in digits", format!("value {index} is {value}, expected an integer 0 to {max}")))
    };
    values.iter().enumerate().map(integer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_are_the_known_ones() {
        let splits = digits().unwrap();
        let parts = [&splits.train, &splits.validation, &splits.test];
        assert_eq!(parts.map(Dataset::len), [1500, 97, 200]);
        assert!(parts.iter().all(|p| p.shape() == [1, 8, 8] && p.levels() == 17));
        let (mut per_class, mut sum) = ([0; 10], 0u64);
        for part in parts {
            part.labels().unwrap().iter().for_each(|&label| per_class[label as usize] += 1);
            sum += part.images().iter().map(|&v| u64::from(v)).sum::<u64>();
        }
        // Published class counts of the set, and the mean pixel that other libraries report: 4.884.
        assert_eq!(per_class, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        assert_eq!(sum, 561_718);
        assert_eq!(digits().unwrap(), splits);
    }

    #[test]
    fn anything_but_small_integers_is_refused() {
        for bad in [0.5, -1.0, 17.0, f32::NAN, f32::INFINITY] {
            assert!(integers(&[0.0, bad], 16).unwrap_err().to_string().contains("value 1"), "{bad}");
        }
    }
}
