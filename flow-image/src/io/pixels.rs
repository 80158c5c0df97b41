//! Images as a screen wants them: bytes 0 to 255.

use candle_core::{DType, Device, Tensor};

use crate::data::{Dataset, ImageShape};
use crate::{Error, Result};

/// `N` images `[N, C, H, W]` of one (grey) or three (red, green, blue) channels with values 0 to 255.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    values: Vec<u8>,
    shape: ImageShape,
}

impl Pixels {
    /// Levels `0..levels` of a tensor `(B, C, H, W)` spread over 0 to 255: rounded, and clipped where a
    /// model has left the range.
    ///
    /// # Errors
    /// Another rank or number of channels, no image, a level count below two, or a NaN.
    pub fn from_tensor(levels_tensor: &Tensor, levels: usize) -> Result<Self> {
        let [batch, shape @ ..] =
            <[usize; 4]>::try_from(levels_tensor.dims()).map_err(|_| flow_core::Error::Shape {
                layer: "pixels".into(),
                expected: "(B, C, H, W)".into(),
                actual: levels_tensor.dims().to_vec(),
            })?;
        let flat = levels_tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        if flat.iter().any(|v| v.is_nan()) {
            let (layer, what) = ("pixels".into(), format!("value among {batch} images"));
            return Err(flow_core::Error::NonFinite { layer, what, step: None }.into());
        }
        let top = top_level(levels)?;
        let values = flat.iter().map(|v| (v.round().clamp(0.0, top) * 255.0 / top).round() as u8).collect();
        Pixels::new(values, shape)
    }

    /// The images of a data set at `indices`.
    ///
    /// # Errors
    /// An index beyond the end, no image, or a number of channels other than one or three.
    pub fn from_dataset(set: &Dataset, indices: &[usize]) -> Result<Self> {
        let top = top_level(set.levels())?;
        let values = set.gather(indices)?.iter().map(|&v| (f32::from(v) * 255.0 / top).round() as u8).collect();
        Pixels::new(values, set.shape())
    }

    /// Images of this shape from their bytes `[N, C, H, W]`.
    ///
    /// # Errors
    /// A number of channels other than one or three, no image, or bytes that are no whole number of images.
    pub fn from_bytes(values: Vec<u8>, shape: ImageShape) -> Result<Self> {
        let size = shape.iter().try_fold(1usize, |product, &d| product.checked_mul(d)).unwrap_or(0);
        if size == 0 || !values.len().is_multiple_of(size) {
            let reason = format!("{} bytes are no whole number of images of shape {shape:?}", values.len());
            return Err(Error::config("pixels", reason));
        }
        Pixels::new(values, shape)
    }

    fn new(values: Vec<u8>, shape: ImageShape) -> Result<Self> {
        if !matches!(shape[0], 1 | 3) {
            return Err(Error::config("pixels", format!("pictures have 1 or 3 channels, got {}", shape[0])));
        }
        if values.is_empty() {
            return Err(Error::config("pixels", "there is no image to draw"));
        }
        Ok(Pixels { values, shape })
    }

    /// Number of images.
    pub fn count(&self) -> usize {
        self.values.len() / self.shape.iter().product::<usize>()
    }

    /// The images of a range of places.
    ///
    /// # Errors
    /// A range beyond the end, or an empty one.
    pub fn range(&self, range: std::ops::Range<usize>) -> Result<Self> {
        let size = self.shape.iter().product::<usize>();
        let values = self.values.get(range.start * size..range.end * size);
        let beyond = || Error::config("pixels", format!("images {range:?} of {}", self.count()));
        Pixels::new(values.ok_or_else(beyond)?.to_vec(), self.shape)
    }

    /// All values, `[N, C, H, W]`.
    pub fn bytes(&self) -> &[u8] {
        &self.values
    }

    /// Every pixel as a block of `factor` by `factor`, as a viewer should show it: nothing is smoothed.
    ///
    /// # Errors
    /// A factor of zero, or images with a side above [`super::MAX_SIDE`].
    pub fn enlarged(&self, factor: usize) -> Result<Self> {
        let [channels, height, width] = self.shape;
        let sides = [height.saturating_mul(factor), width.saturating_mul(factor)];
        if factor == 0 || sides.iter().any(|&side| side > super::MAX_SIDE) {
            let reason = format!("must make sides of 1 to {} pixels, got {factor}", super::MAX_SIDE);
            return Err(Error::config("upscale", reason));
        }
        if factor == 1 {
            return Ok(self.clone());
        }
        let mut values = Vec::with_capacity(self.values.len() * factor * factor);
        for row in self.values.chunks_exact(width) {
            let start = values.len();
            values.extend(row.iter().flat_map(|&v| std::iter::repeat_n(v, factor)));
            (1..factor).for_each(|_| values.extend_from_within(start..start + width * factor));
        }
        Pixels::new(values, [channels, sides[0], sides[1]])
    }

    /// `(C, H, W)` of each image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// The images one after the other, `[C, H, W]` each.
    pub fn images(&self) -> impl Iterator<Item = &[u8]> {
        self.values.chunks_exact(self.shape.iter().product())
    }

    /// Red, green and blue of a pixel of one of the [`Pixels::images`].
    pub fn rgb(&self, image: &[u8], row: usize, column: usize) -> [u8; 3] {
        let [channels, height, width] = self.shape;
        let at = |channel: usize| image[(channel * height + row) * width + column];
        if channels == 3 { [at(0), at(1), at(2)] } else { [at(0); 3] }
    }
}

fn top_level(levels: usize) -> Result<f32> {
    match levels {
        2..=256 => Ok((levels - 1) as f32),
        _ => Err(Error::config("levels", format!("must be 2 to 256, got {levels}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_fill_the_range_and_are_clipped() {
        let tensor = Tensor::new(&[-3f32, 0.0, 7.6, 16.0, 99.0, f32::INFINITY], &Device::Cpu).unwrap();
        let pixels = Pixels::from_tensor(&tensor.reshape((1, 1, 2, 3)).unwrap(), 17).unwrap();
        assert_eq!(pixels.values, [0, 0, 128, 255, 255, 255]);
        let set = Dataset::new(vec![0, 8, 16], [1, 1, 1], 17, "x").unwrap();
        assert_eq!(Pixels::from_dataset(&set, &[2, 1]).unwrap().values, [255, 128]);
    }

    #[test]
    fn enlarged_pixels_are_blocks() {
        let pixels = Pixels::from_bytes(vec![1, 2, 3, 4], [1, 1, 2]).unwrap().enlarged(2).unwrap();
        assert_eq!(
            (pixels.shape(), pixels.bytes()),
            ([1, 2, 4], &[1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4][..])
        );
        assert!(pixels.enlarged(0).is_err() && pixels.enlarged(usize::MAX).is_err());
        for (bytes, shape) in
            [(vec![1; 5], [1, 1, 2]), (vec![], [1, 1, 1]), (vec![1; 2], [2, 1, 1]), (vec![1], [1, 0, 1])]
        {
            assert!(Pixels::from_bytes(bytes, shape).is_err());
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_an_error() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        assert!(Pixels::from_tensor(&zeros(&[2, 2]), 256).is_err());
        assert!(Pixels::from_tensor(&zeros(&[1, 2, 2, 2]), 256).is_err());
        assert!(Pixels::from_tensor(&zeros(&[0, 3, 2, 2]), 256).is_err());
        assert!(Pixels::from_tensor(&zeros(&[1, 3, 2, 2]), 1).is_err());
        let nan = (zeros(&[1, 1, 2, 2]) / 0.0).unwrap();
        assert!(Pixels::from_tensor(&nan, 256).unwrap_err().to_string().contains("non-finite"));
    }
}
