//! The elements.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const SYMBOLS: [&str; 118] = [
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca",
    "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",
    "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce",
    "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir",
    "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm",
    "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc",
    "Lv", "Ts", "Og",
];

/// A chemical element, by its atomic number; serialised as its symbol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element(u8);

impl Element {
    /// H.
    pub const HYDROGEN: Element = Element(1);
    /// B.
    pub const BORON: Element = Element(5);
    /// C.
    pub const CARBON: Element = Element(6);
    /// N.
    pub const NITROGEN: Element = Element(7);
    /// O.
    pub const OXYGEN: Element = Element(8);
    /// F.
    pub const FLUORINE: Element = Element(9);
    /// P.
    pub const PHOSPHORUS: Element = Element(15);
    /// S.
    pub const SULFUR: Element = Element(16);
    /// Cl.
    pub const CHLORINE: Element = Element(17);
    /// Br.
    pub const BROMINE: Element = Element(35);
    /// I.
    pub const IODINE: Element = Element(53);

    /// The element of an atomic number, `None` outside 1 … 118.
    pub fn from_number(number: u8) -> Option<Self> {
        (1..=118).contains(&number).then_some(Element(number))
    }

    /// The element of a symbol such as `Cl`.
    pub fn from_symbol(symbol: &str) -> Option<Self> {
        SYMBOLS.iter().position(|&s| s == symbol).map(|i| Element(i as u8 + 1))
    }

    /// The element of a symbol in any case: `CL`, `Br`, `na`.
    pub fn from_any_case(symbol: &str) -> Option<Self> {
        SYMBOLS.iter().position(|s| s.eq_ignore_ascii_case(symbol)).map(|i| Element(i as u8 + 1))
    }

    /// The atomic number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The symbol.
    pub fn symbol(self) -> &'static str {
        SYMBOLS[usize::from(self.0) - 1]
    }
}

impl std::fmt::Debug for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.symbol())
    }
}

impl Serialize for Element {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.symbol())
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let symbol = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Element::from_symbol(&symbol)
            .ok_or_else(|| serde::de::Error::custom(format!("'{symbol}' is not the symbol of an element")))
    }
}
