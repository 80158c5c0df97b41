//! A data set in memory: bytes, labels and what they mean.

use candle_core::{Device, Tensor};
use flow_core::hash::Fnv;

use super::{Attributes, Range};
use crate::{Error, Result};

/// Channels, height and width of one image.
pub type ImageShape = [usize; 3];

/// `N` images of one shape as integer levels, with optional labels and attributes.
///
/// # Shapes
/// - images `[N, C, H, W]`, each value in `0..levels`; labels `[N]`; attributes `[N, A]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    images: Vec<u8>,
    shape: ImageShape,
    levels: usize,
    labels: Option<Vec<u32>>,
    class_names: Vec<String>,
    attributes: Option<Attributes>,
    names: Option<Vec<String>>,
    range: Option<Range>,
    notes: Vec<String>,
    source: String,
}

impl Dataset {
    /// A data set without labels from the bytes `[N, C, H, W]`; `source` says where it comes from.
    ///
    /// # Errors
    /// An empty set or shape, a length that is no multiple of `C · H · W`, levels outside `2..=256`,
    /// or a value at or above `levels` (named with its index).
    pub fn new(images: Vec<u8>, shape: ImageShape, levels: usize, source: impl Into<String>) -> Result<Self> {
        let source = source.into();
        if !(2..=256).contains(&levels) {
            return Err(Error::config("levels", format!("must be 2 to 256, got {levels}")));
        }
        let size = shape.iter().try_fold(1usize, |product, &d| product.checked_mul(d)).unwrap_or(0);
        if size == 0 || images.is_empty() || !images.len().is_multiple_of(size) {
            let reason = format!("{} values are no whole number of images of shape {shape:?}", images.len());
            return Err(Error::config(source, reason));
        }
        if let Some(index) = images.iter().position(|&v| usize::from(v) >= levels) {
            let reason = format!("value {} at index {index} is not below the {levels} levels", images[index]);
            return Err(Error::config(source, reason));
        }
        Ok(Dataset {
            images,
            shape,
            levels,
            labels: None,
            class_names: Vec::new(),
            attributes: None,
            names: None,
            range: None,
            notes: Vec::new(),
            source,
        })
    }

    /// The same images with one label each, an index into `class_names`.
    ///
    /// # Errors
    /// A number of labels other than the number of images, or a label without a name.
    pub fn with_labels(mut self, labels: Vec<u32>, class_names: Vec<String>) -> Result<Self> {
        if labels.len() != self.len() {
            let reason = format!("{} labels for {} images", labels.len(), self.len());
            return Err(Error::config(self.source, reason));
        }
        if let Some(label) = labels.iter().find(|&&label| label as usize >= class_names.len()) {
            return Err(Error::config(self.source, format!("label {label} with {} class names", class_names.len())));
        }
        (self.labels, self.class_names) = (Some(labels), class_names);
        Ok(self)
    }

    /// The same images with a row of yes/no attributes each.
    ///
    /// # Errors
    /// A number of rows other than the number of images.
    pub fn with_attributes(mut self, attributes: Attributes) -> Result<Self> {
        if attributes.len() != self.len() {
            let reason = format!("{} rows of attributes for {} images", attributes.len(), self.len());
            return Err(Error::config(self.source, reason));
        }
        self.attributes = Some(attributes);
        Ok(self)
    }

    /// The same images with the name of the file that each was read from.
    ///
    /// # Errors
    /// A number of names other than the number of images.
    pub fn with_names(mut self, names: Vec<String>) -> Result<Self> {
        if names.len() != self.len() {
            let reason = format!("{} names for {} images", names.len(), self.len());
            return Err(Error::config(self.source, reason));
        }
        self.names = Some(names);
        Ok(self)
    }

    /// The same images with more to tell about how they were read: what was left out, changed or rounded.
    #[must_use]
    pub fn with_notes(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.notes.extend(notes);
        self
    }

    /// The same images, read from floats in this range.
    pub(crate) fn with_range(mut self, range: Option<Range>) -> Self {
        self.range = range;
        self
    }

    /// The same images described by another text.
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Number of images `N`, never zero in a set that came from a reader.
    pub fn len(&self) -> usize {
        self.images.len() / self.image_size()
    }

    /// Whether there are no images, as in the test part of a set split without one.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// `(C, H, W)` of every image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// `D = C · H · W`, the number of dimensions that bits per dimension divides by.
    pub fn image_size(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of integer levels: 256 for bytes, `2^bits` after [`Dataset::reduce_bits`], 17 for the digits.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// All values, `[N, C, H, W]`.
    pub fn images(&self) -> &[u8] {
        &self.images
    }

    /// The values `[C, H, W]` of one image, if there are so many.
    pub fn image(&self, index: usize) -> Option<&[u8]> {
        let start = index.checked_mul(self.image_size())?;
        self.images.get(start..start.checked_add(self.image_size())?)
    }

    /// One class index per image, where the source has classes.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// Names of the classes, in the order of the labels; empty without labels.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// The yes/no attributes, where the source has them.
    pub fn attributes(&self) -> Option<&Attributes> {
        self.attributes.as_ref()
    }

    /// The path of each picture below the folder that was read, with `/` between its parts; `None` for other formats.
    pub fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// The rule by which floats became levels, where the source has floats.
    pub fn range(&self) -> Option<Range> {
        self.range
    }

    /// What was left out, changed or rounded in reading, a sentence for each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where the images come from and what has been done to them.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// A hash of the images in their order, with their labels.
    pub(crate) fn hash(&self) -> Fnv {
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, &byte| (word << 8) | u32::from(byte));
        Fnv::new().words(self.images.chunks(4).map(word)).words(self.labels.iter().flatten().copied())
    }

    /// Copies of the images at `indices`, in that order; `subset(0..100)` is the first hundred.
    ///
    /// # Errors
    /// An index beyond the end.
    pub fn subset(&self, indices: impl IntoIterator<Item = usize>) -> Result<Self> {
        let indices: Vec<usize> = indices.into_iter().collect();
        let images = self.gather(&indices)?;
        let labels = self.labels.as_ref().map(|labels| indices.iter().map(|&i| labels[i]).collect());
        let attributes = self.attributes.as_ref().map(|attributes| attributes.subset(&indices));
        let names = self.names.as_ref().map(|names| indices.iter().map(|&i| names[i].clone()).collect());
        let (class_names, source, notes) = (self.class_names.clone(), self.source.clone(), self.notes.clone());
        Ok(Dataset { images, labels, attributes, class_names, names, source, notes, ..*self })
    }

    /// All images of several sets behind each other, described as the first one; labels, attributes and names where all
    /// sets have them.
    ///
    /// # Errors
    /// Sets of different shapes, levels or classes.
    pub fn concat(sets: Vec<Dataset>) -> Result<Self> {
        let mut sets = sets.into_iter();
        let Some(mut all) = sets.next() else { return Err(Error::config("data sets", "there are none to join")) };
        for set in sets {
            if (set.shape, set.levels) != (all.shape, all.levels) || set.class_names != all.class_names {
                let reason = format!("images or classes other than those of {}", all.source);
                return Err(Error::config(set.source, reason));
            }
            all.images.extend(set.images);
            all.labels = joined(all.labels, set.labels);
            all.names = joined(all.names, set.names);
            all.attributes = match (all.attributes, set.attributes) {
                (Some(first), Some(second)) => first.join(second),
                _ => None,
            };
            let new: Vec<String> = set.notes.into_iter().filter(|note| !all.notes.contains(note)).collect();
            all.notes.extend(new);
        }
        Ok(all)
    }

    /// The values of several images behind each other, `[B, C, H, W]`.
    ///
    /// # Errors
    /// An index beyond the end.
    pub fn gather(&self, indices: &[usize]) -> Result<Vec<u8>> {
        let mut values = Vec::with_capacity(indices.len() * self.image_size());
        for &index in indices {
            let beyond = || Error::config("image index", format!("{index} of {} ({})", self.len(), self.source));
            values.extend_from_slice(self.image(index).ok_or_else(beyond)?);
        }
        Ok(values)
    }

    /// `(B, C, H, W)` of integer levels in f32, ready to be dequantized.
    ///
    /// # Errors
    /// An index beyond the end, or a failure of the device.
    pub fn batch(&self, indices: &[usize], device: &Device) -> Result<Tensor> {
        levels_tensor(&self.gather(indices)?, self.shape, device)
    }

    /// The class indices of the images at `indices`, where the source has classes.
    pub fn labels_of(&self, indices: &[usize]) -> Option<Vec<u32>> {
        let labels = self.labels()?;
        Some(indices.iter().filter_map(|&i| labels.get(i).copied()).collect())
    }

    /// `(B,)` of class indices in u32; `None` without labels.
    ///
    /// # Errors
    /// An index beyond the end, or a failure of the device.
    pub fn label_batch(&self, indices: &[usize], device: &Device) -> Result<Option<Tensor>> {
        let Some(labels) = &self.labels else { return Ok(None) };
        let label = |&i: &usize| {
            labels.get(i).copied().ok_or_else(|| Error::config("image index", format!("{i} of {}", labels.len())))
        };
        let chosen = indices.iter().map(label).collect::<Result<Vec<u32>>>()?;
        Ok(Some(Tensor::new(chosen, device)?))
    }

    /// Keeps the `bits` highest bits of every byte: `floor(x / 2^(8 - bits))`, `2^bits` levels
    /// (Kingma & Dhariwal 2018, section 5, train on five bits).
    ///
    /// # Errors
    /// Bits outside `1..=8`, or values that are not bytes to begin with.
    pub fn reduce_bits(mut self, bits: u32) -> Result<Self> {
        if !(1..=8).contains(&bits) {
            return Err(Error::config("bits", format!("must be 1 to 8, got {bits}")));
        }
        if self.levels != 256 {
            let reason = format!("only images of 256 levels can be reduced, {} has {}", self.source, self.levels);
            return Err(Error::config("bits", reason));
        }
        if bits < 8 {
            self.images.iter_mut().for_each(|v| *v >>= 8 - bits);
            self.levels = 1 << bits;
            self.source = format!("{}, {bits} bits", self.source);
        }
        Ok(self)
    }

    /// Zeros around every image up to the next multiple of `multiple`, the image in the middle
    /// (an odd remainder goes below and to the right). 28×28 padded to a multiple of 32 is 32×32.
    ///
    /// Padding changes `D` and with it the meaning of bits per dimension.
    ///
    /// # Errors
    /// A multiple of zero or above 4096.
    pub fn pad_to_multiple(self, multiple: usize) -> Result<Self> {
        if multiple == 0 || multiple > 4096 {
            return Err(Error::config("pad", format!("must be 1 to 4096, got {multiple}")));
        }
        let [c, h, w] = self.shape;
        let (height, width) = (h.next_multiple_of(multiple), w.next_multiple_of(multiple));
        if (height, width) == (h, w) {
            return Ok(self);
        }
        let (top, left) = ((height - h) / 2, (width - w) / 2);
        let mut images = vec![0; self.len() * c * height * width];
        for (index, row) in self.images.chunks_exact(w).enumerate() {
            let start = ((index / h) * height + top + index % h) * width + left;
            images[start..start + w].copy_from_slice(row);
        }
        let source = format!("{}, zero-padded from {h}x{w} to {height}x{width}", self.source);
        Ok(Dataset { images, shape: [c, height, width], source, ..self })
    }
}

/// One list behind the other, if there are both.
fn joined<T>(first: Option<Vec<T>>, second: Option<Vec<T>>) -> Option<Vec<T>> {
    let mut all = first?;
    all.extend(second?);
    Some(all)
}

/// Bytes `[B, C, H, W]` as a tensor of levels in f32.
pub(crate) fn levels_tensor(values: &[u8], [c, h, w]: ImageShape, device: &Device) -> Result<Tensor> {
    let levels: Vec<f32> = values.iter().map(|&v| f32::from(v)).collect();
    let batch = values.len() / (c * h * w);
    Ok(Tensor::from_vec(levels, (batch, c, h, w), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four 1x2x3 images holding 0..24.
    fn counting() -> Dataset {
        let names = ["a", "b"].map(String::from).to_vec();
        Dataset::new((0..24).collect(), [1, 2, 3], 256, "test").unwrap().with_labels(vec![0, 1, 1, 0], names).unwrap()
    }

    #[test]
    fn a_batch_is_the_chosen_images_in_order() {
        let set = counting();
        let batch = set.batch(&[2, 0], &Device::Cpu).unwrap();
        assert_eq!(batch.dims(), &[2, 1, 2, 3]);
        let expected: Vec<f32> = (12..18).chain(0..6).map(|v| v as f32).collect();
        assert_eq!(batch.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
        let labels = set.label_batch(&[2, 0], &Device::Cpu).unwrap().unwrap();
        assert_eq!(labels.to_vec1::<u32>().unwrap(), [1, 0]);
        assert!(set.batch(&[4], &Device::Cpu).unwrap_err().to_string().contains("4 of 4"));
        assert!(set.label_batch(&[4], &Device::Cpu).is_err());
    }

    #[test]
    fn a_subset_keeps_labels_beside_their_images() {
        let set = counting().subset([3, 1]).unwrap();
        assert_eq!(set.image(0).unwrap(), [18, 19, 20, 21, 22, 23]);
        assert_eq!(set.labels().unwrap(), [0, 1]);
        assert_eq!(set.len(), 2);
        assert!(counting().subset(3..5).is_err());
        assert!(counting().image(usize::MAX).is_none());
    }

    #[test]
    fn reduced_bits_are_the_high_bits() {
        let set = Dataset::new(vec![0, 7, 8, 128, 247, 255], [1, 2, 3], 256, "x").unwrap().reduce_bits(5).unwrap();
        assert_eq!(set.images(), [0, 0, 1, 16, 30, 31]);
        assert_eq!(set.levels(), 32);
        assert!(set.reduce_bits(5).is_err(), "reducing twice would not mean what it says");
        assert!(counting().reduce_bits(0).is_err());
        assert_eq!(counting().reduce_bits(8).unwrap(), counting());
    }

    #[test]
    fn padding_centres_every_channel_of_every_image() {
        let set = Dataset::new((1..=8).collect(), [2, 1, 2], 256, "x").unwrap().pad_to_multiple(4).unwrap();
        assert_eq!(set.shape(), [2, 4, 4]);
        for (plane, values) in set.images().chunks(16).zip([[1, 2], [3, 4], [5, 6], [7, 8]]) {
            let mut expected = [0; 16];
            expected[5..7].copy_from_slice(&values); // row 1 (3 rows to add: 1 above), column 1
            assert_eq!(plane, expected);
        }
        assert_eq!(counting().pad_to_multiple(1).unwrap(), counting());
        assert!(counting().pad_to_multiple(0).is_err());
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(Dataset::new(vec![], [1, 1, 1], 256, "x").is_err());
        assert!(Dataset::new(vec![1; 5], [1, 2, 2], 256, "x").is_err());
        assert!(Dataset::new(vec![1; 4], [usize::MAX, 2, 2], 256, "x").is_err());
        assert!(Dataset::new(vec![1; 4], [1, 2, 2], 257, "x").is_err());
        let error = Dataset::new(vec![0, 1, 17, 3], [1, 2, 2], 17, "x").unwrap_err().to_string();
        assert!(error.contains("17 at index 2"), "{error}");
        assert!(counting().with_labels(vec![0], vec!["a".into()]).is_err());
        assert!(counting().with_labels(vec![0, 0, 0, 1], vec!["a".into()]).is_err());
    }
}
