//! Binary images and how they are made of grey ones.

use candle_core::{DType, Device, Tensor};
use flow_core::hash::Fnv;

use crate::{Error, Result};

/// Which numbers a set is binarised with, so that training and test images do not share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Images to learn from, those held out for validation among them.
    Train,
    /// Images to test on.
    Test,
}

/// `N` images of zeros and ones.
///
/// # How grey becomes binary
/// Each pixel is drawn once, with its brightness as the probability of a one (Salakhutdinov & Murray 2008), and stays as it
/// was drawn: **static** binarisation. The draws are those of SplitMix64 (Steele, Lea & Flood 2014), which any language has
/// in five lines, so that others can make the same images:
///
/// ```text
/// state = 2 · seed, and one more for test images        (64-bit arithmetic that wraps)
/// for every pixel, image by image, row by row:
///     state += 0x9E3779B97F4A7C15
///     a = (state ^ (state >> 30)) · 0xBF58476D1CE4E5B9
///     a = (a ^ (a >> 27)) · 0x94D049BB133111EB
///     u = ((a ^ (a >> 31)) >> 11) / 2⁵³
///     one where value / (levels - 1) > u
/// ```
///
/// Likelihoods of other binarisations, of images cut at one half above all, cannot be compared with these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinaryImages {
    bits: Vec<u8>,
    shape: [usize; 2],
}

impl BinaryImages {
    /// Draws images of `[height, width]` from their grey values in `0..levels`, image by image, row by row.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for no image, values that are no whole number of images, or a value at or above
    /// `levels`, named with its place.
    pub fn binarize(grey: &[u8], levels: usize, shape: [usize; 2], seed: u64, stream: Stream) -> Result<Self> {
        if !(2..=256).contains(&levels) {
            return Err(Error::config("levels", format!("is {levels}, must be 2 to 256")));
        }
        if let Some(place) = grey.iter().position(|&v| usize::from(v) >= levels) {
            let reason = format!("value {} at index {place} is not below the {levels} levels", grey[place]);
            return Err(Error::config("binarisation", reason));
        }
        let mut state = seed.wrapping_mul(2).wrapping_add(u64::from(stream == Stream::Test));
        let top = (levels - 1) as f64;
        let bits = grey.iter().map(|&v| u8::from(f64::from(v) / top > uniform(&mut state))).collect();
        Self::from_bits(bits, shape)
    }

    /// Images that are zeros and ones already.
    ///
    /// # Errors
    /// As [`BinaryImages::binarize`], for values other than zero and one.
    pub fn from_bits(bits: Vec<u8>, shape: [usize; 2]) -> Result<Self> {
        let size = shape[0].saturating_mul(shape[1]);
        if size == 0 || bits.is_empty() || !bits.len().is_multiple_of(size) {
            let reason = format!("{} pixels are no whole number of images of {shape:?}, or none", bits.len());
            return Err(Error::config("binary images", reason));
        }
        if let Some(place) = bits.iter().position(|&bit| bit > 1) {
            return Err(Error::config("binary images", format!("value {} at index {place} is no bit", bits[place])));
        }
        Ok(BinaryImages { bits, shape })
    }

    /// Number of images, never zero.
    pub fn len(&self) -> usize {
        self.bits.len() / self.pixels()
    }

    /// Whether there are none: never, by construction.
    pub fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    /// Height and width.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Pixels of an image.
    pub fn pixels(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// All pixels, image by image.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// The images at these places, `(B, height · width)`, as zeros and ones.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for a place beyond the last image.
    pub fn batch(&self, places: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let size = self.pixels();
        let mut pixels = Vec::with_capacity(places.len() * size);
        for &place in places {
            if place >= self.len() {
                return Err(Error::config("image", format!("number {place}, there are {}, from 0 on", self.len())));
            }
            pixels.extend(self.bits[place * size..][..size].iter().map(|&bit| f32::from(bit)));
        }
        Ok(Tensor::from_vec(pixels, (places.len(), size), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }

    /// The first `count` images, or all if there are not so many.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for a count of zero.
    pub fn first(&self, count: usize) -> Result<Self> {
        let end = count.min(self.len()) * self.pixels();
        Self::from_bits(self.bits[..end].to_vec(), self.shape)
    }

    /// A number that tells the images from others.
    pub fn hash(&self) -> Fnv {
        let word = |bits: &[u8]| bits.iter().fold(0, |word, &bit| (word << 1) | u32::from(bit));
        Fnv::new().words(self.bits.chunks(32).map(word))
    }
}

/// The next number of SplitMix64, as one in `[0, 1)`.
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let a = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let a = (a ^ (a >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((a ^ (a >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers that are published for SplitMix64 from 1234567 on.
    #[test]
    fn the_generator_is_the_published_one() {
        let mut state = 1_234_567;
        let published = [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        for number in published {
            assert_eq!(uniform(&mut state), (number >> 11) as f64 / (1u64 << 53) as f64);
        }
    }

    #[test]
    fn brightness_is_the_share_of_ones_and_ends_are_certain() {
        let grey: Vec<u8> = (0..30_000).map(|i| [0, 4, 16][i % 3]).collect();
        let images = BinaryImages::binarize(&grey, 17, [3, 1], 5, Stream::Train).unwrap();
        let mut ones = [0usize; 3];
        images.bits().iter().enumerate().for_each(|(i, &bit)| ones[i % 3] += usize::from(bit));
        assert_eq!((ones[0], ones[2]), (0, 10_000));
        // Four deviations of a binomial share around a quarter.
        assert!((ones[1] as f64 / 1e4 - 0.25).abs() < 4.0 * (0.25 * 0.75 / 1e4_f64).sqrt(), "{ones:?}");
        assert_eq!(images, BinaryImages::binarize(&grey, 17, [3, 1], 5, Stream::Train).unwrap());
        for (seed, stream) in [(5, Stream::Test), (6, Stream::Train)] {
            assert_ne!(images, BinaryImages::binarize(&grey, 17, [3, 1], seed, stream).unwrap());
        }
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let refused = |grey: &[u8], levels, shape| {
            BinaryImages::binarize(grey, levels, shape, 0, Stream::Train).unwrap_err().to_string()
        };
        assert!(refused(&[0; 5], 2, [2, 2]).contains("5 pixels"));
        assert!(refused(&[], 2, [2, 2]).contains("or none"));
        assert!(refused(&[0, 1, 2, 0], 2, [2, 2]).contains("value 2 at index 2"));
        assert!(refused(&[0; 4], 1, [2, 2]).contains("levels"));
        let images = BinaryImages::from_bits(vec![0, 1, 1, 0], [1, 2]).unwrap();
        assert!(images.batch(&[2], DType::F32, &Device::Cpu).unwrap_err().to_string().contains("number 2"));
        assert!(BinaryImages::from_bits(vec![0, 3], [1, 2]).is_err() && images.first(0).is_err());
        assert_eq!((images.first(9).unwrap().len(), images.len()), (2, 2));
    }
}
