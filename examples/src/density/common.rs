//! Loading and measuring that several verbs share.

use std::fmt;

use anyhow::Result;
use candle_core::{Device, Tensor};
use flow_core::FlowRng;
use flow_core::train;
use flow_image::metrics::mean_and_error;
use serde::Serialize;

use super::data::{Data, Source};
use super::model::{Model, RunConfig};
use super::task::log_prob;
use crate::cli::CheckpointArg;

/// The program's name, and that of its folder of results.
pub(super) const PROGRAM: &str = "density";

/// Loads a checkpoint's model with its run.
pub(super) fn load(checkpoint: &CheckpointArg, device: &Device) -> Result<(RunConfig, Model)> {
    load_from(&checkpoint.folder(PROGRAM), device, !checkpoint.raw_weights)
}

/// As [`load`], from a folder.
pub(super) fn load_from(folder: &std::path::Path, device: &Device, averaged: bool) -> Result<(RunConfig, Model)> {
    train::load(folder, device, averaged)
}

/// How well a model predicts held-out points, in nats of the data's own units.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    /// Held-out points.
    pub(super) points: usize,
    /// The mean of `-ln p`.
    pub(super) nll: f64,
    /// Its standard error.
    pub(super) error: f64,
    /// `ln` of the scale: subtracted from `nll` it gives nats of the standardised data.
    pub(super) log_scale: f64,
    /// The least that any density can reach, where it is known.
    pub(super) entropy: Option<f64>,
    /// The mean of `ln p_true - ln p` over the same points, an unbiased estimate of the divergence, with its error.
    pub(super) divergence: Option<(f64, f64)>,
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

/// Scores `most` held-out points.
pub(super) fn evaluate(model: &Model, run: &RunConfig, data: &Data, most: usize, seed: u64) -> Result<Report> {
    let test = data.test(most, seed);
    let x = run.standard.apply(&test, model.store().device())?;
    let log_scale = run.standard.log_scale();
    let nats: Vec<f64> = log_prob(model, &x)?.into_iter().map(|l| log_scale - f64::from(l)).collect();
    let (nll, error) = mean_and_error(&nats);
    let divergence = data.toy.map(|toy| {
        let points: Vec<[f64; 2]> = test.as_chunks::<2>().0.iter().map(|p| p.map(f64::from)).collect();
        let truth = toy.log_density(&points);
        mean_and_error(&truth.iter().zip(&nats).map(|(l, n)| l + n).collect::<Vec<_>>())
    });
    Ok(Report { points: nats.len(), nll, error, log_scale, entropy: data.toy.map(|toy| toy.entropy()), divergence })
}

/// `n` draws of the base density, wider or narrower by `temperature`.
pub(super) fn latents(model: &Model, run: &RunConfig, n: usize, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
    let store = model.store();
    Ok((rng.normal((n, run.dims()), store.dtype(), store.device())? * temperature)?)
}

/// The data that a run was trained on.
pub(super) fn data_of(run: &RunConfig) -> Result<Data> {
    Source::named(&run.data)?.open(run.seed)
}
