//! How well a density predicts held-out points.

use std::fmt;

use candle_core::Tensor;
use flow_core::numerics::host;
use flow_core::numerics::{mean_and_error, plus_minus};
use flow_core::{Density, FlowRng};
use serde::Serialize;

use crate::data::{Classes, Data, Rows, Split, Standard, Toy};
use crate::{Error, Result};

/// Points scored at once.
pub(crate) const CHUNK: usize = 4096;
/// What a report is of.
const ALONE: &str = "negative log-likelihood, nats";
const GIVEN: &str = "negative log-likelihood given the class, nats";
/// Draws of the noise that spreads columns of steps, for each row that is scored.
pub const DRAWS: usize = 8;

/// `ln p` of every row of `x`, in chunks, outside any graph.
///
/// # Errors
/// [`flow_core::Error::Shape`] unless `x` is `(B, D)`.
pub fn log_prob(density: &dyn Density, x: &Tensor) -> Result<Vec<f64>> {
    log_prob_given(density, x, None)
}

/// As [`log_prob`], given a context `(B, C)`.
///
/// # Errors
/// [`flow_core::Error::Shape`] unless `x` is `(B, D)`, and for a context that the density does not take.
pub fn log_prob_given<D: Density + ?Sized>(density: &D, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<f64>> {
    let _paused = density.store().no_grad();
    let total = x.dim(0)?;
    let mut out = Vec::with_capacity(total);
    for start in (0..total).step_by(CHUNK) {
        let rows = CHUNK.min(total - start);
        let part = x.narrow(0, start, rows)?;
        let given = context.map(|context| context.narrow(0, start, rows)).transpose()?;
        out.extend(host::numbers(&density.log_prob(&part, given.as_ref())?)?);
    }
    Ok(out)
}

/// `ln p` of rows of data, which lie one after the other in `values`, in the data's own units: nats of a density over
/// them, `ln p_model((x - mean)/std) - Σ ln std`.
///
/// Where columns are spread over their steps, [`Standard`], it is the logarithm of the mean density over the row's cell,
/// estimated by [`DRAWS`] points of it: `ln (1/K) Σ p(x + h·(uₖ - ½))`. That is a lower bound on average, the tighter the
/// more points (Burda et al. 2016, arXiv 1509.00519). With [`Standard::log_steps`] added it is one of `ln P(x)`, the
/// probability of these very numbers. `seed` draws the points.
///
/// # Errors
/// [`flow_core::Error::Shape`] for rows of another width than the density's.
pub fn score(density: &dyn Density, standard: &Standard, values: &[f64], seed: u64) -> Result<Vec<f64>> {
    score_given(density, standard, values, None, seed)
}

/// As [`score`], `ln p(x | c)` given a context `(B, C)` of the rows.
///
/// # Errors
/// As [`score`], and for a context that the density does not take.
pub fn score_given(
    density: &dyn Density,
    standard: &Standard,
    values: &[f64],
    context: Option<&Tensor>,
    seed: u64,
) -> Result<Vec<f64>> {
    let (device, log_scale) = (density.store().device(), standard.log_scale());
    let in_units = |logs: Vec<f64>| logs.into_iter().map(|l| l - log_scale).collect();
    if !standard.is_dequantized() {
        return Ok(in_units(log_prob_given(density, &standard.apply(values, device)?, context)?));
    }
    let mut rng = FlowRng::named(seed, "points of cells");
    let draw = |_| log_prob_given(density, &standard.apply_spread(values, &mut rng, device)?, context);
    let draws: Vec<Vec<f64>> = (0..DRAWS).map(draw).collect::<Result<_>>()?;
    let rows = draws.first().map_or(0, Vec::len);
    Ok(in_units((0..rows).map(|row| log_mean_exp(draws.iter().map(|draw| draw[row]))).collect()))
}

/// As [`score`], of rows given their classes, or of rows without any.
///
/// # Errors
/// As [`score_given`].
pub fn score_rows(
    density: &dyn Density,
    standard: &Standard,
    rows: &Rows,
    classes: Option<&Classes>,
    seed: u64,
) -> Result<Vec<f64>> {
    let device = density.store().device();
    let context = classes.map(|classes| classes.context(rows.classes(), device)).transpose()?;
    score_given(density, standard, rows.values(), context.as_ref(), seed)
}

/// The likeliest class of every row by Bayes' rule, `argmax p(x | c)·π_c`, where `π_c` is the share of the class among the
/// training rows.
///
/// # Errors
/// As [`score_given`].
pub fn likeliest_classes(
    density: &dyn Density,
    standard: &Standard,
    rows: &Rows,
    classes: &Classes,
    seed: u64,
) -> Result<Vec<u32>> {
    let device = density.store().device();
    let mut best = vec![(f64::NEG_INFINITY, 0u32); rows.len()];
    for (class, share) in (0u32..).zip(classes.shares()) {
        if share == 0.0 {
            continue;
        }
        let context = classes.context(&vec![class; rows.len()], device)?;
        let logs = score_given(density, standard, rows.values(), Some(&context), seed)?;
        for (best, log) in best.iter_mut().zip(logs) {
            if log + share.ln() > best.0 {
                *best = (log + share.ln(), class);
            }
        }
    }
    Ok(best.into_iter().map(|(_, class)| class).collect())
}

fn log_mean_exp(logs: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = logs.clone().fold(f64::NEG_INFINITY, f64::max);
    if !most.is_finite() {
        return most;
    }
    let (count, sum) = logs.fold((0.0, 0.0), |(count, sum), log| (count + 1.0, sum + (log - most).exp()));
    most + f64::ln(sum / count)
}

/// How well a model predicts points, in nats of the data's own units.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The quantity, in words.
    pub quantity: &'static str,
    /// What the points are: `test`, `all`, …
    pub split: String,
    /// Where they come from.
    pub source: String,
    /// Points.
    pub points: usize,
    /// Points that there are, of which these are the first; of a toy, as many as were asked for.
    pub of: usize,
    /// The mean of `-ln p`.
    pub nll: f64,
    /// Its standard error; NaN for a single point.
    pub error: f64,
    /// `ln` of the scale: subtracted from `nll` it gives nats of the standardised data.
    pub log_scale: f64,
    /// Of columns that are spread over steps: `nll` less this is a bound, from above, of the mean of `-ln P` of the numbers
    /// themselves.
    pub log_steps: Option<f64>,
    /// The least that any density can reach, where it is known.
    pub entropy: Option<f64>,
    /// The mean of `ln p_true - ln p` over the same points, an unbiased estimate of the divergence, with its error.
    pub divergence: Option<(f64, f64)>,
}

impl Report {
    /// Of the logarithms of a density at the first points of a source, in the data's own units.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for no points.
    pub fn of(logs: &[f64], standard: &Standard, split: Split, source: &str, of: usize) -> Result<Self> {
        if logs.is_empty() {
            return Err(Error::config(source, format!("has no row to score ({split})")));
        }
        let nats: Vec<f64> = logs.iter().map(|l| -l).collect();
        let (nll, error) = mean_and_error(&nats);
        Ok(Report {
            quantity: ALONE,
            split: split.to_string(),
            source: source.into(),
            points: logs.len(),
            of,
            nll,
            error,
            log_scale: standard.log_scale(),
            log_steps: standard.is_dequantized().then(|| standard.log_steps()),
            entropy: None,
            divergence: None,
        })
    }

    /// The same of a density given the class.
    #[must_use]
    pub fn given_classes(mut self) -> Self {
        self.quantity = GIVEN;
        self
    }

    /// With the entropy of the toy that the points are of, and the divergence of the model from it.
    #[must_use]
    pub fn against(mut self, toy: Toy, points: &[f64], logs: &[f64]) -> Self {
        let truth = toy.log_density(points.as_chunks::<2>().0);
        self.divergence = Some(mean_and_error(&truth.iter().zip(logs).map(|(t, l)| t - l).collect::<Vec<_>>()));
        self.entropy = Some(toy.entropy());
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { split, nll, error, points, source, .. } = self;
        let given = if self.quantity == GIVEN { " given the class" } else { "" };
        let (error, s) = (plus_minus(*error, 4), if *points == 1 { "" } else { "s" });
        write!(f, "negative log-likelihood{given}: {split} {nll:.4} {error} nats over {points} point{s}")?;
        if let (Some(entropy), Some((divergence, error))) = (self.entropy, self.divergence) {
            let above = nll - entropy;
            return write!(
                f,
                " of {source}, {above:+.4} from the entropy {entropy:.4}; divergence {divergence:.4} {} nats",
                plus_minus(error, 4)
            );
        }
        let which = match (split.as_str(), *points == self.of) {
            ("all", true) => format!("every row of {source}"),
            ("all", false) => format!("the first of the {} rows of {source}", self.of),
            (_, true) => format!("the whole {split} split of {source}"),
            (_, false) => format!("the first of the {} rows in the {split} split of {source}", self.of),
        };
        write!(f, " ({which}; {:.4} of standardised data)", nll - self.log_scale)?;
        if let Some(log_steps) = self.log_steps {
            let bound = nll - log_steps;
            write!(
                f,
                "; columns of steps are spread over them, so this is of the mean density over each row's cell, and \
                 -ln P of the numbers themselves is at most {bound:.4} nats on average"
            )?;
        }
        Ok(())
    }
}

/// Scores `most` held-out points of `data`, at most, by a density over data that `standard` has standardised: the one of
/// the model's training. `seed` draws the fresh points of a toy.
///
/// # Errors
/// [`flow_core::Error::Shape`] for data of another width than the density's.
pub fn evaluate(density: &dyn Density, standard: &Standard, data: &Data, most: usize, seed: u64) -> Result<Report> {
    let test = data.test(most, seed);
    let logs = score_rows(density, standard, &test, data.classes(), seed)?;
    let of = data.toy().map_or(data.count(Split::Test), |_| test.len());
    let report = Report::of(&logs, standard, Split::Test, data.name(), of)?;
    Ok(match data.toy() {
        Some(toy) => report.against(toy, test.values(), &logs),
        None if data.classes().is_some() => report.given_classes(),
        None => report,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use flow_core::distribution::StandardGaussian;
    use flow_core::layers::ActNorm;
    use flow_core::{Flow, ParamStore};

    use super::*;
    use crate::data::{Table, Toy};

    fn gaussian(dims: usize) -> impl Density {
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        let norm = ActNorm::new(&store.root(), &[dims]).unwrap();
        Flow::new(&store, norm, StandardGaussian::new(&[dims], DType::F32, &Device::Cpu)).unwrap()
    }

    /// Columns of deviation 1 and 100: a Gaussian scores 2·1.4189 nats when standardised, ln 100 more in their own units.
    #[test]
    fn nats_are_of_the_datas_own_units() {
        let mut rng = flow_core::FlowRng::seed_from(1);
        let values = (0..20_000).flat_map(|_| [rng.next_normal(), 100.0 * rng.next_normal()]).collect();
        let data = Data::from_table(&Table::new(2, values).unwrap(), 0).unwrap();
        let report = evaluate(&gaussian(2), data.standard(), &data, 10_000, 0).unwrap();
        assert_eq!((report.points, report.entropy), (2000, None));
        let expected = 2.0 * 1.418_938_5 + 100.0_f64.ln();
        assert!((report.nll - expected).abs() < 4.0 * report.error && report.error < 0.03, "{report:?}");
        assert!((report.nll - report.log_scale - 2.0 * 1.418_938_5).abs() < 0.1, "{report}");
        assert!(report.to_string().contains("of standardised data"), "{report}");
    }

    #[test]
    fn the_gap_to_the_entropy_and_the_divergence_estimate_the_same() {
        let data = Data::from_toy(Toy::Moons).unwrap();
        let report = evaluate(&gaussian(2), data.standard(), &data, 4000, 0).unwrap();
        let (divergence, error) = report.divergence.unwrap();
        let gap = report.nll - report.entropy.unwrap();
        assert!(divergence > 0.5 && (gap - divergence).abs() < 4.0 * (error + report.error), "{report}");
    }
}
