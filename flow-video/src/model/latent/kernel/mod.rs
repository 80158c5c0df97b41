//! One residual block as a kernel: forward and backward on strips of pixels that stay in the cache.
//!
//! Numbers lie channels-last, `(B, T, H, W, C)`. A strip's rows are ordered by time step, then by pixel, so that all steps
//! go through one product: per row the first convolution is a product of its gathered neighbourhood, the two convolutions
//! without extent are one product, and the last convolution is a product whose rows are scattered.
//!
//! Gains follow the products, which leaves the weights as they are stored: nothing is prepared in a call that grows with
//! the weights. The flag channel sees only padding; it is a bias that depends on the sides of the image that a pixel
//! touches ([`tables`]).

mod backward;
mod forward;
mod passes;
mod patches;
mod strips;
mod tables;

use std::sync::{Mutex, PoisonError};

pub(super) use backward::backward;
use flow_core::kernels::Real;
pub(super) use forward::forward;

/// Taps of a kernel in space.
const TAPS: usize = 9;

/// The factor of a log-scale, the Glow authors' `logscale_factor`.
pub(super) const LOG_SCALE_FACTOR: f64 = 3.0;

/// The sizes of one residual block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// Channels of input and output.
    pub channels: usize,
    /// Channels in between.
    pub hidden: usize,
    /// Whether the hidden layer is a product of two.
    pub gated: bool,
    /// Time steps that activation normalization knows.
    pub steps: usize,
    /// Last time steps of the output that are wanted.
    pub outputs: usize,
    /// Rows of a frame.
    pub height: usize,
    /// Columns of a frame.
    pub width: usize,
    /// One branch for each.
    pub dilations: Vec<usize>,
}

impl Shape {
    /// Time steps that a kernel sees.
    pub fn kernel_steps(&self) -> usize {
        self.steps.min(2)
    }

    /// Hidden time steps that the outputs depend on: the last ones.
    pub fn hidden_steps(&self) -> usize {
        self.steps.min(self.outputs + 1)
    }

    /// Input time steps that the outputs depend on: the last ones.
    pub fn input_steps(&self) -> usize {
        self.steps.min(self.outputs + 2)
    }

    /// Channels that the second product has: two halves where gated.
    pub fn wide(&self) -> usize {
        if self.gated { 2 * self.hidden } else { self.hidden }
    }

    /// Pixels of a frame.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Numbers of a gathered neighbourhood.
    fn patch(&self) -> usize {
        TAPS * self.channels
    }

    /// Numbers of a frame.
    pub fn frame(&self) -> usize {
        self.pixels() * self.channels
    }

    /// Lengths of a branch's parameters, in the order of [`Weights`].
    pub fn lengths(&self) -> [usize; 11] {
        let (k, n, c, h, g) = (self.kernel_steps(), self.steps, self.channels, self.hidden, self.wide());
        [k * TAPS * c * h, k * TAPS * h, n * h, n * h, h * g, n * g, n * g, k * h * TAPS * c, k * TAPS * c, c, c]
    }
}

/// The parameters of one branch; `K` is 2, or 1 where there is one time step, and its index 0 is the earlier step.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a, T> {
    /// `(K, 9, C, H)`.
    first: &'a [T],
    /// `(K, 9, H)`.
    first_flag: &'a [T],
    /// `(N, H)`.
    first_bias: &'a [T],
    /// `(N, H)`.
    first_log_scale: &'a [T],
    /// `(H, G)`.
    second: &'a [T],
    /// `(N, G)`.
    second_bias: &'a [T],
    /// `(N, G)`.
    second_log_scale: &'a [T],
    /// `(K, H, 9, C)`.
    last: &'a [T],
    /// `(K, 9, C)`.
    last_flag: &'a [T],
    /// `(C,)`.
    last_bias: &'a [T],
    /// `(C,)`.
    last_log_scale: &'a [T],
}

impl<'a, T> From<[&'a [T]; 11]> for Weights<'a, T> {
    fn from(parts: [&'a [T]; 11]) -> Self {
        let [first, first_flag, first_bias, first_log_scale, second, second_bias, second_log_scale, ..] = parts;
        let [.., last, last_flag, last_bias, last_log_scale] = parts;
        Weights {
            first,
            first_flag,
            first_bias,
            first_log_scale,
            second,
            second_bias,
            second_log_scale,
            last,
            last_flag,
            last_bias,
            last_log_scale,
        }
    }
}

impl<'a, T> Weights<'a, T> {
    /// Views of the branches' parameters, all one after the other.
    pub fn split(shape: &Shape, mut packed: &'a [T]) -> Vec<Self> {
        let branch = |_: &usize| {
            Self::from(shape.lengths().map(|len| {
                let (head, tail) = packed.split_at(len);
                packed = tail;
                head
            }))
        };
        shape.dilations.iter().map(branch).collect()
    }
}

/// The halves of a kernel: what it makes of the step itself, and of the step before where it sees that.
fn halves<'a, T>(shape: &Shape, kernel: &'a [T]) -> (&'a [T], Option<&'a [T]>) {
    if shape.kernel_steps() == 1 {
        return (kernel, None);
    }
    let (before, now) = kernel.split_at(kernel.len() / 2);
    (now, Some(before))
}

/// The same for a gradient.
fn halves_mut<'a, T>(shape: &Shape, kernel: &'a mut [T]) -> (&'a mut [T], Option<&'a mut [T]>) {
    if shape.kernel_steps() == 1 {
        return (kernel, None);
    }
    let (before, now) = kernel.split_at_mut(kernel.len() / 2);
    (now, Some(before))
}

/// Buffers of one strip, whatever they held before; lent to one strip after the other.
struct Workspace<T> {
    patches: Vec<T>,
    first: Vec<T>,
    wide: Vec<T>,
    second: Vec<T>,
    rows: Vec<T>,
    gradient: Vec<T>,
    classes: Vec<u8>,
}

impl<T> Workspace<T> {
    fn new() -> Self {
        Workspace {
            patches: Vec::new(),
            first: Vec::new(),
            wide: Vec::new(),
            second: Vec::new(),
            rows: Vec::new(),
            gradient: Vec::new(),
            classes: Vec::new(),
        }
    }
}

/// A buffer's first `len` numbers, which are arbitrary.
fn room<T: Real>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::ZERO);
    }
    &mut buffer[..len]
}

/// Workspaces that are free: as many as strips were ever worked on at once.
pub(super) struct Pool<T>(Mutex<Vec<Workspace<T>>>);

impl<T: Real> Pool<T> {
    /// None yet.
    pub fn new() -> Self {
        Pool(Mutex::new(Vec::new()))
    }

    /// What `f` makes with a free workspace.
    fn lend<R>(&self, f: impl FnOnce(&mut Workspace<T>) -> R) -> R {
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = free().pop();
        let mut work = taken.unwrap_or_else(Workspace::new);
        let result = f(&mut work);
        free().push(work);
        result
    }
}
