use std::collections::BTreeMap;

use flow_core::FlowRng;

use super::*;
use crate::model::prefix::Prefix;
use crate::model::tests::{configs, model, sequences};
use crate::model::{GraphAfConfig, Vocabulary};
use crate::molecule::{Atom, Element};

#[test]
fn molecules_come_back_from_their_latents() {
    for (i, config) in configs().iter().enumerate() {
        let model = model(config, 20 + i as u64);
        let batch = sequences(config, &[1, 2, 9, 8, 3, 9, 5, 7, 9, 4, 6, 9], 30 + i as u64);
        let latents = model.encode(&batch, &mut FlowRng::seed_from(7)).unwrap();
        assert_eq!(model.decode(&latents).unwrap(), batch, "config {i}");
    }
}

#[test]
fn samples_follow_the_likelihood() {
    // Few enough molecules that each turns up often: its frequency must be the exponential of its score.
    let types = vec![Atom::neutral(Element::CARBON), Atom::neutral(Element::OXYGEN)];
    let mut config = GraphAfConfig::spline(Vocabulary::new(types).unwrap(), 3);
    config.width = 8;
    config.head = Head::Categorical { hidden: vec![7] };
    let model = model(&config, 5);
    let draws = 60_000;
    let options = SampleOptions { valid: false, ..SampleOptions::default() };
    let mut counts: BTreeMap<_, (Sequence, usize)> = BTreeMap::new();
    for g in model.sample(draws, &options, &mut FlowRng::seed_from(3)).unwrap() {
        // What ends for want of a bond has lost its last atom, so its score is not that of the molecule.
        if g.end != End::Unconnected {
            let key = (g.sequence.atoms.to_vec(), g.sequence.bonds.to_vec());
            counts.entry(key).or_insert((g.sequence, 0)).1 += 1;
        }
    }
    let (seen, counts): (Vec<Sequence>, Vec<usize>) = counts.into_values().filter(|(_, n)| *n > 40).unzip();
    assert!(seen.len() > 20);
    let scored = model.log_prob(&seen, &mut FlowRng::seed_from(0)).unwrap();
    for (log_p, n) in scored.log_probs.iter().zip(counts) {
        let expected = log_p.exp() * draws as f64;
        assert!((n as f64 - expected).abs() < 5.0 * expected.sqrt() + 1.0, "{n} {expected}");
    }
}

#[test]
fn valid_samples_are_valid_and_connected_whatever_the_weights() {
    for (i, config) in configs().into_iter().enumerate() {
        let config = GraphAfConfig { max_atoms: 25, ..config };
        let model = model(&config, 40 + i as u64);
        for min_atoms in [1, 12] {
            let options = SampleOptions { min_atoms, temperature: 1.3, ..SampleOptions::default() };
            let drawn = model.sample(150, &options, &mut FlowRng::seed_from(1)).unwrap();
            for g in &drawn {
                let molecule = g.sequence.molecule(&config.vocabulary).unwrap();
                molecule.check_valences().unwrap();
                assert!(molecule.is_connected() && !molecule.is_empty());
                assert!(g.end != End::Broken && (g.end != End::Unconnected || config.stop == Stop::Unconnected));
            }
            // Only a molecule whose open atoms are all full may stop before the least size.
            let rules = Rules::new(&config, true, min_atoms);
            for g in drawn.iter().filter(|g| g.sequence.len() < min_atoms && config.stop == Stop::Class) {
                let mut prefix = Prefix::default();
                for atom in 0..g.sequence.len() {
                    prefix.add_atom(g.sequence.atoms[atom]);
                    g.sequence.bonds_of(atom).iter().for_each(|b| prefix.add_bond(usize::from(b.to), b.bond));
                }
                assert_eq!(rules.atoms(&prefix), 1 << config.vocabulary.len(), "config {i}");
            }
            // Every vocabulary here has an atom of two bonds.
            let short = drawn.iter().filter(|g| g.sequence.len() < min_atoms).count();
            assert_eq!(short, 0, "config {i}: {short} of {} do not reach {min_atoms}", drawn.len());
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_molecules_and_a_scaffold_is_kept() {
    let config = GraphAfConfig { max_atoms: 20, ..configs()[1].clone() };
    let model = model(&config, 8);
    let scaffold = sequences(&config, &[6], 2).remove(0);
    let options = SampleOptions { scaffold: Some(scaffold.clone()), valid: false, ..SampleOptions::default() };
    let draw = || model.sample(100, &options, &mut FlowRng::seed_from(4)).unwrap();
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (many, single) = (draw(), one.install(draw));
    for (a, b) in many.iter().zip(&single) {
        assert_eq!(a.sequence, b.sequence);
        assert_eq!(a.sequence.atoms[..6], scaffold.atoms[..]);
        let kept = a.sequence.bonds.iter().filter(|b| b.atom < 6).copied().collect::<Vec<_>>();
        assert_eq!(kept, scaffold.bonds.to_vec());
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let model = model(&configs()[1], 1);
    for options in [
        SampleOptions { temperature: -1.0, ..SampleOptions::default() },
        SampleOptions { temperature: f64::NAN, ..SampleOptions::default() },
        SampleOptions { max_atoms: Some(0), ..SampleOptions::default() },
    ] {
        assert!(model.sample(1, &options, &mut FlowRng::seed_from(0)).is_err());
    }
}

/// Two CF₃ groups on a carbon: in every breadth-first order it lies behind the frontier, and it has the only free valences.
#[test]
fn beginnings_with_free_valences_behind_the_frontier_grow() {
    let config = GraphAfConfig::spline(Vocabulary::paper(), 14);
    let config = GraphAfConfig { width: 8, layers: 2, head: Head::Categorical { hidden: vec![8] }, ..config };
    let (model, mut rng) = (model(&config, 3), FlowRng::seed_from(2));
    let beginning = Sequence::new(&crate::smiles::parse("FC(F)(F)CC(F)(F)F").unwrap(), &config.vocabulary).unwrap();
    let orders: Vec<Sequence> = (0..60).map(|_| beginning.shuffled(&mut rng)).collect();
    assert!(orders.iter().any(|order| !model.can_grow(order)));
    let options = SampleOptions { min_atoms: 12, ..SampleOptions::default() };
    let grown = model.grow(&orders.iter().map(Some).collect::<Vec<_>>(), &options, &mut rng).unwrap();
    for g in &grown {
        assert!(g.sequence.len() >= 12, "{:?}", g.sequence);
        g.sequence.molecule(&config.vocabulary).unwrap().check_valences().unwrap();
    }
    // Where no valence is free there is nothing to grow.
    let full = Sequence::new(&crate::smiles::parse("FC(F)(F)F").unwrap(), &config.vocabulary).unwrap();
    let drawn = model.grow(&[Some(&full)], &options, &mut rng).unwrap();
    assert_eq!(drawn[0].sequence.len(), 5);
}

/// Of fluorine and carbon, where every second atom would end the molecule.
#[test]
fn the_least_number_of_atoms_holds_where_valences_allow_it() {
    for config in [GraphAfConfig::spline(Vocabulary::paper(), 30), GraphAfConfig::paper(Vocabulary::paper(), 30)] {
        let head = match config.head {
            Head::Categorical { .. } => Head::Categorical { hidden: vec![8] },
            Head::Gaussian { .. } => Head::Gaussian { layers: 2, hidden: 8, noise: 0.9 },
        };
        let config = GraphAfConfig { width: 8, layers: 2, head, ..config };
        let model = model(&config, 11);
        for min_atoms in [2, 5, 20] {
            let options = SampleOptions { min_atoms, ..SampleOptions::default() };
            let drawn = model.sample(300, &options, &mut FlowRng::seed_from(3)).unwrap();
            assert!(drawn.iter().all(|g| g.sequence.len() >= min_atoms), "{min_atoms}");
        }
    }
}

#[test]
fn a_draw_in_which_an_atom_got_no_bond_is_no_molecule() {
    let config = &configs()[1];
    let model = model(config, 4);
    let options = SampleOptions { valid: false, ..SampleOptions::default() };
    let drawn = model.sample(400, &options, &mut FlowRng::seed_from(5)).unwrap();
    let broken = drawn.iter().filter(|g| g.end == End::Broken).count();
    assert!(broken > 20, "{broken}");
    for g in &drawn {
        assert_eq!(g.molecule(&config.vocabulary).unwrap().is_none(), g.end == End::Broken);
    }
}
