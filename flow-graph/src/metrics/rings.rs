//! Sizes of the smallest rings, without a chemistry library.

use std::collections::VecDeque;

use crate::molecule::Molecule;

/// Sizes of the rings in a smallest set of smallest rings, by rising size.
///
/// The set is a minimum basis of the cycle space (Horton 1987). There may be several, their sizes are the
/// same. There are `bonds − atoms + components` of them; RDKit lists some equivalent rings more, in cages.
pub fn ring_sizes(molecule: &Molecule) -> Vec<usize> {
    let wanted = molecule.ring_count();
    if wanted == 0 {
        return Vec::new();
    }
    let mut candidates = candidates(molecule);
    candidates.sort_by_key(Vec::len);
    let mut basis = Basis::new(molecule.bond_count());
    let mut sizes = Vec::with_capacity(wanted);
    for cycle in candidates {
        if sizes.len() < wanted && basis.extend(&cycle) {
            sizes.push(cycle.len());
        }
    }
    sizes
}

/// Cycles among which a minimum basis is, as lists of bonds: for each atom and each bond the shortest
/// paths from the atom to the bond's ends, where they meet in the atom alone.
fn candidates(molecule: &Molecule) -> Vec<Vec<usize>> {
    let bonds: Vec<(usize, usize)> = molecule.bonds().map(|(a, b, _)| (a, b)).collect();
    let mut neighbours: Vec<Vec<(usize, usize)>> = vec![Vec::new(); molecule.len()];
    for (index, &(a, b)) in bonds.iter().enumerate() {
        neighbours[a].push((b, index));
        neighbours[b].push((a, index));
    }
    let mut found = Vec::new();
    for root in (0..molecule.len()).filter(|&atom| neighbours[atom].len() > 1) {
        let tree = Tree::new(root, &neighbours);
        for (index, &(a, b)) in bonds.iter().enumerate() {
            found.extend(tree.cycle(index, a, b));
        }
    }
    found
}

/// Shortest paths to one atom: for every atom its parent and the bond to it, and the branch it is in.
struct Tree {
    parent: Vec<Option<(usize, usize)>>,
    branch: Vec<usize>,
}

impl Tree {
    fn new(root: usize, neighbours: &[Vec<(usize, usize)>]) -> Self {
        let mut tree = Tree { parent: vec![None; neighbours.len()], branch: vec![usize::MAX; neighbours.len()] };
        tree.branch[root] = root;
        let mut queue = VecDeque::from([root]);
        while let Some(atom) = queue.pop_front() {
            for &(next, bond) in &neighbours[atom] {
                if tree.branch[next] == usize::MAX {
                    tree.parent[next] = Some((atom, bond));
                    tree.branch[next] = if atom == root { next } else { tree.branch[atom] };
                    queue.push_back(next);
                }
            }
        }
        tree
    }

    /// The cycle through the root and a bond outside the tree, if it is a simple one.
    fn cycle(&self, bond: usize, a: usize, b: usize) -> Option<Vec<usize>> {
        let in_tree = |x: usize| self.parent[x].is_some_and(|(_, up)| up == bond);
        if self.branch[a] == self.branch[b] || in_tree(a) || in_tree(b) {
            return None;
        }
        let mut cycle = vec![bond];
        for end in [a, b] {
            let mut at = end;
            while let Some((up, bond)) = self.parent[at] {
                cycle.push(bond);
                at = up;
            }
        }
        Some(cycle)
    }
}

/// Independent sets of bonds over GF(2), by their leading bond.
struct Basis {
    rows: Vec<Option<Vec<u64>>>,
    words: usize,
}

impl Basis {
    fn new(bonds: usize) -> Self {
        Basis { rows: vec![None; bonds], words: bonds.div_ceil(64) }
    }

    /// Takes a set of bonds in unless it is a sum of those there.
    fn extend(&mut self, cycle: &[usize]) -> bool {
        let mut row = vec![0u64; self.words];
        cycle.iter().for_each(|&bond| row[bond / 64] ^= 1 << (bond % 64));
        while let Some(word) = row.iter().position(|&w| w != 0) {
            let leading = word * 64 + row[word].trailing_zeros() as usize;
            match &self.rows[leading] {
                Some(known) => row.iter_mut().zip(known).for_each(|(a, b)| *a ^= b),
                None => {
                    self.rows[leading] = Some(row);
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::ring_sizes;
    use crate::molecule::{Atom, Bond, Element, Molecule};

    fn graph(atoms: usize, bonds: &[(usize, usize)]) -> Molecule {
        let bonds: Vec<_> = bonds.iter().map(|&(a, b)| (a, b, Bond::Single)).collect();
        Molecule::from_parts(&vec![Atom::neutral(Element::CARBON); atoms], &bonds).unwrap()
    }

    #[test]
    fn rings_of_known_graphs() {
        assert!(ring_sizes(&graph(3, &[(0, 1), (1, 2)])).is_empty());
        let naphthalene: Vec<_> = (0..9).map(|i| (i, i + 1)).chain([(9, 0), (3, 8)]).collect();
        assert_eq!(ring_sizes(&graph(10, &naphthalene)), [6, 6]);
        let norbornane = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 6), (6, 3)];
        assert_eq!(ring_sizes(&graph(7, &norbornane)), [5, 5]);
        let two = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 6), (6, 3)];
        assert_eq!(ring_sizes(&graph(7, &two)), [3, 4]);
        let cube = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)];
        assert_eq!(ring_sizes(&graph(8, &cube)), [4; 5]);
        let complete: Vec<_> = (0..5).flat_map(|a| (0..a).map(move |b| (a, b))).collect();
        assert_eq!(ring_sizes(&graph(5, &complete)), [3; 6]);
    }
}
