use candle_core::{DType, Device, Tensor};
use flow_core::{FlowRng, Gradients, ParamStore};

use super::pass::{DecisionValues, Noise, noise_lengths, score};
use super::prefix::Prefix;
use super::*;
use crate::molecule::{Atom, Bond, Element, Molecule};

/// A connected graph of random atoms and bonds, a tree with some rings; valences are of no concern to a model.
pub(super) fn random_graph(rng: &mut FlowRng, atoms: usize, vocabulary: &Vocabulary) -> Molecule {
    let mut molecule = Molecule::new();
    for i in 0..atoms {
        molecule.add_atom(vocabulary.types()[rng.below(vocabulary.len())]);
        if i > 0 {
            molecule.add_bond(rng.below(i), i, Bond::ALL[rng.below(3)]).unwrap();
        }
    }
    for _ in 0..atoms / 4 {
        let (a, b) = (rng.below(atoms), rng.below(atoms));
        let _ = molecule.add_bond(a, b, Bond::ALL[rng.below(3)]);
    }
    molecule
}

pub(super) fn sequences(config: &GraphAfConfig, sizes: &[usize], seed: u64) -> Vec<Sequence> {
    let mut rng = FlowRng::seed_from(seed);
    let mut one = |&n: &usize| {
        let molecule = random_graph(&mut rng, n, &config.vocabulary);
        Sequence::new(&molecule, &config.vocabulary).unwrap().shuffled(&mut rng)
    };
    sizes.iter().map(&mut one).collect()
}

fn small(mut config: GraphAfConfig) -> GraphAfConfig {
    config.width = 6;
    config.head = match config.head {
        Head::Gaussian { noise, .. } => Head::Gaussian { layers: 3, hidden: 5, noise },
        Head::Categorical { .. } => Head::Categorical { hidden: vec![7, 5] },
    };
    config
}

/// Every option, at a size where finite differences are exact.
pub(super) fn configs() -> Vec<GraphAfConfig> {
    let charged = [
        Atom::neutral(Element::CARBON),
        Atom { element: Element::NITROGEN, charge: 1 },
        Atom { element: Element::OXYGEN, charge: -1 },
    ];
    let charged = Vocabulary::new(charged.to_vec()).unwrap();
    let mut paper = small(GraphAfConfig::paper(Vocabulary::paper(), 9));
    paper.candidates = Candidates::Window(20);
    let spline = small(GraphAfConfig::spline(charged, 9));
    let mixed = GraphAfConfig { stop: Stop::Class, residual: true, candidates: Candidates::Frontier, ..paper.clone() };
    let plain = GraphAfConfig { features: Features::Type, geometry: Geometry::None, layers: 2, ..spline.clone() };
    let deep = GraphAfConfig { layers: 5, features: Features::State, ..mixed.clone() };
    vec![paper, spline, mixed, plain, deep]
}

/// A model whose parameters are all away from their special starts.
pub(super) fn model(config: &GraphAfConfig, seed: u64) -> GraphAf {
    let store = ParamStore::new(seed, DType::F64, &Device::Cpu);
    let model = GraphAf::new(config.clone(), &store).unwrap();
    let mut rng = FlowRng::seed_from(seed);
    for param in store.trainable() {
        let noise = rng.normal(param.var().shape(), DType::F64, &Device::Cpu).unwrap();
        param.set(&(param.tensor() + (noise * 0.2).unwrap()).unwrap()).unwrap();
    }
    model
}

/// A pack with its noise, and the noise as tensors.
fn noisy(model: &GraphAf, batch: &[Sequence]) -> (pack::Pack, Noise<f64>, (Tensor, Tensor)) {
    let config = model.config();
    let pack = pack::Pack::new(config, batch, None);
    let mut rng = FlowRng::seed_from(99);
    let (atoms, bonds) = noise_lengths(config, &pack);
    let noise = Noise {
        atoms: (0..atoms).map(|_| rng.next_uniform()).collect(),
        bonds: (0..bonds).map(|_| rng.next_uniform()).collect(),
    };
    let tensor = |v: &[f64], k| match v.len() {
        0 => Tensor::zeros(1, DType::F64, &Device::Cpu).unwrap(),
        n => Tensor::from_slice(v, (n / k, k), &Device::Cpu).unwrap(),
    };
    let tensors = (tensor(&noise.atoms, config.atom_classes()), tensor(&noise.bonds, BOND_CLASSES));
    (pack, noise, tensors)
}

#[test]
fn the_paper_has_its_number_of_parameters() {
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    GraphAf::new(GraphAfConfig::paper(Vocabulary::paper(), 38), &store).unwrap();
    assert_eq!(store.parameter_count(), 931_873);
}

#[test]
fn fused_equals_direct() {
    for (i, config) in configs().iter().enumerate() {
        let model = model(config, 3 + i as u64);
        let batch = sequences(config, &[1, 2, 9, 7, 5, 8, 6, 3, 9, 4, 9], 5);
        let (pack, noise, (of_atoms, of_bonds)) = noisy(&model, &batch);
        let (atoms, bonds) = model.direct(&batch, (&of_atoms, &of_bonds)).unwrap();
        let fused = score(config, &model.values::<f64>().unwrap(), &pack, &noise);
        for (fused, direct) in [(&fused.atoms, &atoms), (&fused.bonds, &bonds)] {
            let direct = direct.to_vec1::<f64>().unwrap();
            assert_eq!(fused.len(), direct.len());
            for (f, d) in fused.iter().zip(&direct) {
                assert!((f - d).abs() < 1e-9 * d.abs().max(1.0), "config {i}: {f} {d}");
            }
        }
        // Every decision gets a weight of its own, so that no two errors cancel.
        let weight = |n: usize, phase: f64| (0..n).map(|d| (d as f64 * 0.7 + phase).sin()).collect::<Vec<_>>();
        let weights = DecisionValues { atoms: weight(fused.atoms.len(), 0.3), bonds: weight(fused.bonds.len(), 1.1) };
        let loss =
            |logs: &Tensor, w: &[f64]| (logs * Tensor::new(w, &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
        let store = (loss(&atoms, &weights.atoms) + loss(&bonds, &weights.bonds)).unwrap().backward().unwrap();
        let net = model.values::<f64>().unwrap();
        let transposed = head::transposed(&config.head, &net);
        let mut grads = net.try_map(|m| Ok(m.zeros_like())).unwrap();
        pass::backward(config, (&net, &transposed), (&pack, &noise), |_| weights, &mut grads);
        for (param, flat) in model.parameters().into_iter().zip(grads.list()) {
            let direct = store.get(param.var()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let largest = direct.iter().fold(0.0f64, |m, d| m.max(d.abs()));
            assert!(largest > 0.0, "config {i}: {} has no gradient", param.name());
            for (f, d) in flat.data.iter().zip(&direct) {
                assert!((f - d).abs() < 1e-8 * largest.max(1e-3), "config {i}: {} {f} {d}", param.name());
            }
        }
    }
}

#[test]
fn the_gradient_equals_finite_differences() {
    for config in configs() {
        let model = model(&config, 11);
        let batch = sequences(&config, &[9, 4, 7], 6);
        let mut gradients = Gradients::new(model.store());
        let mean = |m: &GraphAf| {
            let scored = m.log_prob(&batch, &mut FlowRng::seed_from(2)).unwrap();
            -scored.log_probs.iter().sum::<f64>() / scored.decisions as f64
        };
        model.backward(&batch, &mut FlowRng::seed_from(2), &mut gradients).unwrap();
        for param in model.store().trainable() {
            let analytic = gradients.get(&param).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let start = param.var().as_detached_tensor().copy().unwrap();
            let values = start.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for entry in [0, values.len() / 2, values.len() - 1] {
                let at = |shift: f64| {
                    let mut moved = values.clone();
                    moved[entry] += shift;
                    param.set(&Tensor::from_vec(moved, start.shape(), &Device::Cpu).unwrap()).unwrap();
                    mean(&model)
                };
                let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
                let error = (numeric - analytic[entry]).abs();
                assert!(error < 1e-6 + 1e-5 * analytic[entry].abs(), "{}: {numeric} {}", param.name(), analytic[entry]);
            }
            param.set(&start).unwrap();
        }
    }
}

#[test]
fn single_precision_agrees_with_double() {
    let config = GraphAfConfig::spline(Vocabulary::paper(), 30);
    let model = model(&config, 4);
    let store = ParamStore::new(4, DType::F32, &Device::Cpu);
    let single = GraphAf::new(config.clone(), &store).unwrap();
    for param in model.store().all() {
        store.get(param.name()).unwrap().set(&param.tensor()).unwrap();
    }
    let batch = sequences(&config, &[20, 30, 12], 8);
    let rng = FlowRng::seed_from(1);
    let (wide, narrow) = (model.log_prob(&batch, &mut rng.clone()), single.log_prob(&batch, &mut rng.clone()));
    for (w, n) in wide.unwrap().log_probs.iter().zip(&narrow.unwrap().log_probs) {
        assert!((w - n).abs() < 1e-5 * w.abs(), "{w} {n}");
    }
}

#[test]
fn a_fresh_spline_is_uniform_and_initialisation_normalizes() {
    let config = GraphAfConfig::spline(Vocabulary::paper(), 12);
    let store = ParamStore::new(1, DType::F64, &Device::Cpu);
    let model = GraphAf::new(config.clone(), &store).unwrap();
    let batch = sequences(&config, &[5, 9, 12], 3);
    model.initialize(&batch).unwrap();
    let scored = model.log_prob(&batch, &mut FlowRng::seed_from(0)).unwrap();
    let pack = pack::Pack::new(&config, &batch, None);
    // The first atom cannot be the stop.
    let atoms = (pack.atoms.len() - batch.len()) as f64 * 10f64.ln() + batch.len() as f64 * 9f64.ln();
    let expected = -(atoms + pack.bonds.len() as f64 * 4f64.ln());
    assert!((scored.log_probs.iter().sum::<f64>() - expected).abs() < 1e-9);
    let embedded = graph_net::forward(&config, &model.values::<f64>().unwrap(), &pack);
    let column: Vec<f64> = embedded.rows.iter().step_by(config.width).copied().collect();
    let mean = column.iter().sum::<f64>() / column.len() as f64;
    let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / column.len() as f64;
    assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
}

#[test]
fn breadth_first_orders_keep_the_molecule_and_bond_only_within_the_frontier() {
    let mut rng = FlowRng::seed_from(4);
    let vocabulary = Vocabulary::paper();
    for size in [1, 2, 5, 20, 60] {
        let molecule = random_graph(&mut rng, size, &vocabulary);
        let sequence = Sequence::new(&molecule, &vocabulary).unwrap().shuffled(&mut rng);
        let back = sequence.molecule(&vocabulary).unwrap();
        let isomorphic =
            petgraph::algo::is_isomorphic_matching(molecule.graph(), back.graph(), |a, b| a == b, |a, b| a == b);
        assert!(size > 20 || isomorphic);
        assert!(back.is_connected() && back.bond_count() == molecule.bond_count());
        let mut prefix = Prefix::default();
        for atom in 0..size {
            prefix.add_atom(sequence.atoms[atom]);
            let first = prefix.first_candidate(Candidates::Frontier, atom);
            for bond in sequence.bonds_of(atom) {
                assert!(usize::from(bond.to) >= first);
                prefix.add_bond(usize::from(bond.to), bond.bond);
            }
        }
    }
}

#[test]
fn rings_are_marked_with_their_size() {
    // A benzene ring with a three-membered ring on it.
    let mut prefix = Prefix::default();
    for (atom, bonds) in [vec![], vec![0], vec![0], vec![1], vec![2], vec![3, 4], vec![4, 5]].into_iter().enumerate() {
        prefix.add_atom(0);
        bonds.into_iter().for_each(|to| prefix.add_bond(to, Bond::Single));
        assert!(prefix.connected() || atom == 0);
    }
    let rings: Vec<u8> = prefix.nodes().iter().map(|n| n.rings).collect();
    assert_eq!(rings, [8, 8, 8, 8, 9, 9, 1]);
    assert_eq!(
        prefix.nodes().iter().map(|n| n.closed).collect::<Vec<_>>(),
        [true, true, true, true, false, false, false]
    );
    assert_eq!(prefix.distances(6)[0], 3);
}

#[test]
fn what_a_model_cannot_express_is_refused_by_name() {
    let config = GraphAfConfig { max_atoms: 4, candidates: Candidates::Window(2), ..configs()[0].clone() };
    let vocabulary = &config.vocabulary;
    let carbon = Atom::neutral(Element::CARBON);
    let refused = |molecule: &Molecule| Sequence::new(molecule, vocabulary).unwrap_err().to_string();
    assert!(refused(&Molecule::new()).contains("0 atoms"));
    assert!(refused(&Molecule::from_parts(&[carbon, carbon], &[]).unwrap()).contains("pieces"));
    assert!(refused(&Molecule::from_parts(&[Atom::neutral(Element::BORON)], &[]).unwrap()).contains("B"));
    let model = model(&config, 1);
    let ring = [(0, 1, Bond::Single), (1, 2, Bond::Single), (2, 3, Bond::Single), (0, 3, Bond::Single)];
    let ring = Sequence::new(&Molecule::from_parts(&[carbon; 4], &ring).unwrap(), vocabulary).unwrap();
    let message = model.log_prob(&[ring], &mut FlowRng::seed_from(0)).unwrap_err().to_string();
    assert!(message.contains("looks 2 back"), "{message}");
    // C1 C2 C3 with the third bonded to the first only after the second's neighbour: no breadth-first order.
    let frontier = GraphAfConfig { candidates: Candidates::Frontier, max_atoms: 9, ..configs()[2].clone() };
    let scrambled = [(0, 1, Bond::Single), (1, 2, Bond::Single), (0, 3, Bond::Single)];
    let apart = [(0, 2, Bond::Single), (1, 2, Bond::Single), (2, 3, Bond::Single)];
    for bonds in [scrambled, apart] {
        let molecule = Molecule::from_parts(&[carbon; 4], &bonds).unwrap();
        let sequence = Sequence::new(&molecule, &frontier.vocabulary).unwrap();
        let model = self::model(&frontier, 1);
        for refused in [
            model.initialize(std::slice::from_ref(&sequence)),
            model.log_prob(std::slice::from_ref(&sequence), &mut FlowRng::seed_from(0)).map(drop),
            model.encode(std::slice::from_ref(&sequence), &mut FlowRng::seed_from(0)).map(drop),
        ] {
            assert!(refused.unwrap_err().to_string().contains("breadth-first"));
        }
        let ordered = sequence.shuffled(&mut FlowRng::seed_from(1));
        model.log_prob(&[ordered], &mut FlowRng::seed_from(0)).unwrap();
    }
    let long = sequences(&config, &[5], 1);
    assert!(model.log_prob(&long, &mut FlowRng::seed_from(0)).unwrap_err().to_string().contains("limit is 4"));
}

#[test]
fn the_direct_form_can_be_chosen() {
    for config in configs() {
        let fused = model(&config, 2);
        let batch = sequences(&config, &[4, 9, 1, 6, 9, 9, 2, 3, 8, 5], 4);
        let run = |model: &GraphAf| {
            let mut gradients = Gradients::new(model.store());
            let scored = model.backward(&batch, &mut FlowRng::seed_from(6), &mut gradients).unwrap();
            (scored, gradients.global_norm().unwrap())
        };
        let (a, norm_a) = run(&fused);
        let (b, norm_b) = run(&model(&config, 2).with_direct_form(true));
        // The noise of the direct form is in single precision.
        assert!(a.log_probs.iter().zip(&b.log_probs).all(|(a, b)| (a - b).abs() < 1e-4 * a.abs()));
        assert!((norm_a / norm_b - 1.0).abs() < 1e-4 && a.decisions == b.decisions);
    }
}

/// What the documentation says of ZINC250k: candidates, rows, and the arithmetic of a training step.
#[test]
fn a_molecule_of_zinc_needs_few_decisions_and_rows() {
    use std::io::BufRead;
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let folder = std::env::var("FLOW_DATA").unwrap_or_else(|_| beside.into());
    let Ok(file) = std::fs::File::open(format!("{folder}/molecules/zinc250k.smi.gz")) else {
        eprintln!("SKIPPED: no molecules/zinc250k.smi.gz in {folder}; name the folder in FLOW_DATA");
        return;
    };
    let lines = std::io::BufReader::new(flate2::read::MultiGzDecoder::new(file)).lines().take(1000);
    let molecules: Vec<Molecule> = lines.map(|l| crate::smiles::parse(l.unwrap().trim()).unwrap()).collect();
    let mut rng = FlowRng::seed_from(1);
    let mut measure = |config: GraphAfConfig| {
        let orders: Vec<Sequence> = molecules
            .iter()
            .map(|m| random_order(&Sequence::new(m, &config.vocabulary).unwrap(), &config, &mut rng).unwrap())
            .collect();
        let pack = pack::Pack::new(&config, &orders, None);
        let each = |n: usize| n as f64 / orders.len() as f64;
        let rows: Vec<f64> = (0..=config.layers).map(|l| each(pack.rows(l))).collect();
        let (atoms, bonds, contexts) = (each(pack.atoms.len()), each(pack.bonds.len()), each(pack.contexts.len()));
        // Multiply-adds of the matrix products, counted twice; the backward pass takes twice the forward one.
        let (w, k) = (config.width as f64, config.atom_classes() as f64);
        let gnn: f64 = rows[1..config.layers].iter().map(|r| r * 3.0 * w * w).sum();
        let heads = match &config.head {
            Head::Gaussian { layers, hidden, .. } => {
                let wide = (layers * hidden) as f64;
                atoms * wide * (w + 2.0 * k) + bonds * wide * (w + 8.0) + contexts * wide * 2.0 * w
            }
            Head::Categorical { hidden } => {
                let (h, g) = (hidden[0] as f64, hidden[1] as f64);
                atoms * (h * (w + g) + g * k) + bonds * (h * (w + g) + g * 4.0) + contexts * h * 2.0 * w
            }
        };
        println!("{bonds:.1} candidates, rows {rows:.1?}, {:.0} MFLOP a molecule and step", 6e-6 * (gnn + heads));
        (bonds, rows)
    };
    let (frontier, _) = measure(GraphAfConfig::spline(Vocabulary::of(&molecules).unwrap(), 38));
    let (window, rows) = measure(GraphAfConfig::paper(Vocabulary::paper(), 38));
    assert!((60.0..90.0).contains(&frontier), "{frontier}");
    assert!((180.0..230.0).contains(&window), "{window}");
    assert!(rows[3] < 250.0 && rows[2] < rows[3] && rows[1] < rows[2], "{rows:?}");
}
