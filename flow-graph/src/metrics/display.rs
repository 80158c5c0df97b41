//! A report as a table.

use std::fmt::{Display, Formatter, Result};

use super::{Distribution, Means, Report};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        line(f, "generated", &self.generated)?;
        line(f, "valid", &format!("{}  ({} of them)", percent(self.validity), self.valid))?;
        let small = |small: &super::Small| {
            format!("{} under 5 atoms, {} under 10", percent(small.under_5), percent(small.under_10).trim_start())
        };
        let beside = self.reference_small.as_ref().map(|there| format!("   (reference {})", small(there).trim_start()));
        line(f, "small", &(small(&self.small) + &beside.unwrap_or_default()))?;
        line(f, "connected", &percent(self.connected))?;
        if let Some(unique) = &self.uniqueness {
            let first = |value: Option<f64>, of: &str| value.map(|v| format!("   first {of} {}", percent(v)));
            let (few, many) = (first(unique.first_1k, "1,000"), first(unique.first_10k, "10,000"));
            line(f, "unique", &[Some(percent(unique.all)), few, many].map(Option::unwrap_or_default).concat())?;
        }
        if let Some(novelty) = &self.novelty {
            line(
                f,
                "novel",
                &format!("{}   (canonical SMILES without stereo on both sides)", percent(novelty.honest)),
            )?;
            if let Some(printed) = novelty.as_printed {
                line(f, "", &format!("{}   (against the file's strings, as papers print it)", percent(printed)))?;
            }
        }
        self.means_table(f)?;
        self.structure_table(f)
    }
}

impl Report {
    fn means_table(&self, f: &mut Formatter<'_>) -> Result {
        let Some(means) = &self.means else { return Ok(()) };
        writeln!(f, "\n{:<26}{:>11}{:>11}", "mean", "generated", "reference")?;
        let mut row = |name: &str, value: fn(&Means) -> Option<f64>| {
            let there = self.reference_means.as_ref().and_then(value);
            let Some(here) = value(means) else { return Ok(()) };
            let there = there.map_or("–".to_string(), |v| format!("{v:.3}"));
            writeln!(f, "{name:<26}{here:>11.3}{there:>11}")
        };
        row("QED", |m| Some(m.qed))?;
        row("logP", |m| Some(m.log_p))?;
        row("molecular weight", |m| Some(m.molecular_weight))?;
        row("synthetic accessibility", |m| m.synthetic_accessibility)?;
        row("penalised logP", |m| m.penalized_log_p)
    }

    fn structure_table(&self, f: &mut Formatter<'_>) -> Result {
        let structure = &self.structure;
        let distance = |of: fn(&super::Distances) -> Option<f64>| self.distances.as_ref().and_then(of);
        writeln!(f, "\n{:<18}{:>9}   share of each", "distribution", "distance")?;
        row(f, "atoms/molecule", distance(|d| d.sizes), &range(&structure.sizes))?;
        row(f, "atom types", distance(|d| d.atoms), &shares(&structure.atoms))?;
        row(f, "bond types", distance(|d| d.bonds), &shares(&structure.bonds))?;
        row(f, "ring sizes", distance(|d| d.ring_sizes), &shares(&structure.ring_sizes))?;
        row(f, "rings/molecule", distance(|d| d.ring_counts), &shares(&structure.ring_counts))
    }
}

fn line(f: &mut Formatter<'_>, name: &str, value: &dyn Display) -> Result {
    writeln!(f, "{name:<12}{value}")
}

fn row(f: &mut Formatter<'_>, name: &str, distance: Option<f64>, text: &str) -> Result {
    let distance = distance.map_or("–".to_string(), |d| format!("{d:.4}"));
    writeln!(f, "{name:<18}{distance:>9}   {text}")
}

fn percent(share: f64) -> String {
    format!("{:6.2} %", share * 100.0)
}

/// `6 … 38, mean 23.2`.
fn range(sizes: &Distribution<usize>) -> String {
    let values = || sizes.counts().map(|(size, _)| size);
    match (values().min(), values().max(), sizes.mean()) {
        (Some(least), Some(most), Some(mean)) => format!("{least} … {most}, mean {mean:.1}"),
        _ => "–".to_string(),
    }
}

/// The most frequent values: `C 0.737, N 0.109 …`.
fn shares<K: Ord + Display>(distribution: &Distribution<K>) -> String {
    const SHOWN: usize = 8;
    let total = distribution.total() as f64;
    let mut counts: Vec<_> = distribution.counts().collect();
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let shown: Vec<_> =
        counts.iter().take(SHOWN).map(|(value, count)| format!("{value} {:.3}", *count as f64 / total)).collect();
    match counts.len() {
        0 => "–".to_string(),
        n if n > SHOWN => format!("{} …", shown.join(", ")),
        _ => shown.join(", "),
    }
}
