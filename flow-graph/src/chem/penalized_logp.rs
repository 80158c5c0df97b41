//! Penalised logP, the objective by which papers compare property optimisation.
//!
//! `(logP − μ)/σ + (−SA − μ)/σ + (−max(longest cycle − 6, 0) − μ)/σ`, each term normalised by its mean and
//! standard deviation over ZINC250k (Gómez-Bombarelli et al. 2018; the constants are those of GCPN).
//!
//! It is a number without an upper bound, to be reported with the largest size allowed and beside the
//! trivial answer: the unbranched alkane of 38 carbons, the size of ZINC250k's largest molecule, has
//! 11.19, the one of 48 has 13.70.

use super::{Perceived, SaScorer};
use crate::Result;
use crate::molecule::Molecule;

/// Mean and standard deviation over ZINC250k.
const LOG_P: (f64, f64) = (2.457_095_339_619_012_3, 1.434_324_401_111_988);
const MINUS_SA: (f64, f64) = (-3.052_581_129_316_613_4, 0.833_520_702_451_309_5);
const MINUS_CYCLE: (f64, f64) = (-0.048_569_687_640_305_3, 0.286_021_211_024_545_5);

/// Penalised logP of a molecule.
///
/// # Errors
/// As [`canonical_smiles`](super::canonical_smiles).
pub fn penalized_log_p(molecule: &Molecule, scorer: &SaScorer) -> Result<f64> {
    Perceived::new(molecule)?.penalized_log_p(scorer)
}

/// Atoms of the longest cycle in the cycle basis of the penalty, 0 without cycles.
///
/// The papers take networkx's `cycle_basis`, which is not a set of smallest rings and depends on the order
/// of the atoms. Here the rule is networkx 3's algorithm (depth first from the last atom of each component,
/// neighbours by rising index) with the atoms in the order of the canonical SMILES. Of the 800 molecules of
/// the constrained-optimisation benchmark 791 then have their published values to 0.01; in the order of
/// atoms in the file all but a few have.
///
/// # Errors
/// As [`canonical_smiles`](super::canonical_smiles).
pub fn longest_cycle(molecule: &Molecule) -> Result<usize> {
    Ok(Perceived::new(molecule)?.longest_cycle())
}

impl Perceived {
    /// [`penalized_log_p`] of this molecule.
    ///
    /// # Errors
    /// As [`qed`](Self::qed).
    pub fn penalized_log_p(&self, scorer: &SaScorer) -> Result<f64> {
        self.penalized(scorer.score_perceived(self)?)
    }

    /// The same from the synthetic accessibility, where that is known already.
    pub(crate) fn penalized(&self, accessibility: f64) -> Result<f64> {
        let excess = self.longest_cycle().saturating_sub(6) as f64;
        let normalised = |value: f64, (mean, deviation): (f64, f64)| (value - mean) / deviation;
        Ok(normalised(self.log_p()?, LOG_P) + normalised(-accessibility, MINUS_SA) + normalised(-excess, MINUS_CYCLE))
    }

    /// [`longest_cycle`] of this molecule.
    pub fn longest_cycle(&self) -> usize {
        longest_basis_cycle(&self.adjacency())
    }
}

/// The longest cycle of `networkx.cycle_basis` (Paton 1969) of a graph given by its neighbours.
fn longest_basis_cycle(neighbours: &[Vec<usize>]) -> usize {
    let mut parent = vec![usize::MAX; neighbours.len()];
    // The neighbours from which an atom was reached, and those with which it has closed a cycle.
    let mut used: Vec<Option<Vec<usize>>> = vec![None; neighbours.len()];
    let mut longest = 0;
    for root in (0..neighbours.len()).rev() {
        if used[root].is_some() {
            continue;
        }
        parent[root] = root;
        used[root] = Some(Vec::new());
        let mut stack = vec![root];
        while let Some(atom) = stack.pop() {
            for &next in &neighbours[atom] {
                let closed_already = used[atom].as_ref().is_some_and(|u| u.contains(&next));
                match &mut used[next] {
                    unseen @ None => {
                        parent[next] = atom;
                        *unseen = Some(vec![atom]);
                        stack.push(next);
                    }
                    Some(reached_from) if !closed_already => {
                        // Up the tree until an atom that the other end was reached from.
                        let mut length = 3;
                        let mut up = parent[atom];
                        while !reached_from.contains(&up) && up != parent[up] {
                            length += 1;
                            up = parent[up];
                        }
                        longest = longest.max(length);
                        reached_from.push(atom);
                    }
                    Some(_) => {}
                }
            }
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::longest_basis_cycle;

    fn neighbours(atoms: usize, bonds: &[(usize, usize)]) -> Vec<Vec<usize>> {
        let of = |i| bonds.iter().filter_map(move |&(a, b)| if a == i { Some(b) } else { (b == i).then_some(a) });
        let mut lists: Vec<Vec<usize>> = (0..atoms).map(|i| of(i).collect()).collect();
        lists.iter_mut().for_each(|list| list.sort_unstable());
        lists
    }

    #[test]
    fn cycles_as_networkx_finds_them() {
        assert_eq!(longest_basis_cycle(&neighbours(3, &[(0, 1), (1, 2)])), 0);
        assert_eq!(longest_basis_cycle(&neighbours(6, &[(0, 1), (1, 2), (2, 0), (3, 4), (4, 5)])), 3);
        // Norbornane: two orders of its atoms, and what networkx 3.6 gives for them.
        let one = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 6), (6, 3)];
        assert_eq!(longest_basis_cycle(&neighbours(7, &one)), 5);
        let other = [(5, 6), (6, 2), (2, 1), (1, 4), (4, 3), (3, 5), (5, 0), (0, 1)];
        assert_eq!(longest_basis_cycle(&neighbours(7, &other)), 6);
    }
}
