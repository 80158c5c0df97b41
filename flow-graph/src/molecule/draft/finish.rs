//! From a draft to a molecule: hydrogens joined, charges separated, bonds made plain, valences checked.

use crate::molecule::{Bond, Element, Molecule, implied_hydrogens, normal_valences};

use super::components::{Keep, Pieces, at_whole};
use super::kekulize::kekulize;
use super::parts::{Draft, DraftAtom, DraftBond, Fault, Hydrogens, exceeded};

/// A molecule and where its atoms stood in the draft.
pub(crate) struct Finished {
    pub(crate) molecule: Molecule,
    /// For every atom of the molecule its index in the draft.
    pub(crate) kept: Vec<usize>,
    /// Hydrogens written as atoms that have been merged.
    pub(crate) hydrogens: usize,
    /// What became of the pieces of the draft.
    pub(crate) pieces: Pieces,
}

impl Draft {
    /// The molecule, checked; of several pieces those to be kept.
    ///
    /// A piece that is set aside need not be a molecule: it is counted.
    pub(crate) fn finish(self, keep: Keep) -> Result<Finished, Fault> {
        if keep == Keep::All {
            let (count, written) = (self.piece_count(), self.atoms.len());
            let (molecule, kept) = self.whole()?;
            let hydrogens = written - kept.len();
            return Ok(Finished { molecule, kept, hydrogens, pieces: Pieces { count, unreadable: 0 } });
        }
        let (largest, places, others) = self.largest();
        let (molecule, kept) = largest.whole().map_err(|fault| at_whole(fault, &places))?;
        let hydrogens = places.len() - kept.len();
        let kept = kept.into_iter().map(|atom| places[atom]).collect();
        let count = others.len() + 1;
        let unreadable = others.into_iter().map(Draft::can_be_read).filter(|read| !read).count();
        Ok(Finished { molecule, kept, hydrogens, pieces: Pieces { count, unreadable } })
    }

    /// The molecule of the whole draft, and where its atoms stood.
    pub(super) fn whole(mut self) -> Result<(Molecule, Vec<usize>), Fault> {
        let kept = self.merge_hydrogens();
        self.separate_charges();
        self.settle().map_err(|fault| Fault { atom: kept[fault.atom], ..fault })?;
        let mut molecule = Molecule::new();
        for draft in &self.atoms {
            molecule.add_atom(draft.atom);
        }
        for &(a, b, bond) in &self.bonds {
            // Readers let neither loops nor double entries in; were one here, this names it.
            let added = molecule.add_bond(a, b, bond.order());
            added.map_err(|e| Fault { atom: kept[a.max(b)], reason: e.to_string() })?;
        }
        Ok((molecule, kept))
    }

    fn settle(&mut self) -> Result<(), Fault> {
        kekulize(self)?;
        let mut used = vec![0u8; self.atoms.len()];
        for &(a, b, bond) in &self.bonds {
            for end in [a, b] {
                used[end] = used[end].saturating_add(bond.order().order());
            }
        }
        for (index, (draft, &used)) in self.atoms.iter().zip(&used).enumerate() {
            draft.check(used).map_err(|reason| Fault { atom: index, reason })?;
        }
        Ok(())
    }

    /// Turns atoms `[H]` on one heavy atom into a number there; returns which atoms are left.
    fn merge_hydrogens(&mut self) -> Vec<usize> {
        let count = self.atoms.len();
        if !self.atoms.iter().any(DraftAtom::is_hydrogen) {
            return (0..count).collect();
        }
        let mut degree = vec![0usize; count];
        for &(a, b, _) in &self.bonds {
            degree[a] += 1;
            degree[b] += 1;
        }
        let mut gone = vec![false; count];
        for &(a, b, bond) in &self.bonds {
            for (hydrogen, heavy) in [(a, b), (b, a)] {
                let is_one = self.atoms[hydrogen].is_hydrogen() && degree[hydrogen] == 1;
                let on_heavy = self.atoms[heavy].atom.element != Element::HYDROGEN;
                if is_one && on_heavy && bond == DraftBond::Plain(Bond::Single) {
                    gone[hydrogen] = true;
                    self.atoms[heavy].merged = self.atoms[heavy].merged.saturating_add(1);
                }
            }
        }
        let kept: Vec<usize> = (0..count).filter(|&i| !gone[i]).collect();
        let mut place = vec![0; count];
        for (new, &old) in kept.iter().enumerate() {
            place[old] = new;
        }
        self.bonds.retain(|&(a, b, _)| !gone[a] && !gone[b]);
        for (a, b, _) in &mut self.bonds {
            (*a, *b) = (place[*a], place[*b]);
        }
        let mut index = 0;
        self.atoms.retain(|_| {
            index += 1;
            !gone[index - 1]
        });
        kept
    }
}

impl DraftAtom {
    /// Whether the hydrogens that were written are those that a [`Molecule`] implies.
    fn check(&self, used: u8) -> Result<(), String> {
        let atom = self.atom;
        let implied = implied_hydrogens(atom, used).ok_or_else(|| exceeded(atom, used))?;
        let stated = match self.hydrogens {
            Hydrogens::Written(count) => count.saturating_add(self.merged),
            Hydrogens::Filled | Hydrogens::Unsaid => {
                let all = used.saturating_add(self.merged);
                let more = implied_hydrogens(atom, all).ok_or_else(|| exceeded(atom, all))?;
                more.saturating_add(self.merged)
            }
        };
        if stated == implied {
            return Ok(());
        }
        if normal_valences(atom).is_empty() {
            return Err(format!("{atom} is read without bonds and hydrogens only, it is written with {stated} H"));
        }
        Err(format!("{atom} is written with {stated} H where its bonds imply {implied}; radicals are not read"))
    }
}
