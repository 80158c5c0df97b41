//! A small data set that needs no file.

use std::path::Path;

use super::lines::Lines;
use super::{Components, Loaded, text};
use crate::Result;

const LIST: &str = include_str!("builtin.smi");

/// The name that [`open`](super::open()) knows the list by.
pub const NAME: &str = "builtin";

/// Some 780 drugs, metabolites, natural products, flavours and agrochemicals with their names: 4 to 38
/// heavy atoms of C, N, O, F, P, S, Cl, Br and I, connected, without stereo.
///
/// Enough to try a model out; too few to learn chemistry from.
///
/// # Errors
/// None in practice: the list is part of the program.
pub fn builtin() -> Result<Loaded> {
    let mut loaded = Loaded { source: NAME.into(), ..Loaded::default() };
    let path = Path::new(NAME);
    text::read(Lines::new(LIST.as_bytes(), path), Components::Refuse, &mut loaded)?;
    loaded.or_refuse(path)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::smiles;

    #[test]
    fn the_list_is_what_it_says() {
        let loaded = builtin().unwrap();
        assert_eq!(loaded.bad, []);
        assert!((750..800).contains(&loaded.len()), "{}", loaded.len());
        let distinct: HashSet<_> = loaded.molecules.iter().map(|m| smiles::canonical(&m)).collect();
        assert_eq!(distinct.len(), loaded.len());
        assert_eq!(loaded.names.iter().collect::<HashSet<_>>().len(), loaded.len());
        for (index, molecule) in loaded.molecules.iter().enumerate() {
            let name = loaded.name(index).unwrap();
            assert!((4..=38).contains(&molecule.len()) && molecule.is_connected(), "{name}");
            molecule.check_valences().unwrap();
            let known = ["C", "N", "O", "F", "P", "S", "Cl", "Br", "I"];
            assert!(molecule.atoms().all(|atom| known.contains(&atom.element.symbol())), "{name}");
        }
        assert_eq!(loaded.dropped, smiles::Dropped::default());
    }
}
