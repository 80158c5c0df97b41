//! The likelihood of one molecule, over random orders of its atoms.

use flow_core::FlowRng;

use super::config::{Candidates, GraphAfConfig};
use super::graph_af::GraphAf;
use super::sequence::Sequence;
use crate::molecule::Molecule;
use crate::{Error, Result};

/// Log-likelihoods of one molecule in random orders of its atoms.
///
/// A model gives a probability to a molecule *in an order*, `p(molecule, order)`: that of the decisions that build it in
/// this order. The probability of the molecule is the sum over all orders, of which there are too many to list, so what
/// is here describes some of them. For a Gaussian head `p` is the density of the dequantized decisions.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Score {
    /// `ln p(molecule, order)` of each order, in nats; at least one.
    pub log_probs: Vec<f64>,
    /// Heavy atoms of the molecule.
    pub atoms: usize,
}

impl Score {
    /// The mean of `ln p(molecule, order)`, in nats.
    pub fn mean(&self) -> f64 {
        self.log_probs.iter().sum::<f64>() / self.log_probs.len().max(1) as f64
    }

    /// `ln (1/K Σ_k p(molecule, order_k))`, in nats: the logarithm of the mean over the `K` orders drawn, never less
    /// than [`Score::mean`]. The probability of the molecule is the mean over *all* orders times their number, so this
    /// compares orders of one molecule, or molecules of a like number of orders.
    pub fn log_mean_exp(&self) -> f64 {
        let best = self.best();
        best + (self.log_probs.iter().map(|l| (l - best).exp()).sum::<f64>() / self.log_probs.len() as f64).ln()
    }

    /// The largest `ln p(molecule, order)`, in nats: a lower bound of the logarithm of the molecule's probability.
    pub fn best(&self) -> f64 {
        self.log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// `−log₂` of the mean over the orders, per heavy atom.
    pub fn bits_per_atom(&self) -> f64 {
        -self.log_mean_exp() / std::f64::consts::LN_2 / self.atoms as f64
    }
}

impl GraphAf {
    /// Scores a molecule in `orders` random breadth-first orders ([`random_order`]). The generator draws the orders, then
    /// the noise of a Gaussian head.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] for a molecule that the model cannot express; [`flow_core::Error::Config`] for no order.
    pub fn score(&self, molecule: &Molecule, orders: usize, rng: &mut FlowRng) -> Result<Score> {
        if orders == 0 {
            return Err(Error::config("orders", "are 0, must be at least 1"));
        }
        let sequence = Sequence::new(molecule, &self.config().vocabulary)?;
        let drawn = (0..orders).map(|_| random_order(&sequence, self.config(), rng)).collect::<Result<Vec<_>>>()?;
        Ok(Score { log_probs: self.log_prob(&drawn, rng)?.log_probs, atoms: sequence.len() })
    }
}

/// A random breadth-first order in which no bond reaches back beyond the model's window.
///
/// # Errors
/// [`Error::Vocabulary`] when a hundred orders do not have one: the molecule needs a wider window.
pub fn random_order(molecule: &Sequence, config: &GraphAfConfig, rng: &mut FlowRng) -> Result<Sequence> {
    const TRIES: usize = 100;
    let fits = |s: &Sequence| match config.candidates {
        Candidates::Frontier => true,
        Candidates::Window(window) => s.reach() <= window,
    };
    let found = (0..TRIES).map(|_| molecule.shuffled(rng)).find(fits);
    found.ok_or_else(|| Error::Vocabulary("no breadth-first order keeps its bonds within the window".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Vocabulary;
    use crate::model::tests::{configs, model};
    use crate::molecule::{Atom, Bond};

    #[test]
    fn a_molecule_of_two_atoms_has_two_orders() {
        // Categorical: no noise between the scores of an order and those of the same order again.
        let config = &configs()[1];
        let (model, types) = (model(config, 5), config.vocabulary.types());
        let molecule = |a, b| Molecule::from_parts(&[a, b], &[(0, 1, Bond::Double)]).unwrap();
        let rng = &mut FlowRng::seed_from(3);
        let both = [(0, 1), (1, 0)].map(|(a, b)| molecule(types[a], types[b]));
        let orders = both.each_ref().map(|m| Sequence::new(m, &config.vocabulary).unwrap());
        let wanted = model.log_prob(&orders, rng).unwrap().log_probs;
        assert!((wanted[0] - wanted[1]).abs() > 0.1, "{wanted:?} are too alike to tell the orders apart");

        let score = model.score(&both[0], 2000, rng).unwrap();
        assert_eq!((score.log_probs.len(), score.atoms), (2000, 2));
        let is = |l: f64, w: f64| (l - w).abs() < 1e-9;
        assert!(score.log_probs.iter().all(|&l| is(l, wanted[0]) || is(l, wanted[1])));
        assert!(is(score.best(), wanted[0].max(wanted[1])));
        let mean = (wanted[0].exp() + wanted[1].exp()) / 2.0;
        assert!((score.log_mean_exp() - mean.ln()).abs() < 0.05, "{} {}", score.log_mean_exp(), mean.ln());
        assert!((score.mean() - (wanted[0] + wanted[1]) / 2.0).abs() < 0.05 * (wanted[0] - wanted[1]).abs());
        assert!((score.bits_per_atom() + score.log_mean_exp() / 2.0 / 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_scored_is_refused() {
        let config = &configs()[1];
        let (model, known) = (model(config, 5), config.vocabulary.types()[0]);
        let foreign =
            Vocabulary::paper().types().iter().copied().find(|t| config.vocabulary.code(*t).is_none()).unwrap();
        let of = |atoms: &[Atom]| Molecule::from_parts(atoms, &[]).unwrap();
        let rng = &mut FlowRng::seed_from(3);
        assert!(matches!(model.score(&of(&[foreign]), 1, rng), Err(Error::Vocabulary(_))));
        assert!(model.score(&of(&[known]), 0, rng).unwrap_err().to_string().contains("orders"));
    }
}
