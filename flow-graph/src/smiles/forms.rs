//! The Kekulé forms of a molecule, and its symmetry.

use std::collections::BTreeMap;

use flow_core::FlowRng;

use super::canonical::View;
use crate::molecule::{Atom, Bond, Molecule};

/// Forms of one aromatic system that are listed; of one with more only the canonical form is known here.
///
/// The fullerene C₆₀ has 12,500.
const MOST_FORMS: usize = 20_000;

/// Pairs that are tried in listing them.
const MOST_TRIALS: usize = 1_000_000;

/// All Kekulé forms of a connected molecule on one numbering of its atoms, the canonical one.
///
/// Nothing here depends on the order of the atoms or on the form in which the molecule was given: equal molecules have
/// equal [`Forms`].
///
/// ```
/// use flow_graph::smiles::{self, Forms};
///
/// let naphthalene = Forms::of(&smiles::parse("c1ccc2ccccc2c1")?);
/// assert_eq!((naphthalene.count(), naphthalene.symmetries().round()), (3.0, 4.0));
/// # Ok::<(), flow_graph::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Forms {
    canonical: Molecule,
    atoms: Vec<Atom>,
    bonds: Vec<(usize, usize, Bond)>,
    systems: Vec<System>,
    complete: bool,
    log_symmetries: f64,
}

/// Bonds that vary together.
#[derive(Debug, Clone)]
struct System {
    /// The bonds that vary, by index.
    varying: Vec<usize>,
    /// For every form those of them that are double.
    forms: Vec<Vec<usize>>,
}

impl Forms {
    /// Lists the forms of a molecule.
    pub fn of(molecule: &Molecule) -> Self {
        let view = View::of(molecule);
        let ranks = view.ranks();
        let form = view.form(&ranks);
        let mut atoms = vec![Atom::neutral(crate::Element::CARBON); ranks.len()];
        form.atoms().zip(&ranks).for_each(|(atom, &rank)| atoms[rank] = atom);
        let varies = view.varying();
        let bond = |((a, b, bond), varies)| {
            let (a, b): (usize, usize) = (ranks[a], ranks[b]);
            (a.min(b), a.max(b), bond, varies)
        };
        let mut numbered: Vec<(usize, usize, Bond, bool)> = form.bonds().zip(varies).map(bond).collect();
        numbered.sort_unstable();
        let bonds: Vec<_> = numbered.iter().map(|&(a, b, bond, _)| (a, b, bond)).collect();
        let varying: Vec<usize> = (0..bonds.len()).filter(|&edge| numbered[edge].3).collect();
        let (systems, complete) = systems(&bonds, &varying);
        // The same pairs of atoms as before, so there is nothing to refuse.
        let canonical = Molecule::from_parts(&atoms, &bonds).unwrap_or_else(|_| molecule.clone());
        Forms { canonical, atoms, bonds, systems, complete, log_symmetries: view.log_symmetries() }
    }

    /// The canonical form, its atoms by canonical rank.
    pub fn canonical(&self) -> &Molecule {
        &self.canonical
    }

    /// Number of forms that [`Forms::draw`] draws from.
    pub fn count(&self) -> f64 {
        self.systems.iter().map(|system| system.forms.len() as f64).product()
    }

    /// Whether these are all: of an aromatic system with more than 20,000 only the canonical one is known.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Number of symmetries: permutations of the atoms that keep every atom's element, charge and hydrogens, and every
    /// bond, where bonds that differ between forms count as one kind.
    pub fn symmetries(&self) -> f64 {
        self.log_symmetries.exp()
    }

    /// The logarithm of [`Forms::symmetries`].
    pub fn log_symmetries(&self) -> f64 {
        self.log_symmetries
    }

    /// One of the forms, each as likely as any other, its atoms by canonical rank.
    pub fn draw(&self, rng: &mut FlowRng) -> Molecule {
        let mut bonds = self.bonds.clone();
        for system in self.systems.iter().filter(|system| system.forms.len() > 1) {
            let form = &system.forms[rng.below(system.forms.len())];
            system.varying.iter().for_each(|&edge| bonds[edge].2 = Bond::Single);
            form.iter().for_each(|&edge| bonds[edge].2 = Bond::Double);
        }
        Molecule::from_parts(&self.atoms, &bonds).unwrap_or_else(|_| self.canonical.clone())
    }
}

/// The aromatic systems with their forms, and whether all of them were listed.
fn systems(bonds: &[(usize, usize, Bond)], varying: &[usize]) -> (Vec<System>, bool) {
    let mut complete = true;
    let list = |edges: Vec<usize>| {
        let forms = Listing::of(bonds, &edges).unwrap_or_else(|| {
            complete = false;
            vec![edges.iter().copied().filter(|&edge| bonds[edge].2 == Bond::Double).collect()]
        });
        System { varying: edges, forms }
    };
    let systems = connected(bonds, varying).into_iter().map(list).collect();
    (systems, complete)
}

/// The bonds that vary, in groups of those that hang together.
fn connected(bonds: &[(usize, usize, Bond)], varying: &[usize]) -> Vec<Vec<usize>> {
    let mut root: BTreeMap<usize, usize> = BTreeMap::new();
    let find = |root: &BTreeMap<usize, usize>, mut atom: usize| {
        while let Some(&above) = root.get(&atom).filter(|&&above| above != atom) {
            atom = above;
        }
        atom
    };
    for &edge in varying {
        let (a, b) = (find(&root, bonds[edge].0), find(&root, bonds[edge].1));
        root.insert(a.max(b), a.min(b));
        root.entry(a.min(b)).or_insert(a.min(b));
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &edge in varying {
        groups.entry(find(&root, bonds[edge].0)).or_default().push(edge);
    }
    groups.into_values().collect()
}

/// A search for all perfect matchings.
struct Listing {
    /// For every atom of the system its bonds as (atom, bond).
    neighbours: Vec<Vec<(usize, usize)>>,
    taken: Vec<bool>,
    chosen: Vec<usize>,
    forms: Vec<Vec<usize>>,
    trials: usize,
}

impl Listing {
    /// The perfect matchings of a system, `None` if there are too many.
    fn of(bonds: &[(usize, usize, Bond)], edges: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut place = BTreeMap::new();
        for &edge in edges {
            for end in [bonds[edge].0, bonds[edge].1] {
                let next = place.len();
                place.entry(end).or_insert(next);
            }
        }
        let mut neighbours = vec![Vec::new(); place.len()];
        for &edge in edges {
            let (a, b) = (place[&bonds[edge].0], place[&bonds[edge].1]);
            neighbours[a].push((b, edge));
            neighbours[b].push((a, edge));
        }
        let taken = vec![false; neighbours.len()];
        let mut listing = Listing { neighbours, taken, chosen: Vec::new(), forms: Vec::new(), trials: 0 };
        listing.extend(0).then_some(listing.forms)
    }

    /// Matches the atoms from one on; returns whether the limits were kept.
    fn extend(&mut self, from: usize) -> bool {
        let Some(atom) = (from..self.taken.len()).find(|&atom| !self.taken[atom]) else {
            self.forms.push(self.chosen.clone());
            return self.forms.len() <= MOST_FORMS;
        };
        self.taken[atom] = true;
        for index in 0..self.neighbours[atom].len() {
            let (other, edge) = self.neighbours[atom][index];
            if self.taken[other] {
                continue;
            }
            self.trials += 1;
            self.taken[other] = true;
            self.chosen.push(edge);
            if self.trials > MOST_TRIALS || !self.extend(atom + 1) {
                return false;
            }
            self.chosen.pop();
            self.taken[other] = false;
        }
        self.taken[atom] = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::smiles::{canonical, parse, write};

    /// Kekulé structures of textbooks, orders of point groups (with the permutations of equal groups on one atom).
    #[test]
    fn known_numbers_of_forms_and_symmetries() {
        for (smiles, forms, symmetries) in [
            ("C", 1.0, 1.0),
            ("CO", 1.0, 1.0),
            ("CC", 1.0, 2.0),
            ("CC(C)(C)C", 1.0, 24.0),
            ("C1CC1", 1.0, 6.0),
            ("C12C3C4C1C5C2C3C45", 1.0, 48.0),
            ("c1ccccc1", 2.0, 12.0),
            ("Cc1ccccc1", 2.0, 2.0),
            ("CC(=O)Oc1ccccc1C(=O)O", 2.0, 1.0),
            ("c1ccc(cc1)c1ccccc1", 4.0, 8.0),
            ("c1ccc2cc3ccccc3cc2c1", 4.0, 4.0),
            ("c1ccc2c(c1)ccc1ccccc12", 5.0, 2.0),
            ("c1cc2ccc3ccc4ccc5ccc6ccc1c1c2c3c4c5c61", 20.0, 12.0),
            ("c1ccsc1", 1.0, 2.0),
            ("C1=CC=CS(=O)(C)=C1", 2.0, 2.0),
            ("FC(F)(F)C(F)(F)F", 1.0, 72.0),
            ("[O-][N+](=O)c1ccccc1", 2.0, 2.0),
        ] {
            let found = Forms::of(&parse(smiles).unwrap());
            assert_eq!((found.count(), found.symmetries().round()), (forms, symmetries), "{smiles}");
            assert!(found.is_complete());
        }
    }

    #[test]
    fn every_form_is_drawn_and_is_the_molecule() {
        let molecule = parse("c1ccc2cc3ccccc3cc2c1").unwrap();
        let (forms, mut rng) = (Forms::of(&molecule), FlowRng::seed_from(2));
        let drawn: HashSet<String> = (0..200).map(|_| write(&forms.draw(&mut rng))).collect();
        assert_eq!(drawn.len(), 4);
        assert!(drawn.iter().all(|form| canonical(&parse(form).unwrap()) == canonical(&molecule)));
    }

    #[test]
    fn forms_do_not_depend_on_how_the_molecule_is_written() {
        for pair in [
            ["CC(=O)OC1=CC=CC=C1C(=O)O", "CC(=O)OC1=C(C(=O)O)C=CC=C1"],
            ["c1cc2sc1CCCCCC2", "C1CCCCCC2=CC=C1S2"],
            ["CN1C=NC2=C1C(=O)N(C)C(=O)N2C", "Cn1c(=O)n(C)c(=O)c2c1ncn2C"],
            ["OC1=CC=C(F)C=C1", "C1=C(O)C=CC(F)=C1"],
        ] {
            let [a, b] = pair.map(|s| Forms::of(&parse(s).unwrap()));
            assert_eq!((write(a.canonical()), a.count()), (write(b.canonical()), b.count()), "{pair:?}");
            let draw = |forms: &Forms| write(&forms.draw(&mut FlowRng::seed_from(7)));
            assert_eq!((draw(&a), a.log_symmetries()), (draw(&b), b.log_symmetries()), "{pair:?}");
        }
    }

    /// Hexagons in a zigzag: their forms are the Fibonacci numbers, of 24 hexagons 121,393.
    #[test]
    fn of_a_system_with_too_many_forms_the_canonical_one_is_left() {
        let (mut corners, mut bonds) = (Vec::<(i64, i64)>::new(), Vec::new());
        for hexagon in 0..24i64 {
            // Centres on a grid of half bonds.
            let (q, r) = ((hexagon + 1) / 2, hexagon / 2);
            let centre = (2 * q + r, 3 * r);
            let ring = [(0, 2), (1, 1), (1, -1), (0, -2), (-1, -1), (-1, 1)].map(|(x, y)| {
                let corner = (centre.0 + x, centre.1 + y);
                corners.iter().position(|&known| known == corner).unwrap_or_else(|| {
                    corners.push(corner);
                    corners.len() - 1
                })
            });
            for i in 0..6 {
                let (a, b) = (ring[i].min(ring[(i + 1) % 6]), ring[i].max(ring[(i + 1) % 6]));
                if !bonds.contains(&(a, b)) {
                    bonds.push((a, b));
                }
            }
        }
        let mut block = format!("\n\n\n{:3}{:3}  0  0  0  0  0  0  0  0999 V2000\n", corners.len(), bonds.len());
        corners.iter().for_each(|_| block += "    0.0000    0.0000    0.0000 C   0  0\n");
        bonds.iter().for_each(|(a, b)| block += &format!("{:3}{:3}  4  0\n", a + 1, b + 1));
        let sheet = crate::sdf::parse_molblock(&block).unwrap().molecule;
        let forms = Forms::of(&sheet);
        assert!(!forms.is_complete() && forms.count() == 1.0);
        assert_eq!(write(&forms.draw(&mut FlowRng::seed_from(1))), write(forms.canonical()));
    }
}
