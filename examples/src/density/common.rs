//! What several verbs share: loading, data, and families by name.

use std::path::Path;

use anyhow::Result;
use candle_core::Device;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use flow_core::train;
use flow_density::data::{Data, Source};
use flow_density::metrics::{self, Report};
use flow_density::model::{Kind, Model};
use flow_density::trainer::DensityRun;

use crate::cli::CheckpointArg;

/// The program's name, and that of its folder of results.
pub(super) const PROGRAM: &str = "density";

/// Families by their names.
pub(super) fn kinds() -> impl TypedValueParser<Value = Kind> {
    let named = |kind: Kind| PossibleValue::new(kind.name()).help(kind.description());
    PossibleValuesParser::new(Kind::ALL.map(named)).try_map(|name| Kind::named(&name).ok_or("no family of flows"))
}

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

/// The data that a run was trained on.
pub(super) fn data_of(run: &DensityRun) -> Result<Data> {
    Ok(Source::named(&run.data)?.open(run.seed)?)
}
