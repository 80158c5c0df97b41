//! The real data sets, against what is known about them.

// Helper functions of tests are no tests to the lint.

use crate::common::data;
use flow_graph::data::{Cache, OpenOptions, Splits, open};

fn options() -> OpenOptions {
    let mut options = OpenOptions::default();
    options.cache = Cache::Off;
    options
}

#[test]
fn zinc250k_is_zinc250k() {
    let Some(path) = data("molecules/zinc250k.smi.gz") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut cached = options();
    cached.cache = Cache::Folder(folder.path().into());
    let loaded = open(&path, &cached).unwrap();
    println!("{}", loaded.summary());
    assert_eq!(loaded.entry_count, 249_456);
    // Two hydrogens on phosphorus that its bonds do not imply.
    let refused: Vec<_> = loaded.bad.iter().map(|bad| bad.line).collect();
    assert!(refused.len() <= 1, "{refused:?}");
    let largest = (0..loaded.len()).map(|i| loaded.molecules.atoms(i).unwrap().len()).max();
    assert_eq!(largest, Some(38));
    assert_eq!(loaded.multi_component, 0);
    assert!(loaded.heap_bytes() < 100 << 20, "{} bytes", loaded.heap_bytes());
    let again = open(&path, &cached).unwrap();
    assert!(again.from_cache && again.molecules == loaded.molecules && again.bad == loaded.bad);
    let Some(indices) = data("molecules/valid_idx_zinc250k.json") else { return };
    let splits = Splits::from_file(&indices, &loaded, 0.02, 0).unwrap();
    println!("{} train, {} validation, {} test", splits.train.len(), splits.validation.len(), splits.test.len());
    assert_eq!(splits.train.len() + splits.validation.len() + splits.test.len(), loaded.len());
    assert!(splits.test.len() > 24_000 && splits.missing <= 1, "{} {}", splits.test.len(), splits.missing);
}

#[test]
fn qm9_is_qm9() {
    let Some(path) = data("molecules/qm9.smi.gz") else { return };
    let loaded = open(&path, &options()).unwrap();
    assert_eq!((loaded.len(), loaded.bad_count), (130_831, 0));
    assert_eq!((0..loaded.len()).map(|i| loaded.molecules.atoms(i).unwrap().len()).max(), Some(9));
}

#[test]
fn the_800_of_zinc_are_a_table() {
    let Some(path) = data("molecules/zinc_800_jt.csv") else { return };
    let loaded = open(&path, &options()).unwrap();
    assert_eq!((loaded.len(), loaded.bad_count, loaded.lines[0]), (800, 0, 2));
    let mut wrong = options();
    wrong.column = Some("logp".into());
    let error = open(&path, &wrong).unwrap_err().to_string();
    assert!(error.contains("zinc_800_jt.csv: line 1") && error.contains("'smiles', 'penalized_logp'"), "{error}");
}
