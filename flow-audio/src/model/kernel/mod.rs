//! The network of one flow as a kernel: forward, backward, and row by row.
//!
//! It is one kernel for both models: WaveFlow's network has `h - 1` rows and kernels of 3×3, WaveGlow's one row and kernels of
//! 1×3. Numbers lie channels-last: a row of `W` columns is a matrix `(W, C)`. Before each dilated convolution rows are padded
//! with zeros by its reach, so that the input of a tap is a view of the padded row that begins some columns later, and the
//! three taps of a kernel row are one product over three such views: nothing is gathered. A tile is some columns of one row;
//! it goes through convolution, gate and both 1×1 products while it is in the cache. Tiles change no bit of the forward
//! pass, and sums of weight gradients are cut by rows, which shapes alone decide.

mod backward;
mod decode;
mod forward;

pub(super) use backward::{Gradients, backward};
pub(super) use decode::{History, decode};
use flow_core::kernels::{Panels, Real, transpose};
pub(super) use forward::{Activations, forward};

/// Columns of a tile at most: a multiple of the rows of a register tile whose activations fit the second-level cache.
const TILE: usize = 96;

/// The one row of a bias table for each position of a tile.
const FIRST: [u8; TILE] = [0; TILE];

/// The sizes of one flow's network.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// `W`, columns.
    pub width: usize,
    /// Rows of a sample's input; the network sees the first of them, as many as it gives parameters for.
    pub input_rows: usize,
    /// Numbers at each place of the input.
    pub inputs: usize,
    /// Parameters of each place.
    pub outputs: usize,
    /// `C`.
    pub channels: usize,
    /// Numbers at each place of the context.
    pub context: usize,
    /// Rows of a sample's context.
    pub context_rows: usize,
    /// Rows of the kernels, 1 to 3: the last is at the row itself.
    pub kernel_rows: usize,
    /// Rows and columns between the taps, for every layer.
    pub dilations: Vec<[usize; 2]>,
    /// Whether the taps are this column and earlier ones, or centred.
    pub causal: bool,
    /// The row of the context that goes with each row of parameters.
    pub order: Vec<usize>,
}

impl Shape {
    /// Rows that the network sees, and rows that have parameters.
    pub fn rows(&self) -> usize {
        self.order.len()
    }

    /// Numbers of a sample's input.
    pub fn input_len(&self) -> usize {
        self.input_rows * self.width * self.inputs
    }

    /// Numbers of a sample's context.
    pub fn context_len(&self) -> usize {
        self.context_rows * self.width * self.context
    }

    /// Numbers of a sample's parameters.
    pub fn params(&self) -> usize {
        self.rows() * self.width * self.outputs
    }

    /// Zeros before a row of layer `l`, in columns; there are `2 d` in all.
    fn left(&self, l: usize) -> usize {
        let d = self.dilations[l][1];
        if self.causal { 2 * d } else { d }
    }

    /// Columns of a padded row of layer `l`.
    fn pitch(&self, l: usize) -> usize {
        self.width + 2 * self.dilations[l][1]
    }

    fn tile(&self) -> usize {
        self.width.div_ceil(4).next_multiple_of(6).min(TILE)
    }

    /// The context rows of row `r` of the network.
    fn context_row<'a, T>(&self, context: &'a [T], r: usize) -> &'a [T] {
        let len = self.width * self.context;
        &context[self.order[r] * len..][..len]
    }

    /// The row that kernel row `u` of layer `l` sees from row `r`, if there is one.
    fn tap_row(&self, l: usize, u: usize, r: usize) -> Option<usize> {
        r.checked_sub((self.kernel_rows - 1 - u) * self.dilations[l][0])
    }

    /// Lengths of a layer's weights in the packed vector: taps `(kernel rows, 3, C, 2C)`, condition `(context, 2C)`, bias
    /// `(2C,)`, residual `(C, C)` and its bias `(C,)` but for the last layer, and `(C, outputs)` to the parameters.
    fn layer_lengths(&self, l: usize) -> [usize; 6] {
        let (c, residual) = (self.channels, usize::from(l + 1 < self.dilations.len()));
        let taps = self.kernel_rows * 6 * c * c;
        [taps, self.context * 2 * c, 2 * c, residual * c * c, residual * c, self.outputs * c]
    }

    /// Lengths of everything in the packed vector: the front's weight `(inputs, C)` and bias, the layers', and the head's
    /// bias.
    pub fn lengths(&self) -> Vec<usize> {
        let layers = (0..self.dilations.len()).flat_map(|l| self.layer_lengths(l));
        [self.inputs * self.channels, self.channels].into_iter().chain(layers).chain([self.outputs]).collect()
    }

    /// The parts of a packed vector.
    fn split<'a, T>(&self, packed: &'a [T]) -> (Front<'a, T>, Vec<[&'a [T]; 6]>) {
        let mut rest = packed;
        let mut take = |len: usize| {
            let (head, tail) = rest.split_at(len);
            rest = tail;
            head
        };
        let front = [take(self.inputs * self.channels), take(self.channels)];
        let layers = (0..self.dilations.len()).map(|l| self.layer_lengths(l).map(&mut take)).collect();
        (Front { weight: front[0], bias: front[1], head_bias: take(self.outputs) }, layers)
    }
}

/// What belongs to no layer.
struct Front<'a, T> {
    weight: &'a [T],
    bias: &'a [T],
    head_bias: &'a [T],
}

/// Weights packed for the forward pass.
pub(super) struct Weights<T> {
    front: [Vec<T>; 2],
    layers: Vec<Layer<T>>,
    head_bias: Vec<T>,
}

/// Those of one layer.
struct Layer<T> {
    /// For each kernel row the three taps over columns one below the other, `(3 C, 2C)`.
    taps: Vec<Panels<T>>,
    condition: Panels<T>,
    bias: Vec<T>,
    residual: Option<(Panels<T>, Vec<T>)>,
    head: Panels<T>,
}

/// Weights packed for the backward pass.
pub(super) struct Transposed<T>(Vec<LayerBack<T>>);

/// Those of one layer.
struct LayerBack<T> {
    /// For each kernel row, `(3·2C, C)`.
    taps: Vec<Panels<T>>,
    condition: Panels<T>,
    residual: Option<Panels<T>>,
    head: Panels<T>,
}

/// Row-major numbers in panels.
fn panels<T: Real>(rows: &[T], n: usize) -> Panels<T> {
    let mut panels = Panels::zeros(rows.len() / n, n);
    panels.pack(rows);
    panels
}

impl<T: Real> Weights<T> {
    pub fn new(s: &Shape, packed: &[T]) -> Self {
        let (front, layers) = s.split(packed);
        let c = s.channels;
        let layer = |[taps, condition, bias, residual, residual_bias, head]: [&[T]; 6]| Layer {
            taps: taps.chunks_exact(6 * c * c).map(|row| panels(row, 2 * c)).collect(),
            condition: panels(condition, 2 * c),
            bias: bias.to_vec(),
            residual: (!residual.is_empty()).then(|| (panels(residual, c), residual_bias.to_vec())),
            head: panels(head, s.outputs),
        };
        Weights {
            front: [front.weight.to_vec(), front.bias.to_vec()],
            layers: layers.into_iter().map(layer).collect(),
            head_bias: front.head_bias.to_vec(),
        }
    }
}

impl<T: Real> Transposed<T> {
    pub fn new(s: &Shape, packed: &[T]) -> Self {
        let c = s.channels;
        let turned = |row: &[T]| {
            panels(&row.chunks_exact(2 * c * c).flat_map(|tap| transpose(tap, 2 * c)).collect::<Vec<_>>(), c)
        };
        let layer = |[taps, condition, _, residual, _, head]: [&[T]; 6]| LayerBack {
            taps: taps.chunks_exact(6 * c * c).map(turned).collect(),
            condition: panels(&transpose(condition, 2 * c), s.context),
            residual: (!residual.is_empty()).then(|| panels(&transpose(residual, c), c)),
            head: panels(&transpose(head, s.outputs), c),
        };
        Transposed(s.split(packed).1.into_iter().map(layer).collect())
    }
}
