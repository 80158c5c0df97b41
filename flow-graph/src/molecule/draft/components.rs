//! The pieces of a draft: a drug and its counter-ions.
//!
//! The largest piece is chosen by its atoms as written, before chemistry is asked, so that a counter-ion which cannot be
//! read neither throws the drug away nor takes its place.

use crate::molecule::Element;

use super::adjacency::Adjacency;
use super::parts::{Draft, Fault};

/// Which pieces of a draft become the molecule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All of them.
    All,
    /// The one with most heavy atoms, the first of several.
    Largest,
}

/// What was in pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pieces {
    /// Number of pieces.
    pub(crate) count: usize,
    /// How many of those set aside are no molecules.
    pub(crate) unreadable: usize,
}

impl Draft {
    /// The largest piece with the places of its atoms, and the others.
    pub(super) fn largest(self) -> (Draft, Vec<usize>, Vec<Draft>) {
        let piece = self.pieces();
        let count = piece.iter().max().map_or(0, |&last| last + 1);
        if count < 2 {
            let all = (0..self.atoms.len()).collect();
            return (self, all, Vec::new());
        }
        let mut heavy = vec![0usize; count];
        for (atom, &p) in self.atoms.iter().zip(&piece) {
            heavy[p] += usize::from(atom.atom.element != Element::HYDROGEN);
        }
        let best = (0..count).max_by_key(|&p| (heavy[p], std::cmp::Reverse(p))).unwrap_or(0);
        let mut parts: Vec<Draft> = (0..count).map(|_| Draft::default()).collect();
        let (mut place, mut kept) = (Vec::with_capacity(piece.len()), Vec::new());
        for (index, (atom, &p)) in self.atoms.into_iter().zip(&piece).enumerate() {
            place.push(parts[p].atoms.len());
            parts[p].atoms.push(atom);
            if p == best {
                kept.push(index);
            }
        }
        for (a, b, bond) in self.bonds {
            parts[piece[a]].bonds.push((place[a], place[b], bond));
        }
        let largest = parts.swap_remove(best);
        (largest, kept, parts)
    }

    /// For every atom the number of its piece, in the order of first atoms.
    fn pieces(&self) -> Vec<usize> {
        const NONE: usize = usize::MAX;
        let graph = Adjacency::new(self.atoms.len(), self.bonds.iter().map(|&(a, b, _)| (a, b)));
        let mut piece = vec![NONE; self.atoms.len()];
        let mut count = 0;
        for start in 0..piece.len() {
            if piece[start] != NONE {
                continue;
            }
            let mut stack = vec![start];
            piece[start] = count;
            while let Some(atom) = stack.pop() {
                for &(next, _) in graph.of(atom) {
                    if piece[next] == NONE {
                        piece[next] = count;
                        stack.push(next);
                    }
                }
            }
            count += 1;
        }
        piece
    }

    /// Whether the piece is a molecule.
    pub(super) fn can_be_read(self) -> bool {
        self.whole().is_ok()
    }

    /// Number of pieces.
    pub(super) fn piece_count(&self) -> usize {
        self.pieces().iter().max().map_or(0, |&last| last + 1)
    }
}

/// A fault at an atom of a piece, as one of the whole draft.
pub(super) fn at_whole(fault: Fault, kept: &[usize]) -> Fault {
    Fault { atom: kept.get(fault.atom).copied().unwrap_or(fault.atom), ..fault }
}
