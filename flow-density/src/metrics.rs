//! How well a density predicts held-out points.

use std::fmt;

use candle_core::{DType, Tensor};
use flow_core::Density;
use flow_core::numerics::mean_and_error;
use serde::Serialize;

use crate::Result;
use crate::data::{Data, Standard};

/// Points scored at once.
const CHUNK: usize = 4096;

/// `ln p` of every row of `x`, in chunks, outside any graph.
///
/// # Errors
/// [`flow_core::Error::Shape`] unless `x` is `(B, D)`.
pub fn log_prob(density: &dyn Density, x: &Tensor) -> Result<Vec<f64>> {
    let _paused = density.store().no_grad();
    let total = x.dim(0)?;
    let mut out = Vec::with_capacity(total);
    for start in (0..total).step_by(CHUNK) {
        let part = x.narrow(0, start, CHUNK.min(total - start))?;
        out.extend(density.log_prob(&part, None)?.to_dtype(DType::F64)?.to_vec1::<f64>()?);
    }
    Ok(out)
}

/// How well a model predicts held-out points, in nats of the data's own units.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Held-out points.
    pub points: usize,
    /// The mean of `-ln p`.
    pub nll: f64,
    /// Its standard error.
    pub error: f64,
    /// `ln` of the scale: subtracted from `nll` it gives nats of the standardised data.
    pub log_scale: f64,
    /// The least that any density can reach, where it is known.
    pub entropy: Option<f64>,
    /// The mean of `ln p_true - ln p` over the same points, an unbiased estimate of the divergence, with its error.
    pub divergence: Option<(f64, f64)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "test {:.4} ± {:.4} nats over {} points", self.nll, self.error, self.points)?;
        match (self.entropy, self.divergence) {
            (Some(entropy), Some((divergence, error))) => write!(
                f,
                ", {:+.4} from the entropy {entropy:.4}; divergence {divergence:.4} ± {error:.4} nats",
                self.nll - entropy
            ),
            _ => write!(f, " ({:.4} of standardised data)", self.nll - self.log_scale),
        }
    }
}

/// Scores `most` held-out points of `data`, at most, by a density over data that `standard` has standardised: the one of
/// the model's training. `seed` draws the fresh points of a toy.
///
/// # Errors
/// [`flow_core::Error::Shape`] for data of another width than the density's.
pub fn evaluate(density: &dyn Density, standard: &Standard, data: &Data, most: usize, seed: u64) -> Result<Report> {
    let test = data.test(most, seed);
    let x = standard.apply(&test, density.store().device())?;
    let log_scale = standard.log_scale();
    let nats: Vec<f64> = log_prob(density, &x)?.into_iter().map(|l| log_scale - l).collect();
    let (nll, error) = mean_and_error(&nats);
    let divergence = data.toy().map(|toy| {
        let points: Vec<[f64; 2]> = test.as_chunks::<2>().0.iter().map(|p| p.map(f64::from)).collect();
        let truth = toy.log_density(&points);
        mean_and_error(&truth.iter().zip(&nats).map(|(l, n)| l + n).collect::<Vec<_>>())
    });
    Ok(Report { points: nats.len(), nll, error, log_scale, entropy: data.toy().map(|toy| toy.entropy()), divergence })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
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
        let values = (0..20_000).flat_map(|_| [rng.next_normal() as f32, 100.0 * rng.next_normal() as f32]).collect();
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
        let data = Data::from_toy(Toy::Moons);
        let report = evaluate(&gaussian(2), data.standard(), &data, 4000, 0).unwrap();
        let (divergence, error) = report.divergence.unwrap();
        let gap = report.nll - report.entropy.unwrap();
        assert!(divergence > 0.5 && (gap - divergence).abs() < 4.0 * (error + report.error), "{report}");
    }
}
