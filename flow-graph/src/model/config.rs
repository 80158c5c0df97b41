//! What a GraphAF model is: everything that `config.json` holds about it.

use serde::{Deserialize, Serialize};

use super::sequence::LARGEST_MOLECULE;
use super::vocabulary::Vocabulary;
use crate::{Error, Result};

/// Which earlier atoms a new atom may be bonded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Candidates {
    /// Those from the first neighbour of the atom before it on. In a breadth-first order no other bond can
    /// occur, so nothing is lost: 78 candidates for a molecule of ZINC250k where [`Candidates::Window`] has 199.
    Frontier,
    /// The last twelve or so, as in the paper.
    Window(usize),
}

/// How a model says that a molecule is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Stop {
    /// By an atom class of its own, decided before each atom.
    Class,
    /// By a last atom without bonds, as in the paper: a vector of noise alone whose candidates all say
    /// "no bond". One such step is scored; the paper scores as many as fill the molecule up to the maximum.
    Unconnected,
}

/// What a node of the growing graph shows to the graph network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Features {
    /// Its type.
    Type,
    /// Its type, the valence it has used, the sizes of the rings it is in, and whether it lies behind the
    /// frontier, where no bond can be added any more.
    State,
}

/// What a bond decision sees besides the embeddings of its two atoms and of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Geometry {
    /// Nothing, as in the paper.
    None,
    /// The distance of the two atoms in bonds, which is the size of the ring a bond would close, and their
    /// distance in the order.
    Distances,
}

/// The flow of one decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Head {
    /// The paper's: `layers` affine maps of the dequantized one-hot vector `x = onehot + noise·U[0,1)`,
    /// `x ← (x + t_l)·exp(s_l)`, with `s_l = exp(w_l)·tanh(·)` and `t_l` from a network with one hidden layer
    /// of `tanh`; base standard normal. The layers share their condition and do not mix the entries of `x`,
    /// so together they are one diagonal Gaussian for each decision.
    Gaussian {
        /// Number of affine maps, 12 in the paper.
        layers: usize,
        /// Width of each hidden layer.
        hidden: usize,
        /// Width of the uniform noise, 0.9 in the paper.
        noise: f64,
    },
    /// The probabilities of the classes themselves, `p_k` from logits: the exact likelihood of the class, no bound. As
    /// a flow it is a linear spline (Müller et al. 2019, section 4.1) on the dequantized class index
    /// `y = class + U[0,1)`: bin `[k, k+1)` is mapped onto an interval of length `p_k`, base uniform.
    ///
    /// Written as `spline`, as it was called first, so that runs begun then can be resumed.
    #[serde(rename = "spline", alias = "categorical")]
    Categorical {
        /// Widths of the hidden layers, rectified.
        hidden: Vec<usize>,
    },
}

/// A GraphAF model (Shi et al. 2020, [arXiv:2001.09382](https://arxiv.org/abs/2001.09382)).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GraphAfConfig {
    /// The atom types.
    pub vocabulary: Vocabulary,
    /// The largest number of atoms; a molecule that has reached it is complete.
    pub max_atoms: usize,
    /// To which earlier atoms the model considers a bond of a new atom.
    pub candidates: Candidates,
    /// How the model marks the end of a molecule.
    pub stop: Stop,
    /// What the graph network knows of each atom.
    pub features: Features,
    /// What a bond decision knows of the positions of its two atoms.
    pub geometry: Geometry,
    /// Width of the graph network.
    pub width: usize,
    /// Layers of the graph network.
    pub layers: usize,
    /// Whether a layer of the graph network is added to its input where the widths agree.
    pub residual: bool,
    /// The flow of the decisions.
    pub head: Head,
}

impl GraphAfConfig {
    /// The paper's model (appendix B) for a vocabulary: with [`Vocabulary::paper`] 931,873 parameters.
    pub fn paper(vocabulary: Vocabulary, max_atoms: usize) -> Self {
        GraphAfConfig {
            vocabulary,
            max_atoms,
            candidates: Candidates::Window(12),
            stop: Stop::Unconnected,
            features: Features::Type,
            geometry: Geometry::None,
            width: 128,
            layers: 3,
            residual: false,
            head: Head::Gaussian { layers: 12, hidden: 128, noise: 0.9 },
        }
    }

    /// The default: the paper's graph network seeing more of the prefix, with exact class probabilities.
    pub fn spline(vocabulary: Vocabulary, max_atoms: usize) -> Self {
        GraphAfConfig {
            candidates: Candidates::Frontier,
            stop: Stop::Class,
            features: Features::State,
            geometry: Geometry::Distances,
            residual: true,
            head: Head::Categorical { hidden: vec![512, 256] },
            ..Self::paper(vocabulary, max_atoms)
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the field, its value and the legal range.
    pub fn check(&self) -> Result<()> {
        let at_least_one = |field: &str, value: usize| match value {
            0 => Err(Error::config(field, "is 0, must be at least 1")),
            _ => Ok(()),
        };
        at_least_one("width", self.width)?;
        at_least_one("layers", self.layers)?;
        if let Candidates::Window(window) = self.candidates {
            at_least_one("candidates.window", window)?;
        }
        if !(1..=LARGEST_MOLECULE).contains(&self.max_atoms) {
            let reason = format!("is {}, must be 1 to {LARGEST_MOLECULE}", self.max_atoms);
            return Err(Error::config("max_atoms", reason));
        }
        match &self.head {
            Head::Gaussian { layers, hidden, noise } => {
                at_least_one("head.layers", *layers)?;
                at_least_one("head.hidden", *hidden)?;
                if !(*noise > 0.0 && *noise <= 1.0) {
                    return Err(Error::config("head.noise", format!("is {noise}, must be in (0, 1]")));
                }
                Ok(())
            }
            Head::Categorical { .. } if self.stop == Stop::Unconnected => Err(Error::config(
                "stop",
                "is unconnected: a categorical head needs the class, a last atom has no type to score",
            )),
            Head::Categorical { hidden } if hidden.is_empty() => {
                Err(Error::config("head.hidden", "is empty, at least one hidden layer is needed"))
            }
            Head::Categorical { hidden } => hidden.iter().try_for_each(|&h| at_least_one("head.hidden", h)),
        }
    }

    /// Classes of an atom decision: the types, and the stop where it is a class.
    pub fn atom_classes(&self) -> usize {
        self.vocabulary.len() + usize::from(self.stop == Stop::Class)
    }
}

/// Classes of a bond decision: single, double, triple, none.
pub const BOND_CLASSES: usize = 4;

/// The class of "no bond".
pub const NO_BOND: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_categorical_head_has_an_old_name_that_stays_in_files() {
        let head = Head::Categorical { hidden: vec![8] };
        for name in ["spline", "categorical"] {
            let text = format!(r#"{{"kind":"{name}","hidden":[8]}}"#);
            assert_eq!(serde_json::from_str::<Head>(&text).unwrap(), head);
        }
        assert_eq!(serde_json::to_string(&head).unwrap(), r#"{"kind":"spline","hidden":[8]}"#);
    }
}
