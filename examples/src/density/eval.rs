//! `density eval`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use flow_core::files::atomic_write;
use flow_density::data::Source;

use super::common::{data_of, evaluate, load};
use super::picture::{self, PictureArg};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, create_folder};

/// Measure the likelihood of held-out points
#[derive(Args, Debug)]
#[command(after_help = "\
For a toy the points are fresh ones; their mean negative log-likelihood lies above the entropy by the divergence from the
toy to the model, which is also estimated from the same points with a smaller error. For a table they are the tenth of
its rows that training has not seen.

Examples:
  density eval
  density eval --checkpoint runs/board --points 200000 --json board.json
  density eval --checkpoint runs/board --pictures again")]
pub(super) struct EvalArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Where the data are now [default: where they were in training]
    #[arg(long, value_name = "TOY|FILE")]
    data: Option<String>,
    /// Largest number of held-out points
    #[arg(long, default_value_t = 20_000)]
    points: usize,
    /// Also write the numbers as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the pictures of `train` into this folder (data of the plane)
    #[arg(long, value_name = "FOLDER")]
    pictures: Option<PathBuf>,
    /// Seed of the fresh points of a toy
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    style: PictureArg,
    #[command(flatten)]
    device: DeviceArg,
}

impl EvalArgs {
    pub(super) fn run(self) -> Result<()> {
        self.style.check(self.pictures.is_some(), "for the pictures of --pictures FOLDER; add it, or leave it out")?;
        at_least_one("--points", self.points)?;
        self.json.as_deref().map_or(Ok(()), check_output)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        ensure!(!run.is_distilled(), "a distilled model has no density, only samples: see `density sample`");
        let data = match &self.data {
            Some(name) => Source::named(name)?.open(run.seed)?,
            None => data_of(&run)?,
        };
        let (found, expected) = (data.columns(), run.features());
        ensure!(found == expected, "the data have {found} columns, the model was trained on {expected}");
        ensure!(
            self.pictures.is_none() || found == 2,
            "--pictures is for data of the plane, these have {found} columns"
        );
        let report = evaluate(&model, &run, &data, self.points, self.seed)?;
        println!("{report}");
        if let Some(path) = &self.json {
            atomic_write(path, serde_json::to_string_pretty(&report)?.as_bytes())?;
        }
        if let Some(folder) = &self.pictures {
            create_folder(folder)?;
            picture::write_all(&model, &run, &data, self.style, folder, self.seed)?;
        }
        Ok(())
    }
}
