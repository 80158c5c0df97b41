//! Drawn molecules on their way between ranks, as numbers.

use flow_core::train::Ranks;

use super::task::bond;
use crate::model::Sequence;
use crate::{Error, Result};

/// A molecule as it was drawn, and its property.
pub(super) type Drawn = (Sequence, f64);

/// The molecules of all ranks, in the order of ranks.
pub(super) fn gather(ranks: &Ranks, own: Vec<Drawn>) -> Result<Vec<Drawn>> {
    if ranks.count() == 1 {
        return Ok(own);
    }
    let numbers: Vec<f64> = own.iter().flat_map(packed).collect();
    let mut rest = &ranks.gather(&numbers)?[..];
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (drawn, behind) = unpacked(rest).ok_or_else(garbled)?;
        all.push(drawn);
        rest = behind;
    }
    Ok(all)
}

/// Log-densities of all ranks, atoms and bonds of each chunk, in the order of ranks.
pub(super) fn gather_scores(ranks: &Ranks, own: Vec<(Vec<f32>, Vec<f32>)>) -> Result<Vec<(Vec<f32>, Vec<f32>)>> {
    if ranks.count() == 1 {
        return Ok(own);
    }
    let wide = |(atoms, bonds): &(Vec<f32>, Vec<f32>)| {
        let sizes = [atoms.len() as f64, bonds.len() as f64];
        sizes.into_iter().chain(atoms.iter().chain(bonds).map(|&x| f64::from(x))).collect::<Vec<f64>>()
    };
    let numbers: Vec<f64> = own.iter().flat_map(wide).collect();
    let mut rest = &ranks.gather(&numbers)?[..];
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (&[atoms, bonds], behind) = rest.split_first_chunk::<2>().ok_or_else(garbled)?;
        let narrow = |part: &[f64]| part.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let (of_atoms, behind) = behind.split_at_checked(atoms as usize).ok_or_else(garbled)?;
        let (of_bonds, behind) = behind.split_at_checked(bonds as usize).ok_or_else(garbled)?;
        all.push((narrow(of_atoms), narrow(of_bonds)));
        rest = behind;
    }
    Ok(all)
}

fn garbled() -> Error {
    Error::config("ranks", "sent molecules that cannot be read; do all run the same program?")
}

/// The property, the sizes, the atoms' codes, three numbers for each bond.
fn packed((sequence, property): &Drawn) -> Vec<f64> {
    let sizes = [*property, sequence.atoms.len() as f64, sequence.bonds.len() as f64];
    let atoms = sequence.atoms.iter().map(|&code| f64::from(code));
    let bonds = sequence.bonds.iter().flat_map(|b| [b.atom, b.to, b.bond.order()].map(f64::from));
    sizes.into_iter().chain(atoms).chain(bonds).collect()
}

fn unpacked(numbers: &[f64]) -> Option<(Drawn, &[f64])> {
    let (&[property, atoms, bonds], rest) = numbers.split_first_chunk::<3>()?;
    let (atoms, rest) = rest.split_at_checked(atoms as usize)?;
    let (bonds, rest) = rest.split_at_checked(3 * bonds as usize)?;
    let code = |&number: &f64| number as u8;
    let bonds = bonds.as_chunks::<3>().0.iter().map(|b| {
        let [atom, to, order] = b.each_ref().map(code);
        bond(&(atom, to, order))
    });
    let sequence = Sequence { atoms: atoms.iter().map(code).collect(), bonds: bonds.collect::<Option<_>>()? };
    Some(((sequence, property), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SequenceBond;
    use crate::molecule::Bond;
    use flow_core::testing::ThreadRanks;

    #[test]
    fn molecules_and_scores_of_all_ranks_arrive_in_order() {
        let drawn = |rank: usize| -> Vec<Drawn> {
            let bonds = (1..=rank as u8).map(|atom| SequenceBond { atom, to: atom - 1, bond: Bond::Double });
            let sequence = Sequence { atoms: (0..=rank as u8).collect(), bonds: bonds.collect() };
            vec![(sequence, if rank == 2 { f64::NAN } else { rank as f64 }); rank]
        };
        let scores = |rank: usize| vec![(vec![rank as f32; rank], vec![-0.5]); rank];
        let heard = ThreadRanks::run(4, |channel| {
            let ranks = Ranks::new(std::sync::Arc::new(channel));
            let all = gather(&ranks, drawn(ranks.rank())).unwrap();
            (all, gather_scores(&ranks, scores(ranks.rank())).unwrap())
        });
        for (molecules, found) in heard {
            let want: Vec<Drawn> = (0..4).flat_map(drawn).collect();
            assert_eq!(molecules.len(), want.len());
            for (got, want) in molecules.iter().zip(&want) {
                assert!(got.0 == want.0 && got.1.to_bits() == want.1.to_bits());
            }
            assert_eq!(found, (0..4).flat_map(scores).collect::<Vec<_>>());
        }
        assert!(unpacked(&[1.0, 3.0, 0.0, 1.0]).is_none() && unpacked(&[0.0, 0.0, 1.0, 1.0, 0.0, 9.0]).is_none());
    }
}
