//! The networks of the decisions: from embeddings to the parameters of the flow of each decision.
//!
//! A bond decision conditions on `[h_j; h_i; g]`, earlier atom, new atom, graph. Its first layer is a sum of
//! three products, of which the last two are the same for all candidates of a [`BondContext`], so they are
//! computed once for each context.

use flow_core::kernels::{Real, Size, Start, View, gemm, vectorized};

use super::config::Head;
use super::graph_net::Embedded;
use super::matrix::{Matrix, add, add_outer, gather, product, scatter_add};
use super::pack::{BondContext, Pack};
use super::params::{HeadNet, Net};

/// The activations of one head for a list of decisions.
#[derive(Debug)]
pub(crate) struct Pass<T> {
    /// Activated hidden layers, `(D, H)` each.
    hidden: Vec<Vec<T>>,
    /// Categorical: logits, `(D, K)`. Gaussian: shifts and raw scales, `(L, D, 2·K)`.
    pub output: Vec<T>,
}

/// Weights laid out for the backward pass.
pub(crate) fn transposed<T: Real>(head: &Head, net: &Net<Matrix<T>>) -> Net<Matrix<T>> {
    let mut out = net.clone();
    out.gnn.iter_mut().for_each(|w| *w = w.transposed());
    for (net, parts) in [(&mut out.atom, 1), (&mut out.bond, 3)] {
        net.input = transposed_blocks(&net.input, parts);
        net.hidden.iter_mut().for_each(|(w, _)| *w = w.transposed());
        net.output = transposed_blocks(&net.output, blocks(head));
    }
    out
}

/// Independent output blocks: one per affine map.
fn blocks(head: &Head) -> usize {
    match head {
        Head::Gaussian { layers, .. } => *layers,
        Head::Categorical { .. } => 1,
    }
}

/// Blocks of rows, each transposed, one below the other.
fn transposed_blocks<T: Real>(w: &Matrix<T>, blocks: usize) -> Matrix<T> {
    let rows = w.rows / blocks;
    let mut data = Vec::with_capacity(w.data.len());
    for b in 0..blocks {
        data.extend(
            Matrix { rows, columns: w.columns, data: w.block(b * rows, (b + 1) * rows).to_vec() }.transposed().data,
        );
    }
    Matrix { rows: blocks * w.columns, columns: rows, data }
}

/// Copies `row` to every one of `count` rows.
fn repeated<T: Real>(row: &[T], count: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(row.len() * count);
    (0..count).for_each(|_| out.extend_from_slice(row));
    out
}

/// `1 − 2/(e^{2x} + 1)`: vectorises, exact at both ends.
#[inline(always)]
pub(crate) fn tanh<T: Real>(x: T) -> T {
    let (one, two) = (T::from_f64(1.0), T::from_f64(2.0));
    one - two / ((x + x).exp_bounded() + one)
}

fn activate<T: Real>(head: &Head, x: &mut [T]) {
    match head {
        Head::Gaussian { .. } => vectorized(|| x.iter_mut().for_each(|x| *x = tanh(*x))),
        Head::Categorical { .. } => {
            vectorized(|| x.iter_mut().for_each(|x| *x = if *x < T::ZERO { T::ZERO } else { *x }))
        }
    }
}

/// Multiplies `d` by the slope of the activation at activated values `y`.
fn activate_backward<T: Real>(head: &Head, y: &[T], d: &mut [T]) {
    let one = T::from_f64(1.0);
    match head {
        Head::Gaussian { .. } => vectorized(|| d.iter_mut().zip(y).for_each(|(d, &y)| *d *= one - y * y)),
        Head::Categorical { .. } => vectorized(|| {
            d.iter_mut().zip(y).for_each(|(d, &y)| *d = if y > T::ZERO { *d } else { T::ZERO });
        }),
    }
}

/// The layers after the first, from the first layer before its activation.
pub(crate) fn forward<T: Real>(head: &Head, net: &HeadNet<Matrix<T>>, mut first: Vec<T>) -> Pass<T> {
    activate(head, &mut first);
    let mut hidden = vec![first];
    for (weight, bias) in &net.hidden {
        let below = hidden.last().map(Vec::as_slice).unwrap_or_default();
        let rows = below.len() / weight.rows.max(1);
        let mut out = repeated(&bias.data, rows);
        product(below, weight.rows, &weight.data, weight.columns, &mut out, Start::Old);
        activate(head, &mut out);
        hidden.push(out);
    }
    let last = hidden.last().map(Vec::as_slice).unwrap_or_default();
    let (blocks, wide) = (blocks(head), net.output.rows);
    let (rows, depth, n) = (last.len() / wide.max(1), wide / blocks, net.output.columns);
    let mut output = Vec::with_capacity(blocks * rows * n);
    for b in 0..blocks {
        let mut out = repeated(net.output_bias.block(b, b + 1), rows);
        if rows > 0 {
            let a = View { data: &last[b * depth..], row: wide, col: 1 };
            gemm(
                Size { m: rows, k: depth, n },
                a,
                net.output.block(b * depth, (b + 1) * depth),
                &mut out,
                Start::Old,
                false,
            );
        }
        output.append(&mut out);
    }
    Pass { hidden, output }
}

/// Sends a gradient of the output back to the first layer before its activation.
pub(crate) fn backward<T: Real>(
    head: &Head,
    (net, transposed): (&HeadNet<Matrix<T>>, &HeadNet<Matrix<T>>),
    pass: &Pass<T>,
    d_output: &[T],
    grads: &mut HeadNet<Matrix<T>>,
) -> Vec<T> {
    let last = pass.hidden.last().map(Vec::as_slice).unwrap_or_default();
    let mut d = output_backward(head, (net, transposed), last, d_output, grads);
    for (i, (weight, _)) in transposed.hidden.iter().enumerate().rev() {
        activate_backward(head, &pass.hidden[i + 1], &mut d);
        let (d_weight, d_bias) = &mut grads.hidden[i];
        d_weight.add_outer(&pass.hidden[i], &d);
        d_bias.add_row_sum(&d);
        d = weight.apply(&d);
    }
    activate_backward(head, &pass.hidden[0], &mut d);
    d
}

fn output_backward<T: Real>(
    head: &Head,
    (net, transposed): (&HeadNet<Matrix<T>>, &HeadNet<Matrix<T>>),
    last: &[T],
    d_output: &[T],
    grads: &mut HeadNet<Matrix<T>>,
) -> Vec<T> {
    let (blocks, wide, n) = (blocks(head), net.output.rows, net.output.columns);
    let (rows, depth) = (last.len() / wide.max(1), wide / blocks);
    let mut d_last = vec![T::ZERO; last.len()];
    if rows == 0 {
        return d_last;
    }
    for (b, d_out) in d_output.chunks_exact(rows * n).enumerate() {
        let span = b * depth * n..(b + 1) * depth * n;
        let x = View { data: &last[b * depth..], row: 1, col: wide };
        gemm(Size { m: depth, k: rows, n }, x, d_out, &mut grads.output.data[span], Start::Old, false);
        let d_bias = &mut grads.output_bias.data[b * n..(b + 1) * n];
        d_out.chunks_exact(n).for_each(|row| add(d_bias, row));
        let mut block = vec![T::ZERO; rows * depth];
        product(d_out, n, transposed.output.block(b * n, (b + 1) * n), depth, &mut block, Start::Zero);
        for (to, from) in d_last.chunks_exact_mut(wide).zip(block.chunks_exact(depth)) {
            to[b * depth..(b + 1) * depth].copy_from_slice(from);
        }
    }
    d_last
}

/// The first layer of the atom decisions that look at the given rows of [`Embedded::states`].
pub(crate) fn atom_input<T: Real>(net: &HeadNet<Matrix<T>>, graphs: &[T]) -> Vec<T> {
    let mut first = repeated(&net.input_bias.data, graphs.len() / net.input.rows.max(1));
    product(graphs, net.input.rows, &net.input.data, net.input.columns, &mut first, Start::Old);
    first
}

/// Evaluates the atom decisions of a pack.
pub(crate) fn atoms<T: Real>(head: &Head, net: &HeadNet<Matrix<T>>, pack: &Pack, embedded: &Embedded<T>) -> Pass<T> {
    let graphs = gather(&embedded.states, net.input.rows, pack.atoms.iter().map(|a| a.state));
    forward(head, net, atom_input(net, &graphs))
}

/// The adjoint of [`atoms`]: adds to the gradient of the states.
pub(crate) fn atoms_backward<T: Real>(
    head: &Head,
    nets: (&HeadNet<Matrix<T>>, &HeadNet<Matrix<T>>),
    (pack, embedded): (&Pack, &Embedded<T>),
    (pass, d_output): (&Pass<T>, &[T]),
    d_states: &mut [T],
    grads: &mut HeadNet<Matrix<T>>,
) {
    let width = nets.0.input.rows;
    let d = backward(head, nets, pass, d_output, grads);
    let graphs = gather(&embedded.states, width, pack.atoms.iter().map(|a| a.state));
    grads.input.add_outer(&graphs, &d);
    grads.input_bias.add_row_sum(&d);
    let d_graphs = nets.1.input.apply(&d);
    scatter_add(d_states, width, pack.atoms.iter().map(|a| a.state), &d_graphs);
}

/// Graph embeddings of bond contexts: that of the state, and the new atom's while it is not part of it.
fn context_graphs<T: Real>(contexts: &[BondContext], embedded: &Embedded<T>, width: usize) -> Vec<T> {
    let mut graphs = gather(&embedded.states, width, contexts.iter().map(|c| c.state + 1));
    for (graph, context) in graphs.chunks_exact_mut(width).zip(contexts) {
        if context.isolated {
            add(graph, &embedded.rows[context.row as usize * width..][..width]);
        }
    }
    graphs
}

/// The part of the first layer that candidates share, from embeddings of the new atoms and of the graphs.
pub(crate) fn context_input<T: Real>(net: &HeadNet<Matrix<T>>, atoms: &[T], graphs: &[T]) -> Vec<T> {
    let (width, h) = (net.input.rows / 3, net.input.columns);
    let mut out = repeated(&net.input_bias.data, atoms.len() / width.max(1));
    product(atoms, width, net.input.block(width, 2 * width), h, &mut out, Start::Old);
    product(graphs, width, net.input.block(2 * width, 3 * width), h, &mut out, Start::Old);
    out
}

/// The first layer of bond decisions: candidates' embeddings, and per decision context, distance and offset.
pub(crate) fn bond_input<T: Real>(
    net: &HeadNet<Matrix<T>>,
    candidates: &[T],
    contexts: &[T],
    decisions: impl Iterator<Item = (u32, u8, u8)>,
) -> Vec<T> {
    let (width, h) = (net.input.rows / 3, net.input.columns);
    let mut first = vec![T::ZERO; candidates.len() / width.max(1) * h];
    product(candidates, width, net.input.block(0, width), h, &mut first, Start::Zero);
    vectorized(|| {
        for (row, (context, distance, offset)) in first.chunks_exact_mut(h).zip(decisions) {
            add(row, &contexts[context as usize * h..][..h]);
            if let Some((distances, offsets)) = &net.geometry {
                add(row, &distances.data[usize::from(distance) * h..][..h]);
                add(row, &offsets.data[usize::from(offset) * h..][..h]);
            }
        }
    });
    first
}

/// Evaluates the bond decisions of a pack.
pub(crate) fn bonds<T: Real>(head: &Head, net: &HeadNet<Matrix<T>>, pack: &Pack, embedded: &Embedded<T>) -> Pass<T> {
    let width = net.input.rows / 3;
    let new_atoms = gather(&embedded.rows, width, pack.contexts.iter().map(|c| c.row));
    let contexts = context_input(net, &new_atoms, &context_graphs(&pack.contexts, embedded, width));
    let candidates = gather(&embedded.rows, width, pack.bonds.iter().map(|b| b.row));
    let decisions = pack.bonds.iter().map(|b| (b.context, b.distance, b.offset));
    forward(head, net, bond_input(net, &candidates, &contexts, decisions))
}

/// The adjoint of [`bonds`]: adds to the gradients of the rows and of the states.
pub(crate) fn bonds_backward<T: Real>(
    head: &Head,
    nets: (&HeadNet<Matrix<T>>, &HeadNet<Matrix<T>>),
    (pack, embedded): (&Pack, &Embedded<T>),
    (pass, d_output): (&Pass<T>, &[T]),
    (d_rows, d_states): (&mut [T], &mut [T]),
    grads: &mut HeadNet<Matrix<T>>,
) {
    let (net, transposed) = nets;
    let (width, h) = (net.input.rows / 3, net.input.columns);
    let d = backward(head, nets, pass, d_output, grads);
    if let Some((distances, offsets)) = &mut grads.geometry {
        scatter_add(&mut distances.data, h, pack.bonds.iter().map(|b| u32::from(b.distance)), &d);
        scatter_add(&mut offsets.data, h, pack.bonds.iter().map(|b| u32::from(b.offset)), &d);
    }
    let mut d_contexts = vec![T::ZERO; pack.contexts.len() * h];
    scatter_add(&mut d_contexts, h, pack.bonds.iter().map(|b| b.context), &d);
    grads.input_bias.add_row_sum(&d_contexts);
    let new_atoms = gather(&embedded.rows, width, pack.contexts.iter().map(|c| c.row));
    let graphs = context_graphs(&pack.contexts, embedded, width);
    let candidates = gather(&embedded.rows, width, pack.bonds.iter().map(|b| b.row));
    for (part, (x, d)) in [(&candidates, &d), (&new_atoms, &d_contexts), (&graphs, &d_contexts)].into_iter().enumerate()
    {
        add_outer(x, d, h, &mut grads.input.data[part * width * h..(part + 1) * width * h]);
    }
    let back = |d: &[T], part: usize| {
        let mut out = vec![T::ZERO; d.len() / h.max(1) * width];
        product(d, h, transposed.input.block(part * h, (part + 1) * h), width, &mut out, Start::Zero);
        out
    };
    scatter_add(d_rows, width, pack.bonds.iter().map(|b| b.row), &back(&d, 0));
    scatter_add(d_rows, width, pack.contexts.iter().map(|c| c.row), &back(&d_contexts, 1));
    let d_graphs = back(&d_contexts, 2);
    scatter_add(d_states, width, pack.contexts.iter().map(|c| c.state + 1), &d_graphs);
    for (context, d) in pack.contexts.iter().zip(d_graphs.chunks_exact(width)) {
        if context.isolated {
            add(&mut d_rows[context.row as usize * width..][..width], d);
        }
    }
}
