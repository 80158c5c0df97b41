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

    /// `(C, H, W)` of each image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// The images one after the other, `[C, H, W]` each.
    pub(crate) fn images(&self) -> impl Iterator<Item = &[u8]> {
        self.values.chunks_exact(self.shape.iter().product())
    }

    /// Red, green and blue of a pixel of one of the [`Pixels::images`].
    pub(crate) fn rgb(&self, image: &[u8], row: usize, column: usize) -> [u8; 3] {
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
