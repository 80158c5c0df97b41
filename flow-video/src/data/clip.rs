//! One clip: frames as bytes.

use crate::{Error, Result};

/// Channels, height and width of one frame.
pub type FrameShape = [usize; 3];

/// `T` frames of one shape.
///
/// # Shapes
/// - values `[T, C, H, W]`, one channel (grey) or three (red, green, blue).
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    name: String,
    values: Vec<u8>,
    shape: FrameShape,
    fps: Option<f64>,
    /// `[T, A]`, empty where nothing is told beside the frames.
    actions: Vec<f32>,
}

impl Clip {
    /// A clip of this name from the bytes `[T, C, H, W]` and, where it is known, its frames a second.
    ///
    /// # Errors
    /// No frame, a number of channels other than one or three, or a length that is no multiple of `C · H · W`.
    pub fn new(name: impl Into<String>, values: Vec<u8>, shape: FrameShape, fps: Option<f64>) -> Result<Self> {
        let name = name.into();
        let size = shape.iter().try_fold(1usize, |product, &d| product.checked_mul(d)).unwrap_or(0);
        if !matches!(shape[0], 1 | 3) {
            return Err(Error::config(name, format!("frames have 1 or 3 channels, got {}", shape[0])));
        }
        if size == 0 || values.is_empty() || !values.len().is_multiple_of(size) {
            let reason = format!("{} values are no whole number of frames of shape {shape:?}", values.len());
            return Err(Error::config(name, reason));
        }
        Ok(Clip { name, values, shape, fps, actions: Vec::new() })
    }

    /// The same clip with what is told beside its frames, `[T, A]`: what was done before each of them, or what the clip is,
    /// the same for all. A frame with NaN is told nothing.
    ///
    /// # Errors
    /// Numbers that are not as many for every frame, or infinite.
    pub fn with_actions(mut self, actions: Vec<f32>) -> Result<Self> {
        if actions.is_empty() || !actions.len().is_multiple_of(self.frames()) {
            let reason =
                format!("{} numbers beside {} frames: as many are needed for each", actions.len(), self.frames());
            return Err(Error::config(self.name, reason));
        }
        if let Some(place) = actions.iter().position(|v| v.is_infinite()) {
            let frame = place / (actions.len() / self.frames());
            return Err(Error::config(self.name, format!("the action of frame {frame} is infinite")));
        }
        self.actions = actions;
        Ok(self)
    }

    /// `A`, how many numbers are told beside a frame; zero if none are.
    pub fn action_size(&self) -> usize {
        self.actions.len() / self.frames()
    }

    /// What is told beside the frames, `[T, A]`.
    pub fn actions(&self) -> &[f32] {
        &self.actions
    }

    /// Where it was read from, relative to what was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of frames `T`, at least one.
    pub fn frames(&self) -> usize {
        self.values.len() / self.frame_size()
    }

    /// `(C, H, W)` of every frame.
    pub fn shape(&self) -> FrameShape {
        self.shape
    }

    /// `C · H · W`, the number of dimensions that bits per dimension divides by.
    pub fn frame_size(&self) -> usize {
        self.shape.iter().product()
    }

    /// Frames a second, where the source says it.
    pub fn fps(&self) -> Option<f64> {
        self.fps
    }

    /// All values, `[T, C, H, W]`.
    pub fn values(&self) -> &[u8] {
        &self.values
    }

    /// The values `[C, H, W]` of one frame, if there are so many.
    pub fn frame(&self, index: usize) -> Option<&[u8]> {
        self.range(index, 1)
    }

    /// The values of `frames` frames from `from` on, `[frames, C, H, W]`; `None` beyond the end.
    pub fn range(&self, from: usize, frames: usize) -> Option<&[u8]> {
        let start = from.checked_mul(self.frame_size())?;
        self.values.get(start..start.checked_add(frames.checked_mul(self.frame_size())?)?)
    }

    /// The same frames under another name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Three equal channels of one.
    pub(super) fn into_colour(self) -> Self {
        let [channels, height, width] = self.shape;
        if channels == 3 {
            return self;
        }
        let values = self.values.chunks_exact(height * width).flat_map(|plane| [plane; 3].concat()).collect();
        Clip { values, shape: [3, height, width], ..self }
    }

    /// Consecutive clips of `frames` frames, named by their first frame; the last one may be shorter.
    pub(super) fn cut(self, frames: usize) -> Vec<Self> {
        if frames == 0 || self.frames() <= frames {
            return vec![self];
        }
        let told = frames * self.action_size();
        let piece = |(index, values): (usize, &[u8])| Clip {
            name: format!("{}#{}", self.name, index * frames),
            values: values.to_vec(),
            actions: self.actions.chunks(told.max(1)).nth(index).unwrap_or_default().to_vec(),
            shape: self.shape,
            fps: self.fps,
        };
        self.values.chunks(frames * self.frame_size()).enumerate().map(piece).collect()
    }

    /// Only the highest bits of every value.
    pub(super) fn shifted(mut self, by: u32) -> Self {
        self.values.iter_mut().for_each(|v| *v >>= by);
        self
    }
}
