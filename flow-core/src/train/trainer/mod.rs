//! The loop.

mod output;
mod ranks;
mod step;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::checkpoint::{Checkpoints, Resumption};
use super::communicator::{Agreed, Alarm, Communicator, Overlap, Ranks, Solo, agree};
use super::config::{TrainConfig, due};
use super::ema::Ema;
use super::events::{EventLog, RecordKind};
use super::files::{Tensors, fault};
use super::fingerprint::Fingerprint;
use super::metrics::Metrics;
use super::optimizer::Optimizer;
use super::progress::Progress;
use super::rate::Rate;
use super::schedule::Schedule;
use super::state::RunState;
use super::stop::StopFlag;
use super::summary::Summary;
use super::task::Task;
use crate::param::Peers;
use crate::{Error, FlowRng, Gradients, Result};

/// A [`Task`] in training.
///
/// The output folder receives `checkpoints/`, `log.jsonl`, `tensorboard/` and `previews/`.
///
/// The order within a step is fixed: the task's gradient, mean over ranks, clipping, the guard, the
/// optimizer, the average of the weights; then the log, validation, preview and checkpoint where due.
pub struct Trainer<T> {
    config: TrainConfig,
    out: Option<Folder>,
    task: T,
    /// The task's description as it is written to every checkpoint.
    described: Value,
    data: Option<Fingerprint>,
    /// What is to be said before the first step.
    notes: Vec<String>,
    channel: Arc<dyn Communicator>,
    /// The other ranks as layers see them that take statistics of a batch.
    peers: Option<Arc<dyn Peers>>,
    /// How gradients are summed while others are made.
    overlap: Option<Overlap>,
    /// Whether the ranks know each other.
    joined: bool,
    /// Whether the first rank has a folder, which keeps the best weights.
    first_keeps: bool,
    stop: StopFlag,
    gradients: Gradients,
    optimizer: Optimizer,
    ema: Option<Ema>,
    schedule: Schedule,
    state: RunState,
    rate: Rate,
    initialized: bool,
    /// The weights of the best validation, where there is no folder to keep them in.
    best: Option<Tensors>,
}

/// Where a run writes.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    checkpoints: Checkpoints,
}

/// Whether a validation counts for patience and plateaus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Yes,
    No,
}

impl<T: Task> Trainer<T> {
    /// A fresh run that writes into `out`.
    ///
    /// # Errors
    /// [`Error::Config`] naming a field outside its range; [`Error::Checkpoint`] when `out` holds
    /// checkpoints already.
    pub fn new(config: TrainConfig, out: impl Into<PathBuf>, task: T) -> Result<Self> {
        let out = out.into();
        Checkpoints::new(&out).check_free()?;
        Self::unstarted(config, Some(out), task)
    }

    /// A fresh run that writes nothing: no folder, no log, no checkpoints, no previews. The weights of the best
    /// validation are kept in memory; [`Trainer::take_best`] puts them in place.
    ///
    /// # Errors
    /// [`Error::Config`] naming a field outside its range.
    pub fn in_memory(config: TrainConfig, task: T) -> Result<Self> {
        Self::unstarted(config, None, task)
    }

    /// Continues the run in `out` from its newest complete checkpoint.
    ///
    /// Numbers of steps and intervals may differ from those of the earlier part; what shapes the path of
    /// the weights may not.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when there is none, when the data are not those of the run, or naming the
    /// hyper-parameters, tensor names, shapes and dtypes that differ.
    pub fn resume(config: TrainConfig, out: impl Into<PathBuf>, task: T) -> Result<Self> {
        let out = out.into();
        let found = Checkpoints::new(&out).to_resume()?;
        let mut trainer = Self::unstarted(config, Some(out), task)?;
        trainer.pass_over_damaged()?;
        trainer.load(&found)?;
        Ok(trainer)
    }

    /// [`Trainer::resume`] if `out` holds a complete checkpoint, [`Trainer::new`] otherwise: what a job that
    /// may be killed and restarted wants.
    ///
    /// # Errors
    /// As the two.
    pub fn resume_or_start(config: TrainConfig, out: impl Into<PathBuf>, task: T) -> Result<Self> {
        let mut trainer = Self::unstarted(config, Some(out.into()), task)?;
        match trainer.latest()? {
            None => Ok(trainer),
            Some(found) => {
                trainer.pass_over_damaged()?;
                trainer.load(&found).map(|()| trainer)
            }
        }
    }

    /// Trains together with the other ranks of `channel`.
    ///
    /// Rank 0 alone reads and writes the folder: where it begins or goes on, the others do so with it, whatever they were
    /// made with. They need not see the folder and are best made by [`Trainer::in_memory`].
    #[must_use]
    pub fn with_communicator(mut self, channel: impl Communicator + 'static) -> Self {
        self.channel = Arc::new(channel);
        self
    }

    /// As [`Trainer::with_communicator`].
    #[must_use]
    pub(in crate::train) fn with_ranks(mut self, ranks: &Ranks) -> Self {
        self.channel = ranks.channel();
        self
    }

    /// Stops cleanly once `stop` is raised.
    #[must_use]
    pub fn with_stop(mut self, stop: StopFlag) -> Self {
        self.stop = stop;
        self
    }

    /// The task.
    pub fn task(&self) -> &T {
        &self.task
    }

    /// The task, for use after the run.
    pub fn into_task(self) -> T {
        self.task
    }

    /// The average of the weights, if it is on.
    pub fn ema(&mut self) -> Option<&mut Ema> {
        self.ema.as_mut()
    }

    /// The run's counters.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// What the run learns from, if its task says so.
    pub fn fingerprint(&self) -> Option<&Fingerprint> {
        self.data.as_ref()
    }

    /// The run's checkpoints; `None` for a run in memory.
    pub fn checkpoints(&self) -> Option<&Checkpoints> {
        self.out.as_ref().map(|out| &out.checkpoints)
    }

    fn latest(&self) -> Result<Option<PathBuf>> {
        self.checkpoints().map_or(Ok(None), Checkpoints::latest)
    }

    /// Takes note of checkpoints that are newer than the one to go on from, and damaged.
    fn pass_over_damaged(&mut self) -> Result<()> {
        let Some(checkpoints) = self.checkpoints() else { return Ok(()) };
        let (_, damaged) = checkpoints.latest_and_damaged()?;
        self.notes.extend(damaged.iter().map(|fault| format!("passed over a damaged checkpoint: {fault}")));
        Ok(())
    }

    fn unstarted(config: TrainConfig, out: Option<PathBuf>, task: T) -> Result<Self> {
        config.check()?;
        let store = task.store();
        let state = RunState::fresh(config.seed, json("position in the data", &task.position())?);
        Ok(Trainer {
            channel: Arc::new(Solo),
            peers: None,
            overlap: None,
            joined: false,
            first_keeps: out.is_some(),
            stop: StopFlag::new(),
            described: json("description of the run", task.run())?,
            data: task.fingerprint(),
            notes: Vec::new(),
            gradients: Gradients::new(store),
            optimizer: Optimizer::new(config.optimizer.clone(), store)?,
            ema: config.ema.clone().map(|ema| Ema::new(ema, store)).transpose()?,
            schedule: Schedule::new(config.schedule.clone(), config.steps, state.schedule.clone()),
            state,
            rate: Rate::default(),
            initialized: false,
            best: None,
            config,
            out: out.map(|path| Folder { checkpoints: Checkpoints::new(&path), path }),
            task,
        })
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        let resumption = Resumption {
            store: self.task.store(),
            task: self.described.clone(),
            train: &self.config,
            data: self.data.clone(),
            location: T::LOCATION,
            optimizer: &mut self.optimizer,
            ema: self.ema.as_mut(),
        };
        let state = resumption.load(folder)?;
        self.go_on(state).map_err(|reason| fault(folder, reason))?
    }

    /// Takes the counters of a run that goes on and its place in the data; the outer error is of a place that is none.
    fn go_on(&mut self, state: RunState) -> std::result::Result<Result<()>, String> {
        let position = serde_json::from_value(state.data.clone()).map_err(|e| format!("position in the data: {e}"))?;
        self.state = state;
        self.schedule = Schedule::new(self.config.schedule.clone(), self.config.steps, self.state.schedule.clone());
        self.initialized = true;
        Ok(self.task.restore(position).map_err(Into::into))
    }

    /// Trains until the configured number of steps, an early stop or a request to stop.
    ///
    /// # Errors
    /// What the task returns; [`Error::NonFinite`] after too many non-finite steps in a row; [`Error::Io`]
    /// naming the file that could not be written. The checkpoints written before stay valid. With several ranks also
    /// [`Error::Config`] when they differ in what they were started with or the task cannot be shared out; an error of one
    /// rank ends all of them ([`Communicator::abort`]).
    pub fn run(&mut self, progress: &mut dyn Progress) -> Result<Summary> {
        self.together(|trainer| trainer.run_as_rank(progress))
    }

    /// Does something that the ranks do together: the failure of one is the failure of all.
    fn together<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        let channel = self.channel.clone();
        let _alarm = Alarm(channel.as_ref());
        let outcome = work(self);
        if let Err(error) = &outcome {
            channel.abort(&error.to_string());
        }
        outcome
    }

    fn run_as_rank(&mut self, progress: &mut dyn Progress) -> Result<Summary> {
        let lead = self.channel.rank() == 0;
        let _lock = if lead { self.claim_folder()? } else { None };
        self.join()?;
        if !self.initialized {
            self.initialize()?;
        }
        let mut log = if lead { self.open_log()? } else { None };
        let mut unseen = ();
        let progress = if lead { progress } else { &mut unseen };
        progress.start(self.state.step, self.config.steps);
        self.notes.drain(..).for_each(|note| progress.note(&note));
        let summary = self.train(log.as_mut(), progress)?;
        progress.finish(&summary);
        Ok(summary)
    }

    fn train(&mut self, mut log: Option<&mut EventLog>, progress: &mut dyn Progress) -> Result<Summary> {
        let (mut last, mut validation, mut stopped) = (None, None, false);
        while !self.finished() && !stopped {
            let taken = self.advance()?;
            let step = self.state.step;
            self.report(&taken, log.as_deref_mut(), progress)?;
            if due(self.config.validate_every, step)
                || (self.config.validate_every.is_some() && step == self.config.steps)
            {
                validation = Some(self.validate(Counted::Yes, log.as_deref_mut(), progress)?);
            }
            if due(self.config.preview_every, step) {
                self.preview()?;
            }
            // Alone, a run need not wait for the next step to hear of a stop asked for during a validation.
            stopped = taken.stop || (self.channel.world_size() == 1 && self.stop.is_set());
            if stopped || self.finished() || due(self.config.checkpoint_every, step) {
                self.checkpoint(log.as_deref_mut())?;
            }
            last = Some(taken.metrics);
        }
        Ok(Summary {
            step: self.state.step,
            interrupted: stopped && !self.finished(),
            stopped_early: self.out_of_patience(),
            best: self.state.best_so_far(),
            train: last,
            validation,
            skipped: self.state.non_finite.total,
            seconds: self.state.seconds,
        })
    }

    /// Validates the last weights of a run that was stopped between two validations, so that they can be the best ones;
    /// returns `None` if they were validated already, or the run validates nothing. With ranks, all of them call it.
    ///
    /// Patience and plateaus do not count it: a resumed run goes on as if it had not been.
    ///
    /// # Errors
    /// As [`Trainer::run`].
    pub fn validate_last(&mut self, progress: &mut dyn Progress) -> Result<Option<Metrics>> {
        self.together(|trainer| trainer.validate_as_rank(progress))
    }

    fn validate_as_rank(&mut self, progress: &mut dyn Progress) -> Result<Option<Metrics>> {
        let Some(every) = self.config.validate_every else { return Ok(None) };
        if self.state.validated == self.state.step || due(Some(every), self.state.step) || self.finished() {
            return Ok(None);
        }
        let lead = self.channel.rank() == 0;
        let _lock = if lead { self.claim_folder()? } else { None };
        let mut log = if lead { self.open_log()? } else { None };
        let mut unseen = ();
        let progress = if lead { progress } else { &mut unseen };
        let metrics = self.validate(Counted::No, log.as_mut(), progress)?;
        // The newest checkpoint has to know of the best one.
        self.checkpoint(log.as_mut())?;
        Ok(Some(metrics))
    }

    fn out_of_patience(&self) -> bool {
        self.config.early_stop_patience.is_some_and(|patience| self.state.stale_validations >= patience)
    }

    fn finished(&self) -> bool {
        self.state.step >= self.config.steps || self.out_of_patience()
    }

    /// Data-dependent initialisation, the same on all ranks.
    fn initialize(&mut self) -> Result<()> {
        self.task.initialize(&mut FlowRng::named(self.config.seed, "initialization")).map_err(Into::into)?;
        self.share_weights()?;
        let fresh = |ema| Ema::new(ema, self.task.store());
        self.ema = self.config.ema.clone().map(fresh).transpose()?;
        self.initialized = true;
        Ok(())
    }

    /// Validates with the averaged weights, and keeps them if they are the best.
    fn validate(
        &mut self,
        counted: Counted,
        log: Option<&mut EventLog>,
        progress: &mut dyn Progress,
    ) -> Result<Metrics> {
        let mut rng = FlowRng::named(self.config.seed, "validation");
        let task = &mut self.task;
        let own = match &mut self.ema {
            Some(ema) => ema.during(|| task.validate(&mut rng).map_err(Into::into))?,
            None => task.validate(&mut rng).map_err(Into::into)?,
        };
        let metrics = agree(self.channel.as_ref(), Agreed::of(own))?.metrics;
        let objective = metrics.objective.value;
        if counted == Counted::Yes {
            self.schedule.observe(objective);
        }
        let improved = self.state.judge(objective, counted == Counted::Yes);
        progress.validation(self.state.step, &metrics, self.state.best);
        if let Some(log) = log {
            log.record(RecordKind::Validation, self.state.step, metrics.named())?;
        }
        if improved {
            self.keep_best()?;
        }
        Ok(metrics)
    }
}

/// A description or a position as JSON.
fn json(what: &str, value: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Error::config(what, format!("cannot be written as JSON: {e}")))
}
