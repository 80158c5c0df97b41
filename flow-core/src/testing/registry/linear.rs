//! Maps that mix channels: invertible convolutions and permutations.

use crate::layers::{InvertibleConv, Parametrization, Permute};
use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    const ONE: &str = "a 1×1 matrix has no off-diagonal entries";
    const SIGN: &str = "a reflection of the line does not depend on the length of its vector";
    let mut cases = vec![
        conv("PLU, D = 1", &[1], Parametrization::Plu).idle("l", ONE).idle("u", ONE),
        conv("full, D = 1", &[1], Parametrization::Full),
        conv("Householder, D = 1", &[1], Parametrization::Householder { reflections: 1 }).idle("", SIGN),
        conv("one Householder reflection", &[4], Parametrization::Householder { reflections: 1 }),
    ];
    let shapes: [(&str, &[usize]); 3] = [("vector", &[5]), ("image", &[4, 2, 3]), ("odd image", &[3, 2, 1])];
    for (shape, dims) in shapes {
        for (name, kind) in [
            ("PLU", Parametrization::Plu),
            ("full", Parametrization::Full),
            ("Householder", Parametrization::Householder { reflections: 3 }),
        ] {
            cases.push(conv(&format!("{name}, {shape}"), dims, kind));
        }
    }
    cases.extend(permutations());
    cases
}

fn permutations() -> Vec<Case> {
    vec![
        Case::new("Permute", "given, image", |p| Ok(Box::new(Permute::with_order(p, &[4, 2, 1], vec![2, 0, 3, 1])?))),
        Case::new("Permute", "reverse, odd", |p| Ok(Box::new(Permute::reverse(p, &[5])?))).pattern(|i, j| i + j == 4),
        Case::new("Permute", "random, image", |p| Ok(Box::new(Permute::random(p, &[6, 1, 2])?))),
        Case::new("Permute", "D = 1", |p| Ok(Box::new(Permute::random(p, &[1])?))),
    ]
}

fn conv(label: &str, shape: &'static [usize], kind: Parametrization) -> Case {
    Case::new("InvertibleConv", label, move |p| Ok(Box::new(InvertibleConv::new(p, shape, kind)?)))
}
