//! What the ranks tell each other besides gradients: who they are, and how a step went.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Communicator;
use super::statistics::{ELSEWHERE, NUMBERS, STATISTICS};
use crate::train::metrics::{Metric, Metrics};
use crate::{Error, ParamStore, Result};

/// Turns a failure to read what a rank sent into an error.
fn garbled(rank: usize, error: impl std::fmt::Display) -> Error {
    Error::config("ranks", format!("rank {rank} sent what cannot be read ({error}); do all run the same program?"))
}

/// Gathers a value of every rank, in the order of ranks.
///
/// A rank that is still in the middle of a step hears from this one's message that the step has failed, and comes to the
/// same place: it is told again.
fn gather<T: Serialize + for<'de> Deserialize<'de>>(channel: &dyn Communicator, own: &T) -> Result<Vec<T>> {
    let bytes = serde_json::to_vec(own).map_err(|e| garbled(channel.rank(), e))?;
    let mut all = channel.all_gather(&bytes)?;
    while all.iter().any(|said| matches!(said.first(), Some(&(STATISTICS | NUMBERS)))) {
        all = channel.all_gather(&bytes)?;
    }
    all.iter().enumerate().map(|(rank, said)| serde_json::from_slice(said).map_err(|e| garbled(rank, e))).collect()
}

/// What all ranks must have in common before they begin: by name, a value each.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::train) struct Description(pub(in crate::train) Value);

/// Refuses ranks that differ in their descriptions.
///
/// # Errors
/// [`Error::Config`] naming the first rank that differs from rank 0 and in what, on all ranks alike.
pub(in crate::train) fn check_alike(channel: &dyn Communicator, own: &Description) -> Result<()> {
    let all = gather(channel, own)?;
    let Some((first, others)) = all.split_first() else { return Ok(()) };
    for (rank, other) in others.iter().enumerate() {
        let differences =
            crate::train::checkpoint::differences(&first.0, &other.0, ["rank 0", &format!("rank {}", rank + 1)]);
        if let Some(differences) = differences {
            let reason = format!("rank {} was started with something else than rank 0: {differences}", rank + 1);
            return Err(Error::config("ranks", reason));
        }
    }
    Ok(())
}

/// Refuses to go on with weights that are not the same on all ranks, to the bit.
///
/// # Errors
/// [`Error::Config`] naming the rank, on all ranks alike.
pub(in crate::train) fn check_same_weights(channel: &dyn Communicator, store: &ParamStore) -> Result<()> {
    if channel.world_size() == 1 {
        return Ok(());
    }
    let sums = gather(channel, &crate::train::files::checksum(store)?)?;
    match sums.iter().position(|sum| Some(sum) != sums.first()) {
        None => Ok(()),
        Some(rank) => {
            let reason = format!(
                "the weights of rank {rank} are no longer those of rank 0: its machine computes, or its library sums, \
                 otherwise; use the same build on machines of one kind"
            );
            Err(Error::config("ranks", reason))
        }
    }
}

/// A metric on its way between ranks; numbers as bits, since JSON knows no NaN.
#[derive(Debug, Serialize, Deserialize)]
struct Sent {
    name: String,
    unit: String,
    value: u64,
    over: u64,
}

/// How a step or a validation went on one rank.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    /// The objective first; none where there were no samples.
    metrics: Vec<Sent>,
    /// What the gradient is the mean over.
    weight: u64,
    stop: bool,
    moved: bool,
    /// Whether gradients changed after they had gone.
    spoiled: bool,
    /// The layer and what it said, where the step could not be computed.
    fault: Option<(String, String)>,
}

impl Report {
    fn of(Agreed { metrics, stop, moved, spoiled, fault, .. }: &Agreed) -> Self {
        let sent = |metric: &Metric| Sent {
            name: metric.name.to_string(),
            unit: metric.unit.to_string(),
            value: metric.value.to_bits(),
            over: metric.over.unwrap_or(metrics.weight).to_bits(),
        };
        let has_samples = metrics.weight > 0.0 && fault.is_none();
        let fault = fault.as_ref().map(|error| match error {
            Error::NonFinite { layer, what, .. } => (layer.clone(), what.clone()),
            other => ("training".to_string(), other.to_string()),
        });
        Report {
            metrics: if has_samples { metrics.iter().map(sent).collect() } else { Vec::new() },
            weight: if has_samples { metrics.weight.to_bits() } else { 0 },
            stop: *stop,
            moved: *moved,
            spoiled: *spoiled,
            fault,
        }
    }
}

/// How a step or a validation went: on one rank, or what all ranks know of it.
#[derive(Debug)]
pub(in crate::train) struct Agreed {
    /// Means over the samples of this rank; of all of them, once agreed.
    pub(in crate::train) metrics: Metrics,
    /// What the gradient of this rank is the mean over, once agreed; that of all is [`Metrics::weight`].
    pub(in crate::train) weight: f64,
    /// Whether this rank, or any, was asked to stop.
    pub(in crate::train) stop: bool,
    /// Whether a parameter got a gradient, on this rank or any.
    pub(in crate::train) moved: bool,
    /// Whether gradients of this rank, or of any, changed after they had gone.
    pub(in crate::train) spoiled: bool,
    /// Why the step could not be computed, on this rank or the first one of which that is true.
    pub(in crate::train) fault: Option<Error>,
}

impl Agreed {
    /// Of a validation.
    pub(in crate::train) fn of(metrics: Metrics) -> Self {
        Agreed { metrics, weight: 1.0, stop: false, moved: false, spoiled: false, fault: None }
    }
}

/// Tells all ranks how it went on each, and puts it together in the order of ranks. With one rank nothing changes.
///
/// # Errors
/// A rank that is gone.
pub(in crate::train) fn agree(channel: &dyn Communicator, own: Agreed) -> Result<Agreed> {
    if channel.world_size() == 1 {
        return Ok(own);
    }
    let report = Report::of(&own);
    let all = gather(channel, &report)?;
    let total: f64 = all.iter().map(|report| f64::from_bits(report.weight)).sum();
    let faults = || all.iter().enumerate().filter_map(|(rank, report)| Some((rank, report.fault.as_ref()?)));
    // A rank that stopped because of another one knows nothing of the reason.
    let failed = faults().find(|(_, (layer, _))| layer != ELSEWHERE);
    if failed.is_none() && faults().next().is_some() {
        let who = match all.iter().position(|report| report.fault.is_none()) {
            Some(rank) => format!("rank {rank}"),
            None => "a rank".into(),
        };
        let reason = format!(
            "left {who} without a sample, or it took another way than the others: this model normalises each sample by the \
             others of its batch, and every rank needs one"
        );
        return Err(Error::config("batch", reason));
    }
    let fault = failed.map(|(rank, (layer, what))| {
        let layer = format!("rank {rank}: {layer}");
        Error::NonFinite { layer, what: what.clone(), step: None }
    });
    let mut metrics = means(&all, total);
    if fault.is_some() {
        metrics.objective.value = f64::NAN;
    }
    Ok(Agreed {
        metrics,
        weight: f64::from_bits(report.weight),
        stop: all.iter().any(|report| report.stop),
        moved: all.iter().any(|report| report.moved),
        spoiled: all.iter().any(|report| report.spoiled),
        fault,
    })
}

/// The weighed means of the metrics by name, in the order of the first rank that has each.
fn means(all: &[Report], total: f64) -> Metrics {
    let mut names: Vec<&Sent> = Vec::new();
    for sent in all.iter().flat_map(|report| &report.metrics) {
        if names.iter().all(|known| known.name != sent.name) {
            names.push(sent);
        }
    }
    let mut means = names.into_iter().map(|known| {
        let same = all.iter().flat_map(|report| &report.metrics).filter(|sent| sent.name == known.name);
        let (mut sum, mut over) = (0.0, 0.0);
        for sent in same.filter(|sent| f64::from_bits(sent.over) > 0.0) {
            sum += f64::from_bits(sent.over) * f64::from_bits(sent.value);
            over += f64::from_bits(sent.over);
        }
        Metric::new(known.name.clone(), known.unit.clone(), sum / over).over(over)
    });
    match means.next() {
        Some(objective) => Metrics { objective, others: means.collect(), weight: total },
        None => Metrics::of_nothing(),
    }
}
