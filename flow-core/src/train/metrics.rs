//! What a step or a validation measures: one objective and whatever else a person wants to see.

use std::borrow::Cow;
use std::fmt;

/// A measured number with its name and its unit.
///
/// The name is the key in `log.jsonl` and TensorBoard; what a person reads is [`Display`](fmt::Display): name and
/// unit in words, and the unit alone where the name says the same.
///
/// ```
/// use flow_core::train::Metric;
///
/// assert_eq!(Metric::new("bits_per_dim", "bits/dim", 3.1).to_string(), "3.1000 bits/dim");
/// assert_eq!(Metric::new("kl_nats", "nats", 20.0).to_string(), "kl 20.0000 nats");
/// assert_eq!(Metric::new("point_error", "", 0.25).to_string(), "point error 0.2500");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// The key in logs: `bits_per_dim`.
    pub name: Cow<'static, str>,
    /// The unit: `bits/dim`; empty for counts and ratios.
    pub unit: Cow<'static, str>,
    /// The number.
    pub value: f64,
    /// What it is the mean over, where that is something else than the samples of [`Metrics::weight`].
    pub over: Option<f64>,
}

impl Metric {
    /// `value` under a name, in a unit; the unit is empty for counts and ratios.
    pub fn new(name: impl Into<Cow<'static, str>>, unit: impl Into<Cow<'static, str>>, value: f64) -> Self {
        Metric { name: name.into(), unit: unit.into(), value, over: None }
    }

    /// The mean over so many things, of another kind than the samples of a step: what it counts by where several ranks
    /// put their metrics together.
    #[must_use]
    pub fn over(self, count: f64) -> Self {
        Metric { over: Some(count), ..self }
    }

    /// The name in words, without the unit that it may end with; empty if the name is the unit.
    pub fn label(&self) -> String {
        let words = self.name.replace('_', " ");
        let unit = self.unit.replace('/', " per ");
        match words.strip_suffix(&unit) {
            Some(rest) if !unit.is_empty() => rest.trim_end().to_string(),
            _ => words,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self.label();
        if !label.is_empty() {
            write!(f, "{label} ")?;
        }
        write!(f, "{:.4}", self.value)?;
        if self.unit.is_empty() { Ok(()) } else { write!(f, " {}", self.unit) }
    }
}

/// What one step or one validation measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// What is minimised: the loss of a step; of a validation, what decides on the best checkpoint, on early stop and
    /// on plateaus. Lower is better.
    pub objective: Metric,
    /// Everything else, in the order in which it is shown and logged.
    pub others: Vec<Metric>,
    /// How many samples (or whatever the loss is the mean over) these are the means of. It is looked at where several
    /// ranks take a step or validate together: gradients and metrics count by it.
    pub weight: f64,
}

impl Metrics {
    /// An objective alone.
    pub fn new(objective: Metric) -> Self {
        Metrics { objective, others: Vec::new(), weight: 1.0 }
    }

    /// The metrics of no samples: of a rank that has none of a batch.
    pub fn of_nothing() -> Self {
        Metrics { weight: 0.0, ..Metrics::new(Metric::new("", "", f64::NAN)) }
    }

    /// These metrics as means over so many samples.
    #[must_use]
    pub fn over(self, samples: f64) -> Self {
        Metrics { weight: samples, ..self }
    }

    /// These metrics and one more.
    #[must_use]
    pub fn with(mut self, other: Metric) -> Self {
        self.others.push(other);
        self
    }

    /// The objective, then the others.
    pub fn iter(&self) -> impl Iterator<Item = &Metric> {
        std::iter::once(&self.objective).chain(&self.others)
    }

    /// As [`Metrics::iter`], to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Metric> {
        std::iter::once(&mut self.objective).chain(&mut self.others)
    }

    /// The value of a metric by its name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    /// Names and values, as a log stores them.
    pub(super) fn named(&self) -> Vec<(String, f64)> {
        self.iter().map(|metric| (metric.name.to_string(), metric.value)).collect()
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.iter().map(Metric::to_string).collect();
        f.write_str(&list.join(", "))
    }
}
