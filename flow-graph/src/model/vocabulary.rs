//! Which atoms a model knows.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::molecule::{Atom, Element, Molecule};
use crate::{Error, Result};

/// The atom types of a model: (element, charge) pairs, most frequent first. A type's code is its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vocabulary(Vec<Atom>);

impl Vocabulary {
    /// More types than this are refused: codes are bytes and each type is a dimension of the flow.
    pub const LARGEST: usize = 64;

    /// A vocabulary of these types.
    ///
    /// # Errors
    /// [`Error::Core`] when there are none, too many, or one twice.
    pub fn new(types: Vec<Atom>) -> Result<Self> {
        if types.is_empty() || types.len() > Self::LARGEST {
            let reason = format!("{} atom types, 1 to {} are possible", types.len(), Self::LARGEST);
            return Err(Error::config("vocabulary", reason));
        }
        if let Some(twice) = types.iter().enumerate().find(|(i, t)| types[..*i].contains(t)) {
            return Err(Error::config("vocabulary", format!("{} is listed twice", twice.1)));
        }
        Ok(Vocabulary(types))
    }

    /// The types that occur in molecules, with their charges.
    ///
    /// # Errors
    /// As [`Vocabulary::new`].
    pub fn of<M: Borrow<Molecule>>(molecules: impl IntoIterator<Item = M>) -> Result<Self> {
        let mut counts = BTreeMap::new();
        for molecule in molecules {
            molecule.borrow().atoms().for_each(|atom| *counts.entry(atom).or_insert(0usize) += 1);
        }
        Self::by_frequency(counts)
    }

    /// The types of a table of counts, most frequent first; ties by element and charge.
    ///
    /// # Errors
    /// As [`Vocabulary::new`].
    pub fn by_frequency(counts: BTreeMap<Atom, usize>) -> Result<Self> {
        let mut types: Vec<(Atom, usize)> = counts.into_iter().collect();
        types.sort_by_key(|&(atom, count)| (std::cmp::Reverse(count), atom));
        Self::new(types.into_iter().map(|(atom, _)| atom).collect())
    }

    /// The nine uncharged elements of the paper, in its order: C N O F P S Cl Br I (section 5.1).
    pub fn paper() -> Self {
        use Element as E;
        let elements = [
            E::CARBON,
            E::NITROGEN,
            E::OXYGEN,
            E::FLUORINE,
            E::PHOSPHORUS,
            E::SULFUR,
            E::CHLORINE,
            E::BROMINE,
            E::IODINE,
        ];
        Vocabulary(elements.map(Atom::neutral).to_vec())
    }

    /// Number of types.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no types; never for a vocabulary that was made by a constructor.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All types, by code.
    pub fn types(&self) -> &[Atom] {
        &self.0
    }

    /// The type of a code.
    pub fn atom(&self, code: u8) -> Option<Atom> {
        self.0.get(usize::from(code)).copied()
    }

    /// The code of a type.
    pub fn code(&self, atom: Atom) -> Option<u8> {
        self.0.iter().position(|&t| t == atom).map(|i| i as u8)
    }

    /// Whether every type is uncharged: then molecules are stripped of their charges before they are read.
    pub fn is_neutral(&self) -> bool {
        self.0.iter().all(|t| t.charge == 0)
    }
}
