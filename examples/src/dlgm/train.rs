//! `dlgm train`.

use std::path::PathBuf;

use anyhow::Result;
use candle_core::Device;
use clap::Args;
use flow_core::FlowRng;
use flow_core::train::{EmaConfig, ScheduleConfig, Summary, TrainConfig};
use flow_density::dlgm::{DlgmConfig, DlgmRun, DlgmTask, FREE_ENERGY, Parts, score, train_config};

use super::common::{posterior, read_images, what_was_read};
use super::pictures::{Draw, write_reconstructions, write_samples};
use crate::engine::{EngineArgs, default_is};
use crate::plot::plot_log;
use crate::training::{self, RunArg, Trained};

/// The name of the built-in data.
const DIGITS: &str = "digits";
/// Steps of a run without --data, unless told, and of any other; those over which the joint term is annealed.
const DEMO_STEPS: u64 = 6000;
const STEPS: u64 = 100_000;
const DEMO_ANNEAL: u64 = 1000;
/// Steps between validations and checkpoints of the demonstration, and of other runs.
const DEMO_EVERY: u64 = 500;
const EVERY: u64 = 2000;
/// Sizes of the demonstration.
const DEMO_LATENTS: usize = 16;
const DEMO_HIDDEN: usize = 100;
/// Test images and draws of the report at the end, and images on its sheets.
const REPORT_IMAGES: usize = 200;
const REPORT_DRAWS: usize = 200;
const SHEET: usize = 100;

/// Train a model
#[derive(Args, Debug)]
#[command(
    after_help = "\
Grey images are made binary once, by draws with their brightness as the probability, and each run on the same data and
--binarization sees the same pixels; likelihoods of other binarisations cannot be compared. Leaves checkpoints, log.jsonl,
loss.png, samples.png and reconstructions.png. At the end it prints the bound, the KL term and -ln p(x) of test images, in nats.
A run that was stopped goes on with --resume and, if it was given, --out.

Examples:
  dlgm train
  dlgm train --model iaf-2 --out runs/iaf
  dlgm train --data mnist/ --model planar-40 --out runs/planar-40
  dlgm train --resume --out runs/planar-40",
    mut_arg("steps", default_is("6000 without --data, else 100000")),
    mut_arg("batch_size", |arg| arg.help("Images per step [default: 100]")),
    mut_arg("learning_rate", default_is("0.001")),
    mut_arg("warmup", default_is("50, at most half of the run")),
    mut_arg("schedule", default_is("constant; cosine without --data")),
    mut_arg("ema", default_is("0; 0.998 without --data")),
    mut_arg("clip", default_is("30")),
    mut_arg("validate_every", default_is("2000; 500 without --data")),
    mut_arg("checkpoint_every", default_is("2000; 500 without --data"))
)]
pub(super) struct TrainArgs {
    /// Images: idx files (MNIST), .npy, .npz, a folder of pictures (read as grey), or "digits" (built in)
    #[arg(long, default_value = DIGITS, value_name = "PATH")]
    data: PathBuf,
    /// Posterior: gaussian, or planar-K, radial-K, sylvester-K (of 8 units), nice-K, iaf-K with K maps
    #[arg(long, default_value = "planar-10", value_name = "NAME")]
    model: String,
    /// Length of the latent vector [default: 40; 16 without --data]
    #[arg(long)]
    latents: Option<usize>,
    /// Maxout units of the encoder and of the decoder [default: 400; 100 without --data]
    #[arg(long)]
    hidden: Option<usize>,
    /// Steps over which the weight of the joint term rises from 0.01 to 1, 0 for none [default: 10000; 1000 without --data]
    #[arg(long, value_name = "STEPS")]
    anneal: Option<u64>,
    /// Seed of the draws that make grey pixels binary
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    binarization: u64,
    /// Folder for checkpoints, log, pictures
    #[arg(long, default_value = "flow-out/dlgm", value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    engine: EngineArgs,
}

impl TrainArgs {
    pub(super) fn run(self) -> Result<()> {
        let (device, place) = (self.engine.device()?, self.engine.place(&self.out)?);
        self.engine
            .without_previews("pictures are drawn at the end, by `dlgm sample` and `dlgm reconstruct`; leave it out")?;
        let (family, flows) = posterior(&self.model)?;
        let parts = read_images(&self.data, self.engine.seed(), self.binarization)?;
        eprintln!("{}", what_was_read(&self.data, &parts, self.binarization));
        let demo = self.is_demo();
        let mut model = DlgmConfig::new(parts.train.shape(), family, flows);
        let base = if demo { (DEMO_LATENTS, DEMO_HIDDEN) } else { (model.latents, model.hidden) };
        (model.latents, model.hidden) = (self.latents.unwrap_or(base.0), self.hidden.unwrap_or(base.1));
        let mut run = DlgmRun::new(model, &self.data.to_string_lossy(), self.engine.seed());
        run.binarization = self.binarization;
        run.batch = self.engine.batch(run.batch)?;
        run.anneal = self.anneal.unwrap_or(if demo { DEMO_ANNEAL } else { run.anneal });
        let config = self.engine_config(&place)?;
        let (about, steps, batch) = (run.model.words(), config.steps, run.batch);
        let task = DlgmTask::new(run, parts, &device)?;
        let parameters = task.model().store().parameter_count();
        let Trained { summary, report, task } = training::train(config, place, task, || {
            eprintln!("{about}; {parameters} parameters, {steps} steps of {batch} images");
            Ok(())
        })?;
        plot_log(&self.out, FREE_ENERGY, "nats")?;
        if report { self.report(&summary, task.parts(), &device) } else { Ok(()) }
    }

    fn is_demo(&self) -> bool {
        self.data.as_os_str() == DIGITS && !self.data.exists()
    }

    fn engine_config(&self, place: &RunArg<'_>) -> Result<TrainConfig> {
        let demo = self.is_demo();
        let every = Some(if demo { DEMO_EVERY } else { EVERY });
        let plan = |steps| {
            let mut config = train_config(steps, self.engine.seed());
            if demo {
                config.schedule = ScheduleConfig::cosine(config.schedule.warmup_steps, 0.0);
                config.ema = Some(EmaConfig { decay: 0.998 });
            }
            TrainConfig { validate_every: every, checkpoint_every: every, ..config }
        };
        self.engine.config(place, if demo { DEMO_STEPS } else { STEPS }, plan)
    }

    /// Pictures and numbers, from the checkpoint on disk.
    fn report(&self, summary: &Summary, parts: &Parts, device: &Device) -> Result<()> {
        let (_, model) = flow_core::train::load::<DlgmRun>(&self.out, device, true)?;
        let rng = |purpose: &str| FlowRng::named(self.engine.seed(), purpose);
        let draw = Draw { count: SHEET, temperature: 1.0, binary: false };
        write_samples(&model, draw, 10, &self.out.join("samples.png"), &mut rng("samples"))?;
        let path = self.out.join("reconstructions.png");
        write_reconstructions(&model, &parts.test, SHEET / 2, &path, &mut rng("reconstructions"))?;
        let report = score(&model, &parts.test, REPORT_IMAGES, REPORT_DRAWS, &mut rng("eval"))?;
        println!("{report}");
        println!("step {}; {}, {}", summary.step, self.out.join("samples.png").display(), path.display());
        Ok(())
    }
}
