//! What a reader left out, rounded or took for granted.

use std::collections::HashMap;

use crate::Point;

/// Sentences about one file.
#[derive(Debug, Default)]
pub(super) struct Notes(pub Vec<String>);

impl Notes {
    pub fn say(&mut self, what: impl Into<String>) {
        self.0.push(what.into());
    }

    /// Says `what` of so many, unless there are none.
    pub fn count(&mut self, count: usize, what: &str) {
        if count > 0 {
            self.0.push(format!("{count} {what}"));
        }
    }

    /// Counts the points that single precision puts onto the place of another one.
    pub fn rounded(&mut self, exact: &[[f64; 3]], rounded: &[Point], origin: [f64; 3]) {
        let held = |(p, r): (&[f64; 3], &Point)| (0..3).all(|k| f64::from(r[k]) + origin[k] == p[k]);
        if exact.iter().zip(rounded).all(held) {
            return;
        }
        let bits = |p: &[f64; 3]| p.map(|v| (v + 0.0).to_bits());
        let mut places: HashMap<[u32; 3], [u64; 3]> = HashMap::with_capacity(exact.len());
        let mut lost = 0;
        for (p, r) in exact.iter().zip(rounded) {
            let first = places.entry(r.map(|v| (v + 0.0).to_bits())).or_insert_with(|| bits(p));
            lost += usize::from(*first != bits(p));
        }
        self.count(
            lost,
            "points fall onto others in single precision: parts lie too far apart for their detail; split the file",
        );
    }
}

/// Colours from numbers: from 0 to 1 where they may be fractions, else from 0 to 255. What is neither is left out.
pub(super) fn colors_of(numbers: &[[f64; 3]], fractions: bool, notes: &mut Notes) -> Option<Vec<[u8; 3]>> {
    if numbers.is_empty() {
        return None;
    }
    let within = |most: f64| numbers.iter().flatten().all(|v| (0.0..=most).contains(v));
    let scale = if fractions && within(1.0) {
        255.0
    } else if within(255.0) {
        1.0
    } else {
        notes.say("the colours are neither from 0 to 1 nor from 0 to 255 and are not read");
        return None;
    };
    Some(numbers.iter().map(|c| c.map(|v| (scale * v).round() as u8)).collect())
}
