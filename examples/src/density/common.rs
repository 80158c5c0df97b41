//! What several verbs share: loading, data, and models in words.

use std::path::Path;

use anyhow::Result;
use candle_core::Device;
use flow_core::cnf::matching::Pairing;
use flow_core::train;
use flow_density::data::Data;
use flow_density::metrics::{self, Report};
use flow_density::model::{Kind, Model, ModelConfig};
use flow_density::trainer::DensityRun;

use crate::cli::CheckpointArg;

/// The program's name, and that of its folder of results.
pub(super) const PROGRAM: &str = "density";

/// Loads a checkpoint's model with its run.
pub(super) fn load(checkpoint: &CheckpointArg, device: &Device) -> Result<(DensityRun, Model)> {
    load_from(&checkpoint.folder(PROGRAM), device, !checkpoint.raw_weights)
}

/// As [`load`], from a folder.
pub(super) fn load_from(folder: &Path, device: &Device, averaged: bool) -> Result<(DensityRun, Model)> {
    Ok(train::load(folder, device, averaged)?)
}

/// Scores `most` held-out points.
pub(super) fn evaluate(model: &Model, run: &DensityRun, data: &Data, most: usize, seed: u64) -> Result<Report> {
    Ok(metrics::evaluate(model.density(), &run.standard, data, most, seed)?)
}

/// A model in words: what its family has of layers, widths and the rest.
pub(super) fn in_words(model: &ModelConfig) -> String {
    let kind = model.kind;
    let mut words = vec![kind.to_string()];
    if !kind.is_continuous() {
        words.push(format!("{} layers", model.layers));
    }
    if kind.has_hidden_layers() {
        words.push(format!("hidden widths {}", widths(&model.hidden)));
    }
    if model.waves > 0 {
        words.push(format!("{} waves of each input", model.waves));
    }
    if kind.has_bins() {
        words.push(format!("{} bins", model.bins));
    }
    if kind.is_continuous() {
        words.push(format!("input gain {}", model.input_gain));
    }
    match (kind, &model.matching.coupling) {
        (Kind::Ffjord, _) => words.push(format!("tolerance {} in training", model.tolerance)),
        (Kind::Matching, Pairing::MinibatchOt { block }) => {
            words.push(format!("paired by transport in blocks of {block}"))
        }
        (Kind::Matching, _) => words.push("independent pairs".into()),
        _ => {}
    }
    words.join(", ")
}

/// `64,64`.
pub(super) fn widths(hidden: &[usize]) -> String {
    hidden.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}
