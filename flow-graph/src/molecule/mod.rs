//! Molecules as graphs of heavy atoms with Kekulé bonds.

pub(crate) mod draft;
mod element;
mod rings;
mod valence;

use petgraph::graph::{NodeIndex, UnGraph};
use petgraph::visit::EdgeRef;
use serde::{Deserialize, Serialize};

pub use element::Element;
pub(crate) use rings::smallest_rings;
pub use valence::{implied_hydrogens, largest_valence, normal_valences};

use crate::{Error, Result};

/// A heavy atom. Its hydrogens follow from its bonds, see [`implied_hydrogens`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Atom {
    /// The element.
    pub element: Element,
    /// The formal charge.
    pub charge: i8,
}

impl Atom {
    /// An uncharged atom.
    pub fn neutral(element: Element) -> Self {
        Atom { element, charge: 0 }
    }
}

/// `N+`, `O-`, `C`, `Fe+2`.
impl std::fmt::Display for Atom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.element.symbol())?;
        match self.charge {
            0 => Ok(()),
            1 => f.write_str("+"),
            -1 => f.write_str("-"),
            charge => write!(f, "{charge:+}"),
        }
    }
}

/// A Kekulé bond; aromatic bonds are single and double ones here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bond {
    /// Order 1.
    Single,
    /// Order 2.
    Double,
    /// Order 3.
    Triple,
}

impl Bond {
    /// All bonds, by rising order.
    pub const ALL: [Bond; 3] = [Bond::Single, Bond::Double, Bond::Triple];

    /// The order: 1, 2 or 3.
    pub fn order(self) -> u8 {
        self as u8 + 1
    }
}

/// A molecular graph: heavy atoms, Kekulé bonds, no stereo, no isotopes.
///
/// The graph has neither loops nor parallel bonds; it may be disconnected (salts).
#[derive(Debug, Clone, Default)]
pub struct Molecule {
    graph: UnGraph<Atom, Bond>,
}

impl Molecule {
    /// A molecule without atoms.
    pub fn new() -> Self {
        Self::default()
    }

    /// A molecule from its atoms and its bonds between atom indices.
    ///
    /// # Errors
    /// [`Error::Chemistry`] for an index out of range, a loop, or a second bond between two atoms.
    pub fn from_parts(atoms: &[Atom], bonds: &[(usize, usize, Bond)]) -> Result<Self> {
        let mut molecule = Molecule::new();
        for &atom in atoms {
            molecule.add_atom(atom);
        }
        bonds.iter().try_for_each(|&(a, b, bond)| molecule.add_bond(a, b, bond))?;
        Ok(molecule)
    }

    /// The graph, for petgraph's algorithms.
    pub fn graph(&self) -> &UnGraph<Atom, Bond> {
        &self.graph
    }

    /// Adds an atom and returns its index.
    pub fn add_atom(&mut self, atom: Atom) -> usize {
        self.graph.add_node(atom).index()
    }

    /// Adds a bond.
    ///
    /// # Errors
    /// [`Error::Chemistry`] for an index out of range, a loop, or a second bond between two atoms.
    pub fn add_bond(&mut self, a: usize, b: usize, bond: Bond) -> Result<()> {
        if a.max(b) >= self.len() {
            return Err(Error::Chemistry(format!("a bond to atom {} of {}", a.max(b) + 1, self.len())));
        }
        if a == b {
            return Err(Error::Chemistry(format!("atom {} is bonded to itself", a + 1)));
        }
        let (a, b) = (NodeIndex::new(a), NodeIndex::new(b));
        if self.graph.contains_edge(a, b) {
            return Err(Error::Chemistry(format!("two bonds between atoms {} and {}", a.index() + 1, b.index() + 1)));
        }
        self.graph.add_edge(a, b, bond);
        Ok(())
    }

    /// Removes the atom added last, with its bonds.
    pub fn pop_atom(&mut self) -> Option<Atom> {
        let last = self.len().checked_sub(1)?;
        self.graph.remove_node(NodeIndex::new(last))
    }

    /// Number of heavy atoms.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether there is no atom.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The atoms in the order of their indices.
    pub fn atoms(&self) -> impl ExactSizeIterator<Item = Atom> + '_ {
        self.graph.node_weights().copied().collect::<Vec<_>>().into_iter()
    }

    /// One atom, `None` out of range.
    pub fn atom(&self, index: usize) -> Option<Atom> {
        self.graph.node_weight(NodeIndex::new(index)).copied()
    }

    /// The bonds with their atoms, in the order of insertion.
    pub fn bonds(&self) -> impl Iterator<Item = (usize, usize, Bond)> + '_ {
        self.graph.edge_references().map(|e| (e.source().index(), e.target().index(), *e.weight()))
    }

    /// Number of bonds.
    pub fn bond_count(&self) -> usize {
        self.graph.edge_count()
    }

    /// The bond between two atoms.
    pub fn bond_between(&self, a: usize, b: usize) -> Option<Bond> {
        let edge = self.graph.find_edge(NodeIndex::new(a), NodeIndex::new(b))?;
        self.graph.edge_weight(edge).copied()
    }

    /// The neighbours of an atom by rising index, with the bonds to them.
    pub fn neighbours(&self, index: usize) -> Vec<(usize, Bond)> {
        let mut found: Vec<_> = self
            .graph
            .edges(NodeIndex::new(index))
            .map(|e| {
                let other = if e.source().index() == index { e.target() } else { e.source() };
                (other.index(), *e.weight())
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// The sum of the orders of an atom's bonds.
    pub fn bond_order_sum(&self, index: usize) -> u8 {
        self.graph.edges(NodeIndex::new(index)).fold(0u8, |sum, e| sum.saturating_add(e.weight().order()))
    }

    /// Hydrogens on an atom, `None` when its bonds exceed its valence (or it is out of range).
    pub fn hydrogens(&self, index: usize) -> Option<u8> {
        implied_hydrogens(self.atom(index)?, self.bond_order_sum(index))
    }

    /// Whether every atom keeps its valence.
    ///
    /// # Errors
    /// [`Error::Chemistry`] naming the first atom that does not.
    pub fn check_valences(&self) -> Result<()> {
        for (index, atom) in self.atoms().enumerate() {
            let used = self.bond_order_sum(index);
            if implied_hydrogens(atom, used).is_none() {
                let most = largest_valence(atom);
                return Err(Error::Chemistry(format!(
                    "atom {} ({atom}) has {used} bonds, at most {most} fit",
                    index + 1
                )));
            }
        }
        Ok(())
    }

    /// For every atom the number of its connected component, counted in the order of first atoms.
    pub fn components(&self) -> Vec<usize> {
        let mut component = vec![usize::MAX; self.len()];
        let mut count = 0;
        for start in 0..self.len() {
            if component[start] != usize::MAX {
                continue;
            }
            let mut stack = vec![start];
            component[start] = count;
            while let Some(atom) = stack.pop() {
                for (next, _) in self.neighbours(atom) {
                    if component[next] == usize::MAX {
                        component[next] = count;
                        stack.push(next);
                    }
                }
            }
            count += 1;
        }
        component
    }

    /// Whether all atoms hang together; a molecule without atoms does.
    pub fn is_connected(&self) -> bool {
        self.components().iter().all(|&c| c == 0)
    }

    /// The component with most atoms, the first of several.
    ///
    /// Answers a copy of the whole molecule when it is connected.
    #[must_use]
    pub fn largest_component(&self) -> Molecule {
        let component = self.components();
        let count = component.iter().max().map_or(0, |&c| c + 1);
        let mut sizes = vec![0usize; count];
        component.iter().for_each(|&c| sizes[c] += 1);
        let Some(best) = (0..count).max_by_key(|&c| (sizes[c], std::cmp::Reverse(c))) else { return self.clone() };
        self.induced(&(0..self.len()).filter(|&i| component[i] == best).collect::<Vec<_>>())
    }

    /// The molecule of some atoms, in the order given, with the bonds among them.
    ///
    /// Indices out of range and repeated ones are passed over.
    #[must_use]
    pub fn induced(&self, atoms: &[usize]) -> Molecule {
        let mut place = vec![usize::MAX; self.len()];
        let mut molecule = Molecule::new();
        for &old in atoms {
            if let (Some(atom), Some(&usize::MAX)) = (self.atom(old), place.get(old)) {
                place[old] = molecule.add_atom(atom);
            }
        }
        for (a, b, bond) in self.bonds() {
            if place[a] != usize::MAX && place[b] != usize::MAX {
                molecule.graph.add_edge(NodeIndex::new(place[a]), NodeIndex::new(place[b]), bond);
            }
        }
        molecule
    }

    /// Number of independent cycles: `bonds − atoms + components`.
    pub fn ring_count(&self) -> usize {
        let components = self.components().iter().max().map_or(0, |&c| c + 1);
        (self.bond_count() + components).saturating_sub(self.len())
    }
}

#[cfg(test)]
mod tests;
