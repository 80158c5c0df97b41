//! The forward pass.

use rayon::prelude::*;

use super::super::gemm::{Start, View};
use super::super::patches::{border_classes, crop, scatter_add};
use super::super::{Real, vectorized};
use super::{Folded, Shape, gate, gather_rows, pad_all};

/// Rows whose last product is kept until it is scattered.
const GROUP: usize = 4096;

/// The hidden activations of a batch, a row for every pixel.
pub(crate) struct Hidden<T> {
    /// The first layer, rectified: `(rows, H)`.
    pub(super) first: Vec<T>,
    /// The second one, rectified: `(rows, H)`; gated: `(rows, 2·H)`, the hyperbolic tangent beside the sigmoid.
    pub(super) second: Vec<T>,
}

/// Where the activations of a strip are kept.
type Slot<'a, T> = Option<(&'a mut [T], &'a mut [T])>;

/// The network's output `(B, O, H, W)`; with `keep` also what the backward pass needs.
pub(crate) fn forward<T: Real>(s: &Shape, f: &Folded<T>, x: &[T], keep: bool) -> (Vec<T>, Option<Hidden<T>>) {
    let (pixels, classes) = (s.pixels(), border_classes(s.input()));
    let (in_len, out_len, [_, width]) = (s.inputs * pixels, s.outputs * pixels, s.patches());
    let batch = x.len() / in_len;
    let zeros = |n| vec![T::ZERO; n];
    let mut hidden =
        keep.then(|| Hidden { first: zeros(batch * pixels * s.hidden), second: zeros(batch * pixels * s.middle()) });
    let mut out = zeros(batch * out_len);
    let group = (GROUP / pixels).clamp(1, batch.max(1));
    let (mut padded, mut patches) = (zeros(group * s.input().padded()), zeros(group * pixels * width));
    let strip = s.strip(group * pixels);
    let mut slots: Vec<Slot<'_, T>> = Vec::new();
    let mut strips = match &mut hidden {
        Some(Hidden { first, second }) => {
            let of_group =
                first.chunks_mut(group * pixels * s.hidden).zip(second.chunks_mut(group * pixels * s.middle()));
            Some(of_group)
        }
        None => None,
    };
    for (x, out) in x.chunks(group * in_len).zip(out.chunks_mut(group * out_len)) {
        let rows = x.len() / in_len * pixels;
        slots.clear();
        match strips.as_mut().and_then(Iterator::next) {
            Some((first, second)) => {
                let kept = first.chunks_mut(strip * s.hidden).zip(second.chunks_mut(strip * s.middle()));
                slots.extend(kept.map(Some));
            }
            None => slots.resize_with(rows.div_ceil(strip), || None),
        }
        vectorized(|| pad_all(s.input(), x, &mut padded));
        let patches = &mut patches[..rows * width];
        let work = patches.par_chunks_mut(strip * width).zip(slots.par_iter_mut()).enumerate();
        work.for_each_init(
            || Workspace::new(s, strip, keep),
            |work, (i, (patches, slot))| work.strip(s, f, &classes, &padded, i * strip, patches, slot),
        );
        out.par_chunks_mut(out_len).zip(patches.par_chunks(pixels * width)).for_each_init(
            || zeros(s.output().padded()),
            |padded, (out, patches)| vectorized(|| scatter(s, f, &classes, patches, padded, out)),
        );
    }
    (out, hidden)
}

/// Buffers of one thread.
struct Workspace<T> {
    patches: Vec<T>,
    first: Vec<T>,
    second: Vec<T>,
    gated: Vec<T>,
    classes: Vec<u8>,
}

impl<T: Real> Workspace<T> {
    fn new(s: &Shape, rows: usize, keep: bool) -> Self {
        let zeros = |n| vec![T::ZERO; n];
        let own = if keep { 0 } else { rows };
        Workspace {
            patches: zeros(rows * s.patches()[0]),
            first: zeros(own * s.hidden),
            second: zeros(own * s.middle()),
            gated: zeros(if s.gated { rows * s.hidden } else { 0 }),
            classes: vec![0; rows],
        }
    }

    /// The patches of the output at the rows from `from` on.
    #[allow(clippy::too_many_arguments, reason = "the inner part of one function")]
    fn strip(
        &mut self,
        s: &Shape,
        f: &Folded<T>,
        classes: &[u8],
        padded: &[T],
        from: usize,
        patches: &mut [T],
        kept: &mut Slot<'_, T>,
    ) {
        let [input, output] = s.patches();
        let m = patches.len() / output;
        let (first, second) = match kept {
            Some((first, second)) => (&mut **first, &mut **second),
            None => (&mut self.first[..m * s.hidden], &mut self.second[..m * s.middle()]),
        };
        let rows = &mut self.patches[..m * input];
        vectorized(|| gather_rows(s.input(), padded, from, rows));
        let of_row = (from..).zip(&mut self.classes[..m]);
        of_row.for_each(|(row, slot)| *slot = classes[row % classes.len()]);
        let bias = Start::Table { table: &f.first_bias, class: &self.classes };
        f.first.product(m, View::rows(rows, input), first, bias, true);
        self.classes[..m].fill(0);
        let bias = Start::Table { table: &f.second_bias, class: &self.classes };
        f.second.product(m, View::rows(first, s.hidden), second, bias, !s.gated);
        let top = if s.gated {
            let gated = &mut self.gated[..m * s.hidden];
            gate::gate(s.hidden, second, gated);
            &*gated
        } else {
            &*second
        };
        f.third.product(m, View::rows(top, s.hidden), patches, Start::Zero, false);
    }
}

/// The output of one sample from the patches of all its pixels.
#[inline(always)]
fn scatter<T: Real>(s: &Shape, f: &Folded<T>, classes: &[u8], patches: &[T], padded: &mut [T], out: &mut [T]) {
    padded.fill(T::ZERO);
    scatter_add(s.output(), patches, padded);
    crop(s.output(), padded, out);
    for (o, plane) in out.chunks_exact_mut(s.pixels()).enumerate() {
        for (slot, &class) in plane.iter_mut().zip(classes) {
            *slot += f.third_bias[usize::from(class) * s.outputs + o];
        }
    }
}
