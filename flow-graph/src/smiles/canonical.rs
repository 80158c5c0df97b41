//! One string for one molecule.
//!
//! Aromaticity is a matter of taste, so none is perceived: a bond that is single in one Kekulé form and
//! double in another is of a kind of its own. Atoms are ranked by refinement of what they see around them,
//! ties are broken by trying every choice and keeping the one with the smallest list of bonds. Among the
//! Kekulé forms the one whose double bonds join the lowest ranks is written.

use crate::molecule::draft::{Adjacency, Matching};
use crate::molecule::{Atom, Bond, Element, Molecule};

use super::partition::{Coloured, Partition};
use super::write::write_ranked;

/// Complete rankings that are tried before the best so far is taken.
///
/// Symmetric choices are recognised and left out, so that ordinary molecules need a handful and C₆₀ needs
/// fewer than ten.
const MOST_RANKINGS: usize = 2000;

/// The colour of a bond that differs between Kekulé forms.
const VARYING: u8 = 4;

/// A Kekulé SMILES that is the same for every order of the atoms and every Kekulé form.
///
/// It is this crate's own and no other program's. Charges are part of a molecule: forms that move a charge or
/// a hydrogen (tautomers, the two ends of a carboxylate) differ. Kekulé forms of atoms with two double bonds
/// of their own are told apart as well.
///
/// # Complexity
/// Quadratic in the number of atoms for what is not highly symmetric, so meant for molecules, not for polymers
/// of 10⁵ atoms. A graph whose symmetry stays hidden after 2,000 rankings gets a string that reads back
/// to the molecule but may depend on the order of the atoms; no such molecule is known to the tests.
pub fn canonical(molecule: &Molecule) -> String {
    let normal = normal_form(molecule);
    let molecule = normal.as_ref().unwrap_or(molecule);
    let component = molecule.components();
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); component.iter().max().map_or(0, |&c| c + 1)];
    for (atom, &c) in component.iter().enumerate() {
        members[c].push(atom);
    }
    let mut strings: Vec<String> = members.iter().map(|atoms| connected(&molecule.induced(atoms))).collect();
    strings.sort_unstable();
    strings.join(".")
}

/// For every atom a number that it shares with the atoms that look like it, however far one looks.
pub(crate) fn classes(molecule: &Molecule) -> Vec<usize> {
    View::of(molecule).partition().ranks().to_vec()
}

/// A molecule with halogens of valence three and more as they are read, with charges; `None` where it has none.
fn normal_form(molecule: &Molecule) -> Option<Molecule> {
    let halogen = |atom: Atom| matches!(atom.element, Element::CHLORINE | Element::BROMINE | Element::IODINE);
    let high = |(index, atom)| halogen(atom) && atom.charge == 0 && molecule.bond_order_sum(index) > 2;
    let any = molecule.atoms().enumerate().any(high);
    // One that breaks a valence elsewhere does not read back, and stays as it is.
    any.then(|| super::parse(&super::write(molecule)).ok()).flatten()
}

fn connected(molecule: &Molecule) -> String {
    let view = View::of(molecule);
    let ranks = view.ranks();
    let form = view.form(&ranks);
    write_ranked(&form, &ranks, &mut Vec::new()).concat()
}

/// A molecule whose bonds do not depend on the Kekulé form.
pub(super) struct View<'a> {
    molecule: &'a Molecule,
    bonds: Vec<(usize, usize, Bond)>,
    coloured: Coloured,
}

/// What tells atoms apart at first sight; ends of chains come first.
type Kind = (usize, Atom, u8);

impl<'a> View<'a> {
    pub(super) fn of(molecule: &'a Molecule) -> Self {
        let bonds: Vec<_> = molecule.bonds().collect();
        let varying = varying(molecule.len(), &bonds);
        let colour = |(&(_, _, bond), varying): (&(_, _, Bond), bool)| if varying { VARYING } else { bond.order() };
        let colours = bonds.iter().zip(varying).map(colour).collect();
        let graph = Adjacency::new(molecule.len(), bonds.iter().map(|&(a, b, _)| (a, b)));
        View { molecule, bonds, coloured: Coloured { graph, colours } }
    }

    /// For every bond, in the molecule's order, whether it differs between Kekulé forms.
    pub(super) fn varying(&self) -> impl Iterator<Item = bool> + '_ {
        self.coloured.colours.iter().map(|&colour| colour == VARYING)
    }

    fn kind(&self, index: usize, atom: Atom) -> Kind {
        // An atom beyond its valence has no number of hydrogens; it is told from the others all the same.
        (self.coloured.graph.of(index).len(), atom, self.molecule.hydrogens(index).unwrap_or(u8::MAX))
    }

    /// Atoms in cells of those that look alike however far one looks.
    fn partition(&self) -> Partition {
        let kinds: Vec<Kind> = self.molecule.atoms().enumerate().map(|(i, atom)| self.kind(i, atom)).collect();
        let mut partition = Partition::new(&kinds);
        partition.refine(&self.coloured);
        partition
    }

    /// For every atom its canonical rank.
    pub(super) fn ranks(&self) -> Vec<usize> {
        self.ranks_within(self.partition())
    }

    /// The canonical ranks that refine a partition.
    fn ranks_within(&self, partition: Partition) -> Vec<usize> {
        if partition.is_discrete() { partition.ranks().to_vec() } else { Search::new(self).run(partition) }
    }

    /// The logarithm of the number of symmetries.
    ///
    /// `|G| = |orbit of an atom| · |symmetries that fix it|`; two tied atoms are in one orbit when the graphs in which
    /// either is singled out have the same canonical bonds.
    pub(super) fn log_symmetries(&self) -> f64 {
        let (mut partition, mut log) = (self.partition(), 0.0);
        while !partition.is_discrete() {
            let tied = partition.smallest_tie().to_vec();
            let singled = |atom: usize| {
                let mut single = partition.clone();
                single.individualise(atom, &self.coloured);
                single
            };
            let bonds = |atom: usize| self.certificate(&self.ranks_within(singled(atom)));
            let first = bonds(tied[0]);
            let orbit = 1 + tied[1..].iter().filter(|&&other| bonds(other) == first).count();
            log += (orbit as f64).ln();
            partition = singled(tied[0]);
        }
        log
    }

    /// The bonds in terms of ranks.
    fn certificate(&self, ranks: &[usize]) -> Vec<(usize, usize, u8)> {
        let bond = |(&(a, b, _), &colour): (&(usize, usize, Bond), &u8)| {
            (ranks[a].min(ranks[b]), ranks[a].max(ranks[b]), colour)
        };
        let mut bonds: Vec<_> = self.bonds.iter().zip(&self.coloured.colours).map(bond).collect();
        bonds.sort_unstable();
        bonds
    }

    /// The Kekulé form in which the atom of lowest rank has its double bond to the lowest possible rank, then
    /// the next atom, and so on.
    pub(super) fn form(&self, ranks: &[usize]) -> Molecule {
        let is_varying = |edge: usize| self.coloured.colours[edge] == VARYING;
        let edges: Vec<usize> = (0..self.bonds.len()).filter(|&edge| is_varying(edge)).collect();
        if edges.is_empty() {
            return self.molecule.clone();
        }
        let mut graph = Adjacency::new(ranks.len(), edges.iter().map(|&e| (self.bonds[e].0, self.bonds[e].1)));
        graph.sort_by_key(|atom| ranks[atom]);
        let mut matching = Matching::new(&graph, vec![false; ranks.len()]);
        for &edge in &edges {
            if let (a, b, Bond::Double) = self.bonds[edge] {
                matching.join(a, b);
            }
        }
        let mut by_rank: Vec<usize> = (0..ranks.len()).collect();
        by_rank.sort_by_key(|&atom| ranks[atom]);
        let mut done = vec![false; ranks.len()];
        for atom in by_rank {
            let mut choices = graph.of(atom).iter().map(|&(other, _)| other).filter(|&other| !done[other]);
            if done[atom] {
                continue;
            }
            if let Some(other) = choices.find(|&other| matching.pair(atom, other)) {
                for end in [atom, other] {
                    done[end] = true;
                    matching.block(end, true);
                }
            }
        }
        let order = |edge: usize, bond: Bond| match bond {
            _ if !is_varying(edge) => bond,
            _ if matching.mate(self.bonds[edge].0) == Some(self.bonds[edge].1) => Bond::Double,
            _ => Bond::Single,
        };
        let bonds: Vec<_> = self.bonds.iter().enumerate().map(|(e, &(a, b, bond))| (a, b, order(e, bond))).collect();
        let atoms: Vec<Atom> = self.molecule.atoms().collect();
        // The same pairs of atoms as before, so there is nothing to refuse.
        Molecule::from_parts(&atoms, &bonds).unwrap_or_else(|_| self.molecule.clone())
    }
}

/// For every bond whether another Kekulé form exists in which its order differs.
///
/// The double bonds match the atoms that have exactly one; a bond varies when it lies on a cycle of
/// alternating double and single bonds, that is when a perfect matching of those atoms takes it in.
fn varying(atoms: usize, bonds: &[(usize, usize, Bond)]) -> Vec<bool> {
    // A double bond outside rings, as that of a sulfoxide, is the same in every form.
    let ring = Adjacency::new(atoms, bonds.iter().map(|&(a, b, _)| (a, b))).edges_in_rings(bonds.len());
    let ring_double = |edge: usize| bonds[edge].2 == Bond::Double && ring[edge];
    let mut doubles = vec![0usize; atoms];
    for edge in (0..bonds.len()).filter(|&edge| ring_double(edge)) {
        doubles[bonds[edge].0] += 1;
        doubles[bonds[edge].1] += 1;
    }
    let matched = |a: usize, b: usize| doubles[a] == 1 && doubles[b] == 1;
    let mut mates = vec![usize::MAX; atoms];
    for (a, b) in (0..bonds.len()).filter(|&edge| ring_double(edge)).map(|edge| (bonds[edge].0, bonds[edge].1)) {
        if !matched(a, b) {
            continue;
        }
        (mates[a], mates[b]) = (b, a);
    }
    let paired = |atom: usize| mates[atom] != usize::MAX;
    let joins = |&(a, b, bond): &(usize, usize, Bond)| bond != Bond::Triple && paired(a) && paired(b);
    let edges: Vec<usize> = (0..bonds.len()).filter(|&e| ring[e] && joins(&bonds[e])).collect();
    let graph = Adjacency::new(atoms, edges.iter().map(|&e| (bonds[e].0, bonds[e].1)));
    let in_ring = graph.edges_in_rings(edges.len());
    let mut matching = Matching::new(&graph, vec![false; atoms]);
    for (a, &b) in mates.iter().enumerate().filter(|&(a, &b)| b != usize::MAX && a < b) {
        matching.join(a, b);
    }
    let mut varies = vec![false; bonds.len()];
    let mut on_cycle = vec![false; atoms];
    for (&edge, in_ring) in edges.iter().zip(in_ring) {
        let (a, b, bond) = bonds[edge];
        if in_ring && bond == Bond::Single && matching.can_pair(a, b) {
            varies[edge] = true;
            (on_cycle[a], on_cycle[b]) = (true, true);
        }
    }
    for &edge in &edges {
        let (a, b, bond) = bonds[edge];
        varies[edge] |= bond == Bond::Double && on_cycle[a] && on_cycle[b];
    }
    varies
}

/// A choice among tied atoms: the partition before it, and what is still to be tried.
struct Level {
    partition: Partition,
    tied: Vec<usize>,
    tried: Vec<usize>,
}

impl Level {
    fn of(partition: Partition) -> Self {
        let tied = partition.smallest_tie().iter().rev().copied().collect();
        Level { partition, tied, tried: Vec::new() }
    }
}

/// A complete ranking.
struct Ranking {
    choices: Vec<usize>,
    order: Vec<usize>,
    certificate: Vec<(usize, usize, u8)>,
}

/// The depth-first search through the ways to break ties, with its own stack.
///
/// Two rankings with the same bonds are a symmetry of the molecule. A choice that a symmetry, which leaves the
/// choices before it in place, carries into one already tried, can only repeat it and is left out.
struct Search<'a> {
    view: &'a View<'a>,
    symmetries: Vec<Vec<usize>>,
    best: Option<Ranking>,
}

impl<'a> Search<'a> {
    fn new(view: &'a View<'a>) -> Self {
        Search { view, symmetries: Vec::new(), best: None }
    }

    fn run(mut self, root: Partition) -> Vec<usize> {
        let fallback = root.ranks().to_vec();
        let mut levels = vec![Level::of(root)];
        let mut rankings = 0;
        while let Some(depth) = levels.len().checked_sub(1) {
            let choices: Vec<usize> = levels[..depth].iter().filter_map(|l| l.tried.last().copied()).collect();
            let Some(choice) = self.next_choice(&mut levels[depth], &choices) else {
                levels.pop();
                continue;
            };
            let mut partition = levels[depth].partition.clone();
            partition.individualise(choice, &self.view.coloured);
            if !partition.is_discrete() {
                levels.push(Level::of(partition));
                continue;
            }
            let keep = self.leaf(&partition, choices.into_iter().chain([choice]).collect());
            levels.truncate(keep);
            rankings += 1;
            if rankings == MOST_RANKINGS {
                break;
            }
        }
        let Some(best) = self.best else { return fallback };
        let mut ranks = vec![0; best.order.len()];
        best.order.iter().enumerate().for_each(|(rank, &atom)| ranks[atom] = rank);
        ranks
    }

    /// Takes note of a complete ranking and returns how many levels are still of interest.
    fn leaf(&mut self, partition: &Partition, choices: Vec<usize>) -> usize {
        let certificate = self.view.certificate(partition.ranks());
        let order = partition.order().to_vec();
        let depth = choices.len();
        let ranking = Ranking { choices, order, certificate };
        match &self.best {
            Some(best) if best.certificate < ranking.certificate => depth,
            Some(best) if best.certificate == ranking.certificate => {
                let mut symmetry = vec![0; best.order.len()];
                best.order.iter().zip(&ranking.order).for_each(|(&from, &to)| symmetry[from] = to);
                self.symmetries.push(symmetry);
                // Everything below the first choice that differs is a copy of what has been seen.
                let common = best.choices.iter().zip(&ranking.choices).take_while(|(a, b)| a == b).count();
                common + 1
            }
            _ => {
                self.best = Some(ranking);
                depth
            }
        }
    }

    /// The next tied atom that no symmetry carries into one tried before.
    fn next_choice(&self, level: &mut Level, before: &[usize]) -> Option<usize> {
        let fixing = self.symmetries.iter().filter(|s| before.iter().all(|&atom| s[atom] == atom));
        let mut orbit: Vec<usize> = (0..level.partition.order().len()).collect();
        if !level.tried.is_empty() {
            for symmetry in fixing {
                for (from, &to) in symmetry.iter().enumerate() {
                    let (a, b) = (root_of(&orbit, from), root_of(&orbit, to));
                    orbit[a.max(b)] = a.min(b);
                }
            }
        }
        while let Some(choice) = level.tied.pop() {
            let known = level.tried.iter().any(|&tried| root_of(&orbit, tried) == root_of(&orbit, choice));
            if !known {
                level.tried.push(choice);
                return Some(choice);
            }
        }
        None
    }
}

/// The representative of an atom's orbit.
fn root_of(orbit: &[usize], mut atom: usize) -> usize {
    while orbit[atom] != atom {
        atom = orbit[atom];
    }
    atom
}
