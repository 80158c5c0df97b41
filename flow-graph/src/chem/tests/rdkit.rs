//! 5,000 molecules of ZINC250k against RDKit.

use super::*;

/// One line of the file.
#[derive(serde::Deserialize)]
struct Row {
    smiles: String,
    canonical: String,
    qed: f64,
    logp: f64,
    mw: f64,
    cycle: usize,
    sa: f64,
    plogp: f64,
    /// Similarity to the molecule of the next line; of the last to the first.
    tanimoto: f64,
}

/// Compares with the table that the environment variable `FLOW_RDKIT_CSV` names.
///
/// To make it, with `rdkit` and `networkx` installed and any list of SMILES:
///
/// ```python
/// # mols = [Chem.MolFromSmiles(Chem.MolToSmiles(Chem.MolFromSmiles(s), isomericSmiles=False)) for s in smiles]
/// # cycle = [max(map(len, nx.cycle_basis(nx.Graph(Chem.GetAdjacencyMatrix(m)))), default=0) for m in mols]
/// # p = [(Crippen.MolLogP(m)-2.4570953396190123)/1.434324401111988 + (3.0525811293166134-sa(m))/0.8335207024513095 + (.0485696876403053-max(c-6,0))/.2860212110245455 for m, c in zip(mols, cycle)]
/// # f = [GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint(m) for m in mols]; t = map(TanimotoSimilarity, f, f[1:] + f[:1])
/// # csv.writer(out).writerows([('smiles canonical qed logp mw cycle sa plogp tanimoto'.split())] + [(s, Chem.MolToSmiles(m), qed(m), Crippen.MolLogP(m), MolWt(m), c, sa(m), p, t) for s, m, c, p, t in zip(smiles, mols, cycle, p, t)])
/// ```
///
/// (`sa` is `sascorer.calculateScore` of RDKit's contributions.)
#[test]
fn zinc_is_as_rdkit_says() {
    let Some(path) = std::env::var_os("FLOW_RDKIT_CSV") else {
        eprintln!("SKIPPED: set FLOW_RDKIT_CSV to a table made by RDKit, see the documentation of this test");
        return;
    };
    let rows: Vec<Row> = csv::Reader::from_path(path).unwrap().deserialize().collect::<Result<_, _>>().unwrap();
    let scorer = scorer();
    let perceived: Vec<Perceived> =
        rows.iter().map(|row| Perceived::new(&read(&row.smiles).unwrap()).unwrap()).collect();
    let prints: Vec<_> = perceived.iter().map(|m| Fingerprint::of_perceived(m).unwrap()).collect();
    let (mut equal_strings, mut equal_cycles, mut equal_similarities) = (0, 0, 0);
    let mut worst = [0f64; 5];
    for (i, (row, molecule)) in rows.iter().zip(&perceived).enumerate() {
        equal_strings += usize::from(row.canonical == molecule.smiles());
        equal_cycles += usize::from(row.cycle == molecule.longest_cycle());
        equal_similarities += usize::from(row.tanimoto == prints[i].tanimoto(&prints[(i + 1) % rows.len()]));
        let mut values =
            vec![(molecule.qed(), row.qed), (molecule.log_p(), row.logp), (molecule.molecular_weight(), row.mw)];
        if let Some(scorer) = &scorer {
            values.push((scorer.score_perceived(molecule), row.sa));
            values.push((molecule.penalized_log_p(scorer), row.plogp));
        }
        for (worst, (value, expected)) in worst.iter_mut().zip(values) {
            *worst = worst.max((value.unwrap() - expected).abs());
        }
    }
    eprintln!(
        "{} molecules: {equal_strings} strings, {equal_cycles} cycles and {equal_similarities} similarities equal",
        rows.len()
    );
    eprintln!("largest differences: QED, logP, weight, SA, penalised logP: {worst:?}");
    assert_eq!((equal_strings, equal_cycles, equal_similarities), (rows.len(), rows.len(), rows.len()));
    assert!(worst.iter().all(|&difference| difference < 1e-3), "{worst:?}");
}
