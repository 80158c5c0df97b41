//! Uncharged spellings of nitrogen and of halogens, written with charges.
//!
//! OpenSMILES allows both forms; QM9, old files and drawing programs use the former. The rules are those of RDKit's
//! clean-up, so that a molecule is one graph however it was written.

use crate::molecule::{Atom, Bond, Element};

use super::parts::{Draft, DraftBond};

const OXYGEN: Atom = Atom { element: Element::OXYGEN, charge: 0 };

impl Draft {
    /// Separates the charges of both.
    pub(super) fn separate_charges(&mut self) {
        self.separate_nitrogen();
        self.separate_halogens();
    }

    /// For every atom the sum of its bond orders, aromatic bonds counted as single, and the number of its bonds.
    fn bonding(&self) -> (Vec<u8>, Vec<usize>) {
        let count = self.atoms.len();
        let (mut used, mut degree) = (vec![0u8; count], vec![0usize; count]);
        for &(a, b, bond) in &self.bonds {
            for end in [a, b] {
                used[end] = used[end].saturating_add(bond.order().order());
                degree[end] += 1;
            }
        }
        (used, degree)
    }

    /// Writes nitrogen of valence five, as in `N(=O)=O` and `N=N#N`, with charges: `[N+](=O)[O-]`, `N=[N+]=[N-]`.
    fn separate_nitrogen(&mut self) {
        let neutral = |atom: usize| self.atoms[atom].atom == Atom::neutral(Element::NITROGEN);
        let multiple = |bond| matches!(bond, DraftBond::Plain(Bond::Double | Bond::Triple));
        if !self.bonds.iter().any(|&(a, b, bond)| multiple(bond) && (neutral(a) || neutral(b))) {
            return;
        }
        let (mut used, degree) = self.bonding();
        for (a, b, bond) in &mut self.bonds {
            for (nitrogen, end) in [(*a, *b), (*b, *a)] {
                let (centre, terminal) = (&self.atoms[nitrogen], &self.atoms[end]);
                // The ring of an aromatic nitrogen holds one more bond than is counted so far.
                let total =
                    used[nitrogen].saturating_add(centre.hydrogen_atoms()).saturating_add(u8::from(centre.aromatic));
                let is_centre = centre.atom == Atom::neutral(Element::NITROGEN) && total == 5;
                let is_end = degree[end] == 1 && terminal.hydrogen_atoms() == 0;
                let less = match (*bond, terminal.atom) {
                    (DraftBond::Plain(Bond::Double), Atom { element: Element::OXYGEN, charge: 0 }) => Bond::Single,
                    (DraftBond::Plain(Bond::Triple), Atom { element: Element::NITROGEN, charge: 0 }) => Bond::Double,
                    _ => continue,
                };
                if is_centre && is_end {
                    *bond = DraftBond::Plain(less);
                    used[nitrogen] -= 1;
                    self.atoms[nitrogen].atom.charge = 1;
                    self.atoms[end].atom.charge = -1;
                }
            }
        }
    }

    /// Writes chlorine, bromine and iodine of valence three, five or seven among oxygens alone with charges:
    /// `OCl(=O)(=O)=O` as `O[Cl+3]([O-])([O-])[O-]`, `OI(=O)=O` as `O[I+2]([O-])[O-]`.
    fn separate_halogens(&mut self) {
        let neutral = |atom: Atom| {
            atom.charge == 0 && matches!(atom.element, Element::CHLORINE | Element::BROMINE | Element::IODINE)
        };
        let double = DraftBond::Plain(Bond::Double);
        if !self
            .bonds
            .iter()
            .any(|&(a, b, bond)| bond == double && (neutral(self.atoms[a].atom) || neutral(self.atoms[b].atom)))
        {
            return;
        }
        let (used, _) = self.bonding();
        let mut only_oxygens = vec![true; self.atoms.len()];
        for &(a, b, _) in &self.bonds {
            for (centre, end) in [(a, b), (b, a)] {
                only_oxygens[centre] &= self.atoms[end].atom.element == Element::OXYGEN;
            }
        }
        let centre = |draft: &Draft, atom: usize| {
            only_oxygens[atom] && matches!(used[atom], 3 | 5 | 7) && neutral(draft.atoms[atom].atom)
        };
        let centres: Vec<bool> = (0..self.atoms.len()).map(|atom| centre(self, atom)).collect();
        for (a, b, bond) in &mut self.bonds {
            for (halogen, end) in [(*a, *b), (*b, *a)] {
                if centres[halogen] && *bond == double && self.atoms[end].atom == OXYGEN {
                    *bond = DraftBond::Plain(Bond::Single);
                    self.atoms[halogen].atom.charge += 1;
                    self.atoms[end].atom.charge = -1;
                }
            }
        }
    }
}
