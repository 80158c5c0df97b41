//! Ordered partitions of atoms and their refinement, the inside of canonical ranking.

use std::collections::BTreeSet;

use crate::molecule::draft::Adjacency;

/// A graph with coloured edges.
pub(super) struct Coloured {
    pub(super) graph: Adjacency,
    /// The colour of every edge.
    pub(super) colours: Vec<u8>,
}

/// Atoms in cells; the cell of an atom is named by the position of its first member, which does not depend
/// on how the atoms are numbered.
#[derive(Clone)]
pub(super) struct Partition {
    /// The atoms, cell after cell.
    order: Vec<usize>,
    /// For every atom the start of its cell.
    cell: Vec<usize>,
    /// For every start of a cell its size.
    size: Vec<usize>,
    /// Number of cells.
    cells: usize,
}

impl Partition {
    /// Cells of equal keys, by rising key.
    pub(super) fn new<K: Ord>(keys: &[K]) -> Self {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|&atom| &keys[atom]);
        let mut partition =
            Partition { cell: vec![0; keys.len()], size: vec![0; keys.len()], cells: 0, order: order.clone() };
        let mut start = 0;
        for same in order.chunk_by(|&a, &b| keys[a] == keys[b]) {
            partition.set_cell(start, same);
            start += same.len();
            partition.cells += 1;
        }
        partition
    }

    /// Writes a cell that starts at a position.
    fn set_cell(&mut self, start: usize, atoms: &[usize]) {
        self.order[start..start + atoms.len()].copy_from_slice(atoms);
        self.size[start] = atoms.len();
        atoms.iter().for_each(|&atom| self.cell[atom] = start);
    }

    /// Whether every cell has one atom.
    pub(super) fn is_discrete(&self) -> bool {
        self.cells == self.order.len()
    }

    /// The atoms by rank; meaningful once the partition is discrete.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    /// For every atom its rank; without ties once the partition is discrete.
    pub(super) fn ranks(&self) -> &[usize] {
        &self.cell
    }

    /// The first of the smallest cells of more than one atom; empty when there is none.
    pub(super) fn smallest_tie(&self) -> &[usize] {
        let mut best: &[usize] = &[];
        let mut start = 0;
        while let Some(&size) = self.size.get(start) {
            if size > 1 && (best.is_empty() || size < best.len()) {
                best = &self.order[start..start + size];
            }
            start += size.max(1);
        }
        best
    }

    /// Splits cells until all atoms of a cell see the same cells over the same colours.
    pub(super) fn refine(&mut self, coloured: &Coloured) {
        let all: BTreeSet<usize> = self.cell.iter().copied().collect();
        self.refine_from(coloured, all);
    }

    /// Puts one atom before the others of its cell and refines.
    pub(super) fn individualise(&mut self, atom: usize, coloured: &Coloured) {
        let start = self.cell[atom];
        let rest: Vec<usize> = self.members(start).iter().copied().filter(|&other| other != atom).collect();
        if rest.is_empty() {
            return;
        }
        self.set_cell(start, &[atom]);
        self.set_cell(start + 1, &rest);
        self.cells += 1;
        // Either half tells the neighbours all there is to tell; the single atom has fewer of them.
        let seen = coloured.graph.of(atom).iter().map(|&(other, _)| self.cell[other]).collect();
        self.refine_from(coloured, seen);
    }

    fn members(&self, start: usize) -> &[usize] {
        &self.order[start..start + self.size[start]]
    }

    fn refine_from(&mut self, coloured: &Coloured, mut dirty: BTreeSet<usize>) {
        while let Some(start) = dirty.pop_first() {
            if self.size[start] == 1 {
                continue;
            }
            let mut members: Vec<(Vec<(u8, usize)>, usize)> =
                self.members(start).iter().map(|&atom| (self.view(coloured, atom), atom)).collect();
            members.sort_unstable();
            let mut groups: Vec<Vec<usize>> =
                members.chunk_by(|a, b| a.0 == b.0).map(|group| group.iter().map(|m| m.1).collect()).collect();
            if groups.len() == 1 {
                continue;
            }
            // The largest keeps its name, so that the fewest neighbours must be looked at again.
            groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
            self.cells += groups.len() - 1;
            let mut at = start;
            for group in &groups {
                self.set_cell(at, group);
                at += group.len();
            }
            for &atom in groups.iter().skip(1).flatten() {
                dirty.extend(coloured.graph.of(atom).iter().map(|&(other, _)| self.cell[other]));
            }
        }
    }

    /// What an atom sees around it.
    fn view(&self, coloured: &Coloured, atom: usize) -> Vec<(u8, usize)> {
        let mut view: Vec<_> =
            coloured.graph.of(atom).iter().map(|&(other, edge)| (coloured.colours[edge], self.cell[other])).collect();
        view.sort_unstable();
        view
    }
}
