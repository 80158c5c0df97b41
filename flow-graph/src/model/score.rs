//! The likelihood of one molecule, over random orders of its atoms and over its Kekulé forms.

use flow_core::FlowRng;

use super::config::{Candidates, GraphAfConfig};
use super::graph_af::GraphAf;
use super::sequence::Sequence;
use crate::molecule::Molecule;
use crate::smiles::Forms;
use crate::{Error, Result};

/// Log-likelihoods of one molecule in random orders of its atoms and random Kekulé forms.
///
/// A model gives a probability to a molecule built *in one way*, `p(order, form)`: that of the decisions that build this
/// Kekulé form in this order of the atoms. The probability of the molecule is the sum over all ways,
///
/// ```text
/// p(molecule) = 1/S Σ_forms Σ_orders p(order, form)
/// ```
///
/// where `S` is the number of the molecule's [symmetries](Forms::symmetries), each of which makes the same decisions of
/// another order. There are too many orders to list, so what is here describes some of them. Everything is a function of
/// the molecule, the model and the generator: how the molecule was written makes no difference.
///
/// For a Gaussian head `p` is the density of the dequantized decisions.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Score {
    /// `ln p(order, form)` of each way drawn, in nats; at least one.
    pub log_probs: Vec<f64>,
    /// `ln q(order, form)` of each: the probability that it was drawn, by `S` for the orders that make the same decisions.
    pub log_proposals: Vec<f64>,
    /// Ways drawn in all, those included that a model with a window of candidates cannot build.
    pub drawn: usize,
    /// Heavy atoms of the molecule.
    pub atoms: usize,
    /// Whether all Kekulé forms took part, see [`Forms::is_complete`].
    pub all_forms: bool,
}

impl Score {
    /// The mean of `ln p(order, form)`, in nats.
    pub fn mean(&self) -> f64 {
        self.log_probs.iter().sum::<f64>() / self.log_probs.len().max(1) as f64
    }

    /// `ln (1/K Σ_k p(order_k, form_k))`, in nats: the logarithm of the mean over the `K` ways drawn, never less than
    /// [`Score::mean`]. The probability of the molecule is a *sum* over all ways, so this lies far below its logarithm; it
    /// compares molecules of like size. For the sum see [`Score::bound`].
    pub fn log_mean_exp(&self) -> f64 {
        log_mean_exp(self.log_probs.iter().copied(), self.log_probs.len())
    }

    /// The largest `ln p(order, form)`, in nats: a lower bound of the logarithm of the molecule's probability.
    pub fn best(&self) -> f64 {
        self.log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// `−log₂` of the mean over the ways, per heavy atom.
    pub fn bits_per_atom(&self) -> f64 {
        -self.log_mean_exp() / std::f64::consts::LN_2 / self.atoms as f64
    }

    /// The importance-weighted lower bound of `ln p(molecule)`, in nats (Burda et al. 2016, arXiv:1509.00519):
    ///
    /// ```text
    /// ln 1/K Σ_k p(order_k, form_k) / q(order_k, form_k)
    /// ```
    ///
    /// Its expectation is at most `ln p(molecule)` and rises to it with `K`. A way that the model cannot build counts as
    /// one of probability zero.
    pub fn bound(&self) -> f64 {
        log_mean_exp(self.log_weights(), self.drawn)
    }

    /// `(Σ w)² / Σ w²` of the weights in [`Score::bound`]: near one the bound hangs on a single way and is loose.
    pub fn effective_ways(&self) -> f64 {
        let best = self.log_weights().fold(f64::NEG_INFINITY, f64::max);
        let (sum, squares) =
            self.log_weights().map(|w| (w - best).exp()).fold((0.0, 0.0), |(s, q), w| (s + w, q + w * w));
        sum * sum / squares
    }

    fn log_weights(&self) -> impl Iterator<Item = f64> + Clone + '_ {
        self.log_probs.iter().zip(&self.log_proposals).map(|(p, q)| p - q)
    }
}

/// `ln (1/count Σ exp(values))`.
fn log_mean_exp(values: impl Iterator<Item = f64> + Clone, count: usize) -> f64 {
    let best = values.clone().fold(f64::NEG_INFINITY, f64::max);
    best + (values.map(|v| (v - best).exp()).sum::<f64>() / count.max(1) as f64).ln()
}

impl GraphAf {
    /// Scores a molecule in `ways` random breadth-first orders of random Kekulé forms.
    ///
    /// The generator draws the ways, then the noise of a Gaussian head. The result is the same for every order of the atoms
    /// and every Kekulé form that the molecule comes in.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] for a molecule that the model cannot express; [`flow_core::Error::Config`] for no way.
    pub fn score(&self, molecule: &Molecule, ways: usize, rng: &mut FlowRng) -> Result<Score> {
        if ways == 0 {
            return Err(Error::config("orders", "are 0, must be at least 1"));
        }
        let vocabulary = &self.config().vocabulary;
        // As the model sees it: without charges, where it has none.
        let seen = Sequence::new(molecule, vocabulary)?.molecule(vocabulary)?;
        let forms = Forms::of(&seen);
        let log_forms = forms.count().ln() - forms.log_symmetries();
        let (mut orders, mut proposals, mut drawn) = (Vec::new(), Vec::new(), 0);
        while orders.len() < ways {
            let form = Sequence::new(&forms.draw(rng), vocabulary)?;
            let (order, tries) = order_within(&form, self.config(), rng)?;
            drawn += tries;
            proposals.push(order.log_order_probability() - log_forms);
            orders.push(order);
        }
        let log_probs = self.log_prob(&orders, rng)?.log_probs;
        let (atoms, all_forms) = (seen.len(), forms.is_complete());
        Ok(Score { log_probs, log_proposals: proposals, drawn, atoms, all_forms })
    }
}

/// A random breadth-first order in which no bond reaches back beyond the model's window.
///
/// # Errors
/// [`Error::Vocabulary`] when a hundred orders do not have one: the molecule needs a wider window.
pub fn random_order(molecule: &Sequence, config: &GraphAfConfig, rng: &mut FlowRng) -> Result<Sequence> {
    order_within(molecule, config, rng).map(|(order, _)| order)
}

/// [`random_order`], and how many orders were drawn for it.
fn order_within(molecule: &Sequence, config: &GraphAfConfig, rng: &mut FlowRng) -> Result<(Sequence, usize)> {
    const TRIES: usize = 100;
    let fits = |s: &Sequence| match config.candidates {
        Candidates::Frontier => true,
        Candidates::Window(window) => s.reach() <= window,
    };
    let found = (1..=TRIES).map(|tries| (molecule.shuffled(rng), tries)).find(|(order, _)| fits(order));
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

    /// Every way to build a molecule: breadth-first orders of all its Kekulé forms, each sequence of decisions once.
    fn all_ways(smiles: &[&str], config: &GraphAfConfig) -> Vec<Sequence> {
        let mut ways = std::collections::HashSet::new();
        for form in smiles {
            let sequence = Sequence::new(&crate::smiles::parse(form).unwrap(), &config.vocabulary).unwrap();
            let n = sequence.len();
            let mut ranks = vec![Vec::new()];
            for item in 0..n {
                ranks = ranks
                    .iter()
                    .flat_map(|r: &Vec<usize>| {
                        (0..=r.len()).map(move |at| {
                            let mut r = r.clone();
                            r.insert(at, item);
                            r
                        })
                    })
                    .collect();
            }
            for start in 0..n {
                ways.extend(ranks.iter().map(|rank| sequence.breadth_first(start, rank)));
            }
        }
        ways.into_iter().collect()
    }

    #[test]
    fn the_bound_approaches_the_sum_over_all_ways() {
        let config = &configs()[1];
        let (model, rng) = (model(config, 5), &mut FlowRng::seed_from(4));
        // Symmetric and not, with one Kekulé form and with two.
        for forms in
            [&["CC"][..], &["CC[O-]"], &["CC(C)C"], &["C1=CC=C1", "C1C=CC=1"], &["[O-]C1=CC=C1", "[O-]C=1C=CC=1"]]
        {
            let ways = all_ways(forms, config);
            let molecule = crate::smiles::parse(forms[0]).unwrap();
            let wanted = model.log_prob(&ways, rng).unwrap().log_probs.iter().map(|l| l.exp()).sum::<f64>().ln();
            let score = model.score(&molecule, 4000, rng).unwrap();
            assert!((score.bound() - wanted).abs() < 0.08, "{forms:?}: {} {wanted}", score.bound());
            assert!(score.best() <= wanted && score.mean() <= score.log_mean_exp());
            // The expectation of the bound of few ways lies below.
            let few: Vec<f64> = (0..200).map(|_| model.score(&molecule, 2, rng).unwrap().bound()).collect();
            let mean = few.iter().sum::<f64>() / 200.0;
            let spread = (few.iter().map(|b| (b - mean).powi(2)).sum::<f64>() / 200.0).sqrt();
            assert!(mean <= wanted + 4.0 * spread / 200f64.sqrt() + 1e-9, "{forms:?}: {mean} {wanted}");
        }
    }

    #[test]
    fn a_score_does_not_depend_on_how_the_molecule_is_written() {
        for config in &configs() {
            let model = model(config, 5);
            for pair in [["OC1=CC=CC=C1", "C1=CC=C(O)C=C1"], ["CC(C)O", "OC(C)C"], ["OC=1C=CC=CC=1", "c1ccccc1O"]] {
                let score =
                    |smiles: &str| model.score(&crate::smiles::parse(smiles).unwrap(), 20, &mut FlowRng::seed_from(9));
                let (a, b) = (score(pair[0]), score(pair[1]));
                match (a, b) {
                    (Ok(a), Ok(b)) => assert_eq!(a, b, "{pair:?}"),
                    (a, b) => assert_eq!(a.is_err(), b.is_err(), "{pair:?}"),
                }
            }
        }
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
