//! What the tests of this crate share.

// Each test file uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use flow_graph::Molecule;

/// A file among the data sets: below `FLOW_DATA`, or `../shared/data` beside the workspace.
pub fn data(name: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let root = std::env::var_os("FLOW_DATA").map_or_else(|| workspace.join("../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: no {}; set FLOW_DATA to the folder of data sets", path.display());
    None
}

/// The lines of a compressed file of SMILES.
pub fn smiles(path: &Path) -> impl Iterator<Item = String> {
    let file = std::fs::File::open(path).unwrap();
    BufReader::new(flate2::read::GzDecoder::new(file)).lines().map(Result::unwrap)
}

/// How many molecules of a data set a test takes: all with `FLOW_FULL=1`.
pub fn limit(default: usize) -> usize {
    if std::env::var_os("FLOW_FULL").is_some_and(|v| v == "1") { usize::MAX } else { default }
}

/// Whether `copy` is `molecule` with its atoms in another order: atom `i` of the copy is `order[i]`.
pub fn is_copy(molecule: &Molecule, copy: &Molecule, order: &[usize]) -> bool {
    let bonds = |m: &Molecule, place: &dyn Fn(usize) -> usize| -> BTreeSet<_> {
        m.bonds().map(|(a, b, bond)| (place(a).min(place(b)), place(a).max(place(b)), bond)).collect()
    };
    order.len() == molecule.len()
        && copy.len() == molecule.len()
        && order.iter().zip(copy.atoms()).all(|(&i, atom)| molecule.atom(i) == Some(atom))
        && bonds(molecule, &|i| i) == bonds(copy, &|i| order[i])
}

/// A generator of numbers for tests (SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    /// The numbers below `count` in random order.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}
