//! Running a training: fresh or resumed, until its end, Ctrl-C or a time limit.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use flow_core::train::{Bar, StopFlag, Summary, Task, TrainConfig, Trainer};

use crate::cli::create_folder;
use crate::{ranks, settings};

/// How long a training may take.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimeLimit(Option<Duration>);

impl TimeLimit {
    /// The limit of `--minutes`.
    ///
    /// # Errors
    /// A number that is not positive.
    pub fn new(minutes: Option<f64>) -> Result<Self> {
        let Some(minutes) = minutes else { return Ok(TimeLimit(None)) };
        match Duration::try_from_secs_f64(60.0 * minutes) {
            Ok(time) if !time.is_zero() => Ok(TimeLimit(Some(time))),
            _ => bail!("--minutes must be a positive number, got {minutes}"),
        }
    }

    /// Raises the flag when the time is up.
    fn start(self, stop: &StopFlag) {
        if let TimeLimit(Some(time)) = self {
            let stop = stop.clone();
            std::thread::spawn(move || {
                std::thread::sleep(time);
                stop.request();
            });
        }
    }
}

/// Where a run writes and how it begins and ends.
#[derive(Debug, Clone, Copy)]
pub struct RunArg<'a> {
    /// The folder of the run.
    pub out: &'a Path,
    /// Go on with the run that is there.
    pub resume: bool,
    /// Ends the run early.
    pub limit: TimeLimit,
}

/// How a run ended.
#[derive(Debug)]
pub struct Trained<T> {
    /// What the engine says.
    pub summary: Summary,
    /// The model and its data, as the last step left them.
    pub task: T,
    /// Whether it came to its end or to the limit, so that it is to be reported on; the user who stops a run waits for nothing.
    pub report: bool,
}

/// Trains with a progress bar; `begun` runs once the run is accepted and its folder is there, before the first step. Of
/// several processes ([`ranks`]) only the first returns.
///
/// # Errors
/// Those of the engine and of `begun`.
pub fn train<T: Task>(
    config: TrainConfig,
    run: RunArg<'_>,
    task: T,
    begun: impl FnOnce() -> Result<()>,
) -> Result<Trained<T>> {
    let stop = StopFlag::on_ctrl_c()?;
    let trainer = match run.resume {
        // Where the first of several processes begins, the others do.
        _ if !ranks::is_first() => Trainer::in_memory(config, task)?,
        true => Trainer::resume(config, run.out, task)?,
        false => Trainer::new(config, run.out, task)?,
    };
    if ranks::is_first() {
        create_folder(run.out)?;
        settings::keep(run.out)?;
        begun()?;
    }
    let start = Instant::now();
    run.limit.start(&stop);
    let mut trainer = ranks::join(trainer.with_stop(stop))?;
    let mut summary = trainer.run(&mut Bar::new().with_limit(run.limit.0))?;
    let is_up = ranks::from_first(|| Ok(run.limit.0.is_some_and(|time| start.elapsed() >= time)))?;
    if summary.interrupted && is_up {
        summary.validation = trainer.validate_last(&mut Bar::new())?.or(summary.validation);
        summary.best = trainer.state().best_so_far();
    }
    // What follows is for one process: the others end here.
    ranks::finish();
    if summary.interrupted {
        let reason = if is_up { "time is up" } else { "stopped" };
        println!("{reason} at step {}; go on with --out {} --resume", summary.step, run.out.display());
    }
    let report = !summary.interrupted || is_up;
    Ok(Trained { summary, report, task: trainer.into_task() })
}
