//! Telling a run's data from others.

use serde::{Deserialize, Serialize};

use crate::hash::Fnv;

/// What a run learns from, as far as a checkpoint needs it to know the data again: kind, counts and a hash of the
/// content. Paths are no part of it: data that were moved, or are named by another spelling, are the same data.
///
/// ```
/// use flow_core::train::Fingerprint;
///
/// let rows = [1.5f32, 2.0, 2.5];
/// let of = |train: &[f32]| {
///     let parts = [("train", train), ("validation", &rows[2..])];
///     Fingerprint::of_parts("rows", &parts, |hash, row| hash.words([row.to_bits()]))
/// };
/// let (now, then) = (of(&rows[..2]), of(&rows[1..]));
/// assert_eq!(now.to_string(), "2 train, 1 validation rows");
/// assert_eq!(now.difference(&then).unwrap(), "train: as many rows, but not the same");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// What is counted, in the plural: "images".
    kind: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    name: String,
    count: usize,
    hash: String,
}

impl Fingerprint {
    /// Of things of this kind, in the plural, without parts.
    pub fn new(kind: &str) -> Self {
        Fingerprint { kind: kind.into(), parts: Vec::new() }
    }

    /// Of things of this kind in parts of these names; `hash` takes in one thing after the other.
    pub fn of_parts<T>(kind: &str, parts: &[(&str, &[T])], hash: impl Fn(Fnv, &T) -> Fnv) -> Self {
        parts.iter().fold(Fingerprint::new(kind), |print, (name, things)| {
            print.part(name, things.len(), things.iter().fold(Fnv::new(), &hash))
        })
    }

    /// With a part: its name, how many things it has, and a hash of them in their order.
    #[must_use]
    pub fn part(mut self, name: &str, count: usize, hash: Fnv) -> Self {
        self.parts.push(Part { name: name.into(), count, hash: format!("{:016x}", hash.value()) });
        self
    }

    /// What is counted.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// By name, for a comparison that names what differs.
    pub(super) fn by_name(&self) -> serde_json::Value {
        let part = |part: &Part| (part.name.clone(), serde_json::json!({"count": part.count, "hash": part.hash}));
        serde_json::json!({"kind": self.kind, "parts": serde_json::Map::from_iter(self.parts.iter().map(part))})
    }

    /// How these data differ from those of an earlier time, in words; `None` if they are the same.
    pub fn difference(&self, then: &Self) -> Option<String> {
        if self.kind != then.kind {
            return Some(format!("{} now, {} then", self.kind, then.kind));
        }
        let name = |part: &Part| part.name.clone();
        let names = |print: &Self| print.parts.iter().map(name).collect::<Vec<_>>();
        if names(self) != names(then) {
            return Some(format!("parts {} now, {} then", names(self).join(", "), names(then).join(", ")));
        }
        let parts: Vec<String> =
            self.parts.iter().zip(&then.parts).filter_map(|(now, then)| now.difference(then, &self.kind)).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl Part {
    fn difference(&self, then: &Self, kind: &str) -> Option<String> {
        let Part { name, count, hash } = self;
        match () {
            () if *count != then.count => Some(format!("{name}: {count} {kind} now, {} then", then.count)),
            () if *hash != then.hash => Some(format!("{name}: as many {kind}, but not the same")),
            () => None,
        }
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.parts.iter().map(|part| format!("{} {}", part.count, part.name)).collect();
        write!(f, "{} {}", parts.join(", "), self.kind)
    }
}
