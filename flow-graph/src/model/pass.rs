//! The fused pass over a batch: scores of all decisions and, given what they are worth, all gradients.

use flow_core::kernels::Real;

use super::config::{BOND_CLASSES, GraphAfConfig, Head};
use super::graph_net;
use super::head;
use super::likelihood::{Choices, FlowParams, gradient, log_probs};
use super::matrix::Matrix;
use super::pack::Pack;
use super::params::{HeadNet, Net};

/// One number for every decision of a pack: a log-density in nats, or the weight of one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DecisionValues {
    /// Atom decisions.
    pub atoms: Vec<f64>,
    /// Bond decisions.
    pub bonds: Vec<f64>,
}

impl DecisionValues {
    /// Number of decisions.
    pub fn len(&self) -> usize {
        self.atoms.len() + self.bonds.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Uniform noise for the dequantization of a pack's decisions; empty for a categorical head, which needs none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Noise<T> {
    pub atoms: Vec<T>,
    pub bonds: Vec<T>,
}

/// Numbers of noise that atom and bond decisions of a pack need.
pub(crate) fn noise_lengths(config: &GraphAfConfig, pack: &Pack) -> (usize, usize) {
    match config.head {
        Head::Gaussian { .. } => (pack.atoms.len() * config.atom_classes(), pack.bonds.len() * BOND_CLASSES),
        Head::Categorical { .. } => (0, 0),
    }
}

/// The log-densities of a pack's decisions.
pub(crate) fn score<T: Real>(
    config: &GraphAfConfig,
    net: &Net<Matrix<T>>,
    pack: &Pack,
    noise: &Noise<T>,
) -> DecisionValues {
    let embedded = graph_net::forward(config, net, pack);
    let atoms = head::atoms(&config.head, &net.atom, pack, &embedded);
    let bonds = head::bonds(&config.head, &net.bond, pack, &embedded);
    let (of_atoms, of_bonds) = choices(config, pack, noise);
    DecisionValues {
        atoms: log_probs(&config.head, &params(&net.atom, &atoms), &of_atoms),
        bonds: log_probs(&config.head, &params(&net.bond, &bonds), &of_bonds),
    }
}

/// Scores the decisions, asks `worth` for `∂loss/∂log p` of each, and adds the gradients to `grads`.
pub(crate) fn backward<T: Real>(
    config: &GraphAfConfig,
    nets: (&Net<Matrix<T>>, &Net<Matrix<T>>),
    (pack, noise): (&Pack, &Noise<T>),
    worth: impl FnOnce(&DecisionValues) -> DecisionValues,
    grads: &mut Net<Matrix<T>>,
) -> DecisionValues {
    let (net, transposed) = nets;
    let head = &config.head;
    let embedded = graph_net::forward(config, net, pack);
    let atoms = head::atoms(head, &net.atom, pack, &embedded);
    let bonds = head::bonds(head, &net.bond, pack, &embedded);
    let (of_atoms, of_bonds) = choices(config, pack, noise);
    let scores = DecisionValues {
        atoms: log_probs(head, &params(&net.atom, &atoms), &of_atoms),
        bonds: log_probs(head, &params(&net.bond, &bonds), &of_bonds),
    };
    let weights = worth(&scores);
    let mut d_states = vec![T::ZERO; embedded.states.len()];
    let mut d_rows = vec![T::ZERO; embedded.rows.len()];
    let (d_output, d_range) = gradient(head, &params(&net.atom, &atoms), &of_atoms, &weights.atoms);
    add_range(&mut grads.atom, &d_range);
    let pair = (&net.atom, &transposed.atom);
    head::atoms_backward(head, pair, (pack, &embedded), (&atoms, &d_output), &mut d_states, &mut grads.atom);
    let (d_output, d_range) = gradient(head, &params(&net.bond, &bonds), &of_bonds, &weights.bonds);
    add_range(&mut grads.bond, &d_range);
    let pair = (&net.bond, &transposed.bond);
    let into = (d_rows.as_mut_slice(), d_states.as_mut_slice());
    head::bonds_backward(head, pair, (pack, &embedded), (&bonds, &d_output), into, &mut grads.bond);
    graph_net::backward(config, nets, pack, &embedded, (d_rows, &d_states), grads);
    scores
}

fn params<'a, T: Real>(net: &'a HeadNet<Matrix<T>>, pass: &'a head::Pass<T>) -> FlowParams<'a, T> {
    let log_range = net.log_range.as_ref().map(|m| m.data.as_slice()).unwrap_or_default();
    FlowParams { output: &pass.output, log_range }
}

fn add_range<T: Real>(grads: &mut HeadNet<Matrix<T>>, d: &[T]) {
    if let Some(range) = &mut grads.log_range {
        range.data.iter_mut().zip(d).for_each(|(a, &b)| *a += b);
    }
}

fn choices<'a, T: Real>(config: &GraphAfConfig, pack: &Pack, noise: &'a Noise<T>) -> (Choices<'a, T>, Choices<'a, T>) {
    let atoms = Choices {
        targets: pack.atoms.iter().map(|a| a.target).collect(),
        allowed: pack.atoms.iter().map(|a| a.allowed).collect(),
        noise: &noise.atoms,
        classes: config.atom_classes(),
    };
    let bonds = Choices {
        targets: pack.bonds.iter().map(|b| b.target).collect(),
        allowed: pack.bonds.iter().map(|b| u128::from(b.allowed)).collect(),
        noise: &noise.bonds,
        classes: BOND_CLASSES,
    };
    (atoms, bonds)
}
