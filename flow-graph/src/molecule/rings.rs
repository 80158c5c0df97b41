//! The smallest ring through each bond.

use std::collections::VecDeque;

use super::Molecule;

/// For every bond the size of the smallest ring that it is part of, `None` where it is in none.
pub(crate) fn smallest_rings(molecule: &Molecule) -> Vec<Option<usize>> {
    let neighbours: Vec<Vec<usize>> = (0..molecule.len())
        .map(|atom| molecule.neighbours(atom).into_iter().map(|(other, _)| other).collect())
        .collect();
    molecule.bonds().map(|(a, b, _)| around(&neighbours, a, b).map(|length| length + 1)).collect()
}

/// The length of a shortest path from `a` to `b` beside their bond.
fn around(neighbours: &[Vec<usize>], a: usize, b: usize) -> Option<usize> {
    let mut distance = vec![usize::MAX; neighbours.len()];
    distance[a] = 0;
    let mut queue = VecDeque::from([a]);
    while let Some(atom) = queue.pop_front() {
        for &next in &neighbours[atom] {
            if distance[next] < usize::MAX || (atom == a && next == b) {
                continue;
            }
            distance[next] = distance[atom] + 1;
            if next == b {
                return Some(distance[next]);
            }
            queue.push_back(next);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smiles::parse;

    #[test]
    fn rings_of_every_size_are_found() {
        let rings = |smiles: &str| smallest_rings(&parse(smiles).unwrap());
        assert_eq!(rings("CC1CC1"), [None, Some(3), Some(3), Some(3)]);
        assert_eq!(rings("C1CCCC2CC12").iter().map(|r| r.unwrap()).max(), Some(6));
        // The chain across thiophene closes a ring of nine, over the sulfur.
        let mut bridged = rings("c1cc2sc1CCCCCC2");
        bridged.sort_unstable();
        assert_eq!(bridged, [[Some(5); 5].as_slice(), &[Some(9); 7]].concat());
    }
}
