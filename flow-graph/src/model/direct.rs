//! The model in its direct form: every decision evaluates the graph network on a sub-graph of its own.
//!
//! This is what the paper writes and what the fused pass must equal: dense adjacency matrices, plain tensor
//! operations, gradients by automatic differentiation, on any device. It is the form for CUDA and Metal, and on
//! the CPU some hundred times slower than the fused pass.

use candle_core::{D, DType, Device, Tensor};
use flow_core::Param;
use flow_core::nn::matmul;

use super::config::{BOND_CLASSES, GraphAfConfig, Head, NO_BOND, Stop};
use super::params::{HeadNet, KINDS, Net};
use super::prefix::{DISTANCES, NodeState, OFFSETS, Prefix};
use super::rules::Rules;
use super::sequence::Sequence;
use crate::Result;

/// One decision with the sub-graph that it looks at.
struct Step {
    prefix: Prefix,
    /// New and earlier atom of a bond decision.
    pair: Option<(usize, usize)>,
    target: u8,
}

/// The decisions of a molecule in order, each from the beginning.
fn steps(config: &GraphAfConfig, sequence: &Sequence) -> Vec<Step> {
    let n = sequence.len();
    let nothing = config.vocabulary.len() as u8;
    let mut steps = Vec::new();
    let ended = n < config.max_atoms;
    for atom in 0..n + usize::from(ended) {
        let code = sequence.atoms.get(atom).copied().unwrap_or(nothing);
        steps.push(Step { prefix: prefix(sequence, atom, None), pair: None, target: code });
        if atom == 0 || (atom == n && config.stop == Stop::Class) {
            continue;
        }
        for to in prefix(sequence, atom, None).first_candidate(config.candidates, atom)..atom {
            let bond = sequence.bonds_of(atom).iter().find(|b| usize::from(b.to) == to);
            let target = bond.map_or(NO_BOND, |b| b.bond.order() - 1);
            steps.push(Step { prefix: prefix(sequence, atom, Some((code, to))), pair: Some((atom, to)), target });
        }
    }
    steps
}

/// The first `atoms` atoms with their bonds; then, for a bond decision, one more atom with those of its bonds
/// that come before `to`.
fn prefix(sequence: &Sequence, atoms: usize, newest: Option<(u8, usize)>) -> Prefix {
    let mut prefix = Prefix::default();
    for atom in 0..atoms {
        prefix.add_atom(sequence.atoms[atom]);
        sequence.bonds_of(atom).iter().for_each(|b| prefix.add_bond(usize::from(b.to), b.bond));
    }
    if let Some((code, to)) = newest {
        prefix.add_atom(code);
        let before = sequence.bonds_of(atoms).iter().filter(|b| usize::from(b.to) < to);
        before.for_each(|b| prefix.add_bond(usize::from(b.to), b.bond));
    }
    prefix
}

/// Dense inputs of many steps, on the device.
struct Dense {
    /// `(S, N, F)`.
    features: Tensor,
    /// Per bond kind `(S, N, N)`, the identity included.
    adjacency: Vec<Tensor>,
    /// `(S, N, 1)`: one where there is a node.
    mask: Tensor,
}

fn dense(config: &GraphAfConfig, steps: &[&Step], dtype: DType, device: &Device) -> Result<Dense> {
    let n = steps.iter().map(|s| s.prefix.len()).max().unwrap_or(0).max(1);
    let f = NodeState::feature_count(config);
    let count = steps.len();
    let (mut features, mut mask) = (vec![0f32; count * n * f], vec![0f32; count * n]);
    let mut adjacency = vec![vec![0f32; count * n * n]; KINDS];
    for (s, step) in steps.iter().enumerate() {
        for (v, node) in step.prefix.nodes().iter().enumerate() {
            mask[s * n + v] = 1.0;
            node.features(config, |k| features[(s * n + v) * f + usize::from(k)] = 1.0);
            adjacency.iter_mut().for_each(|a| a[(s * n + v) * n + v] = 1.0);
            for &(u, bond) in step.prefix.neighbours(v) {
                adjacency[usize::from(bond.order()) - 1][(s * n + v) * n + usize::from(u)] = 1.0;
            }
        }
    }
    let tensor = |v: Vec<f32>, shape: &[usize]| -> Result<Tensor> {
        Ok(Tensor::from_vec(v, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    };
    Ok(Dense {
        features: tensor(features, &[count, n, f])?,
        adjacency: adjacency.into_iter().map(|a| tensor(a, &[count, n, n])).collect::<Result<_>>()?,
        mask: tensor(mask, &[count, n, 1])?,
    })
}

/// A matrix applied to the last dimension.
fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (mut dims, columns) = (x.dims().to_vec(), w.dim(1)?);
    let rows = x.elem_count() / w.dim(0)?;
    if let Some(last) = dims.last_mut() {
        *last = columns;
    }
    Ok(matmul(&x.contiguous()?.reshape((rows, w.dim(0)?))?, w)?.reshape(dims)?)
}

/// Node embeddings `(S, N, W)`, zero where there is no node.
fn embed(config: &GraphAfConfig, net: &Net<Param>, dense: &Dense) -> Result<Tensor> {
    let mut h = linear(&dense.features, &net.embed.tensor())?;
    for (l, weight) in net.gnn.iter().enumerate() {
        let y = linear(&h, &weight.tensor())?;
        let mut out = if config.residual && h.dim(2)? == config.width {
            h
        } else {
            y.narrow(2, 0, config.width)?.zeros_like()?
        };
        for (kind, adjacency) in dense.adjacency.iter().enumerate() {
            let sum = adjacency.matmul(&y.narrow(2, kind * config.width, config.width)?.contiguous()?)?;
            out = (out + if l + 1 < config.layers { sum.maximum(0.0)? } else { sum })?;
        }
        h = out;
    }
    let h = h.broadcast_mul(&net.scale.tensor())?.broadcast_add(&net.shift.tensor())?;
    Ok(h.broadcast_mul(&dense.mask)?)
}

/// Log-densities of all atom and of all bond decisions of some molecules, in the order of a pack.
///
/// `noise` holds uniform numbers, `(decisions, classes)` for atoms and for bonds; a categorical head needs none.
pub(crate) fn log_probs(
    config: &GraphAfConfig,
    net: &Net<Param>,
    sequences: &[Sequence],
    noise: (&Tensor, &Tensor),
) -> Result<(Tensor, Tensor)> {
    let all: Vec<Step> = sequences.iter().flat_map(|s| steps(config, s)).collect();
    let (bonds, atoms): (Vec<&Step>, Vec<&Step>) = all.iter().partition(|s| s.pair.is_some());
    let (dtype, device) = (net.embed.var().dtype(), net.embed.var().device().clone());
    let h = embed(config, net, &dense(config, &atoms, dtype, &device)?)?;
    let first = linear(&h.sum(1)?, &net.atom.input.tensor())?;
    let of_atoms = decide(config, &net.atom, &first, (&atoms, config.atom_classes()), noise.0)?;
    if bonds.is_empty() {
        return Ok((of_atoms, Tensor::zeros(0, dtype, &device)?));
    }
    let h = embed(config, net, &dense(config, &bonds, dtype, &device)?)?;
    let pick = |which: fn((usize, usize)) -> usize| -> Result<Tensor> {
        let n = h.dim(1)?;
        let index = bonds.iter().enumerate().map(|(s, b)| (s * n + b.pair.map_or(0, which)) as u32);
        let index = Tensor::from_iter(index, &device)?;
        Ok(h.contiguous()?.reshape((bonds.len() * n, config.width))?.index_select(&index, 0)?)
    };
    let condition = Tensor::cat(&[pick(|(_, to)| to)?, pick(|(atom, _)| atom)?, h.sum(1)?], 1)?;
    let mut first = linear(&condition, &net.bond.input.tensor())?;
    if let Some((distances, offsets)) = &net.bond.geometry {
        let (distance, offset) = geometry(&bonds, dtype, &device)?;
        first = ((first + matmul(&distance, &distances.tensor())?)? + matmul(&offset, &offsets.tensor())?)?;
    }
    Ok((of_atoms, decide(config, &net.bond, &first, (&bonds, BOND_CLASSES), noise.1)?))
}

/// One-hot distances in bonds and in the order.
fn geometry(bonds: &[&Step], dtype: DType, device: &Device) -> Result<(Tensor, Tensor)> {
    let pairs = bonds.iter().filter_map(|s| s.pair.map(|(atom, to)| (s, atom, to)));
    let distances = pairs.clone().map(|(s, atom, to)| Prefix::distance_class(s.prefix.distances(atom)[to]));
    let offsets = pairs.map(|(_, atom, to)| Prefix::offset_class(atom, to));
    Ok((one_hot(distances, DISTANCES, dtype, device)?, one_hot(offsets, OFFSETS, dtype, device)?))
}

/// `(S, K)`, with rows of zeros for classes outside.
fn one_hot(classes: impl Iterator<Item = u8>, k: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let rows: Vec<f32> = classes.flat_map(|c| (0..k).map(move |i| f32::from(u8::from(i == usize::from(c))))).collect();
    let shape = (rows.len() / k, k);
    Ok(Tensor::from_vec(rows, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

/// The layers after the first and the flow.
fn decide(
    config: &GraphAfConfig,
    net: &HeadNet<Param>,
    first: &Tensor,
    (steps, classes): (&[&Step], usize),
    noise: &Tensor,
) -> Result<Tensor> {
    let first = first.broadcast_add(&net.input_bias.tensor())?;
    let target = one_hot(steps.iter().map(|s| s.target), classes, first.dtype(), first.device())?;
    match &config.head {
        Head::Categorical { .. } => {
            let closed = steps.iter().flat_map(|s| {
                let of_atom = s.pair.is_none().then(|| Rules::unrestricted(config, s.prefix.len()));
                let allowed = of_atom.unwrap_or(u128::MAX);
                (0..classes).map(move |c| if allowed >> c & 1 == 1 { 0.0 } else { CLOSED })
            });
            let closed =
                Tensor::from_iter(closed.collect::<Vec<f32>>(), &Device::Cpu)?.reshape((steps.len(), classes))?;
            categorical(net, first, &target, &closed.to_dtype(target.dtype())?.to_device(target.device())?)
        }
        Head::Gaussian { layers, hidden, noise: width } => {
            let x = (target + (noise * *width)?)?;
            gaussian(net, &first, x, (*layers, *hidden))
        }
    }
}

/// Added to the logit of a class that is not allowed.
const CLOSED: f32 = -1e30;

fn categorical(net: &HeadNet<Param>, first: Tensor, target: &Tensor, closed: &Tensor) -> Result<Tensor> {
    let mut h = first.maximum(0.0)?;
    for (weight, bias) in &net.hidden {
        h = linear(&h, &weight.tensor())?.broadcast_add(&bias.tensor())?.maximum(0.0)?;
    }
    let logits = linear(&h, &net.output.tensor())?.broadcast_add(&net.output_bias.tensor())?;
    let logits = (logits + closed)?;
    let logits = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
    Ok(((&logits * target)?.sum(1)? - logits.exp()?.sum(1)?.log()?)?)
}

fn gaussian(net: &HeadNet<Param>, first: &Tensor, mut x: Tensor, (layers, hidden): (usize, usize)) -> Result<Tensor> {
    let (h, k) = (first.tanh()?, x.dim(1)?);
    let (weight, bias) = (net.output.tensor(), net.output_bias.tensor());
    let mut log_det = x.zeros_like()?;
    for l in 0..layers {
        let out = matmul(&h.narrow(1, l * hidden, hidden)?, &weight.narrow(0, l * hidden, hidden)?)?;
        let out = out.broadcast_add(&bias.narrow(0, l, 1)?)?;
        let mut s = out.narrow(1, k, k)?.tanh()?;
        if let Some(range) = &net.log_range {
            s = s.broadcast_mul(&range.tensor().narrow(0, l, 1)?.exp()?)?;
        }
        x = ((x + out.narrow(1, 0, k)?)? * s.exp()?)?;
        log_det = (log_det + s)?;
    }
    let half_ln_tau = 0.5 * std::f64::consts::TAU.ln();
    Ok((log_det - ((x.sqr()? * 0.5)? + half_ln_tau)?)?.sum(1)?)
}
