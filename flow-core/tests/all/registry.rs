//! Every public bijector is in the registry, and every entry of the registry is a bijector indeed.

use std::collections::BTreeSet;
use std::path::Path;

use flow_core::testing::{Check, registry};

/// Implementations that are no bijectors of their own.
const EXCEPTIONS: &[&str] = &["$pointer"];

#[test]
fn every_bijector_holds_in_f64() {
    hold(&Check::f64());
}

#[test]
fn every_bijector_holds_in_f32() {
    hold(&Check::f32());
}

/// Reports all failures at once: one broken helper tends to break several layers.
fn hold(check: &Check) {
    let cases = registry::all();
    let failures: Vec<String> = cases.iter().filter_map(|c| check.run(c).err()).map(|f| f.to_string()).collect();
    assert!(failures.is_empty(), "{} of {} cases fail:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn the_registry_lists_every_bijector_of_the_source() {
    let mut implemented = BTreeSet::new();
    visit(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path(), &mut implemented);
    assert!(
        implemented.contains("ActNorm") && implemented.contains("Chain"),
        "the scan finds nothing: {implemented:?}"
    );
    for exception in EXCEPTIONS {
        assert!(implemented.remove(*exception), "'{exception}' is an exception no longer needed");
    }
    let registered: BTreeSet<String> = registry::all().iter().map(|c| c.type_name().to_string()).collect();
    let missing: Vec<_> = implemented.difference(&registered).collect();
    assert!(missing.is_empty(), "not in flow_core::testing::registry: {missing:?}");
    let unknown: Vec<_> = registered.difference(&implemented).collect();
    assert!(unknown.is_empty(), "registered, but no such bijector: {unknown:?}");
}

#[test]
fn names_of_cases_are_unique() {
    let mut seen = BTreeSet::new();
    for case in registry::all() {
        assert!(seen.insert(case.to_string()), "'{case}' is there twice");
    }
}

fn visit(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.extend(implementations(&std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The types after `Bijector for` in `impl` headers, up to the file's tests.
fn implementations(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: Vec<&str> = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
    let words = code.join(" ").split_whitespace().map(str::to_string).collect::<Vec<_>>();
    words
        .windows(3)
        .filter(|w| w[0].rsplit([':', '>']).next() == Some("Bijector") && w[1] == "for")
        .map(|w| w[2].split(['<', '{']).next().unwrap_or_default().to_string())
        .collect()
}

#[test]
fn the_scan_reads_all_forms_of_an_implementation() {
    let source = "impl Bijector for A {\nimpl<T: X, C>\n    crate::Bijector\n    for B<T, C>\nwhere\n// impl Bijector for No {\n\
                  fn f(b: &dyn Bijector) {}\n#[cfg(test)]\nmod tests {\nimpl Bijector for Mock {";
    assert_eq!(implementations(source), ["A", "B"]);
}
