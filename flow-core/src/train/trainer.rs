//! The loop.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::checkpoint::{Checkpoints, Resumption, Snapshot};
use super::clip::clip_global_norm;
use super::communicator::{Communicator, Solo, average, average_metrics, broadcast_weights};
use super::config::{TrainConfig, due};
use super::ema::Ema;
use super::events::{EventLog, RecordKind};
use super::files::fault;
use super::guard::Verdict;
use super::optimizer::Optimizer;
use super::progress::{Progress, StepReport};
use super::rate::Rate;
use super::schedule::Schedule;
use super::state::{RunState, Scheduled};
use super::stop::StopFlag;
use super::task::{Metrics, Task};
use crate::{Error, FlowRng, Gradients, Result};

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Finished steps.
    pub step: u64,
    /// Whether it was asked to stop before its end; resume it to go on.
    pub interrupted: bool,
    /// Whether early stop ended it.
    pub stopped_early: bool,
    /// The best objective of a validation and its step.
    pub best: Option<(f64, u64)>,
    /// Metrics of the last step of this part of the run.
    pub train: Metrics,
    /// Metrics of the last validation of this part of the run.
    pub validation: Option<Metrics>,
    /// Non-finite steps that were skipped.
    pub skipped: u64,
    /// Seconds spent in training steps, earlier parts of the run included.
    pub seconds: f64,
}

/// A [`Task`] in training.
///
/// The output folder receives `checkpoints/`, `log.jsonl`, `tensorboard/` and `previews/`.
///
/// The order within a step is fixed: the task's gradient, mean over ranks, clipping, the guard, the
/// optimizer, the average of the weights; then the log, validation, preview and checkpoint where due.
pub struct Trainer<T> {
    config: TrainConfig,
    out: PathBuf,
    task: T,
    channel: Box<dyn Communicator>,
    stop: StopFlag,
    checkpoints: Checkpoints,
    gradients: Gradients,
    optimizer: Optimizer,
    ema: Option<Ema>,
    schedule: Schedule,
    state: RunState,
    rate: Rate,
    initialized: bool,
}

/// What one step leaves for those who look on.
struct Taken {
    metrics: Metrics,
    learning_rate: f64,
    norm: f64,
    verdict: Verdict,
    stop: bool,
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
        let trainer = Self::unstarted(config, out.into(), task)?;
        match trainer.checkpoints.latest()? {
            None => Ok(trainer),
            Some(found) => Err(fault(found, "the folder holds a run already; resume it or choose another folder")),
        }
    }

    /// Continues the run in `out` from its newest complete checkpoint.
    ///
    /// Numbers of steps and intervals may differ from those of the earlier part; what shapes the path of
    /// the weights may not.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when there is none, or naming every hyper-parameter, tensor name, shape and
    /// dtype that differs.
    pub fn resume(config: TrainConfig, out: impl Into<PathBuf>, task: T) -> Result<Self> {
        let mut trainer = Self::unstarted(config, out.into(), task)?;
        match trainer.checkpoints.latest()? {
            None => Err(fault(&trainer.out, "holds no complete checkpoint to resume from")),
            Some(found) => trainer.load(&found).map(|()| trainer),
        }
    }

    /// [`Trainer::resume`] if `out` holds a complete checkpoint, [`Trainer::new`] otherwise: what a job that
    /// may be killed and restarted wants.
    pub fn resume_or_start(config: TrainConfig, out: impl Into<PathBuf>, task: T) -> Result<Self> {
        let mut trainer = Self::unstarted(config, out.into(), task)?;
        match trainer.checkpoints.latest()? {
            None => Ok(trainer),
            Some(found) => trainer.load(&found).map(|()| trainer),
        }
    }

    /// Trains together with the other ranks of `channel`; they share `out`, into which rank 0 writes.
    #[must_use]
    pub fn with_communicator(mut self, channel: impl Communicator + 'static) -> Self {
        self.channel = Box::new(channel);
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

    /// The run's checkpoints.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    fn unstarted(config: TrainConfig, out: PathBuf, task: T) -> Result<Self> {
        config.check()?;
        let store = task.store();
        let state = RunState::fresh(&config, task.data_state());
        Ok(Trainer {
            channel: Box::new(Solo),
            stop: StopFlag::new(),
            checkpoints: Checkpoints::new(&out),
            gradients: Gradients::new(store),
            optimizer: Optimizer::new(config.optimizer.clone(), store)?,
            ema: config.ema.clone().map(|ema| Ema::new(ema, store)).transpose()?,
            schedule: Schedule::new(config.schedule.clone(), config.steps, state.schedule.clone()),
            state,
            rate: Rate::default(),
            initialized: false,
            config,
            out,
            task,
        })
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        let resumption = Resumption {
            store: self.task.store(),
            task: self.task.config(),
            train: &self.config,
            optimizer: &mut self.optimizer,
            ema: self.ema.as_mut(),
        };
        self.state = resumption.load(folder)?;
        self.task.restore_data_state(&self.state.data)?;
        self.schedule = Schedule::new(self.config.schedule.clone(), self.config.steps, self.state.schedule.clone());
        self.initialized = true;
        Ok(())
    }

    /// Trains until the configured number of steps, an early stop or a request to stop.
    ///
    /// # Errors
    /// What the task returns; [`Error::NonFinite`] after too many non-finite steps in a row; [`Error::Io`]
    /// naming the file that could not be written. The checkpoints written before stay valid.
    pub fn run(&mut self, progress: &mut dyn Progress) -> Result<Summary> {
        let lead = self.channel.rank() == 0;
        let _lock = if lead { Some(self.claim_folder()?) } else { None };
        if !self.initialized {
            self.initialize()?;
        }
        let mut log = if lead { Some(EventLog::open(&self.out, self.state.step)?) } else { None };
        let mut unseen = ();
        let progress = if lead { progress } else { &mut unseen };
        progress.start(self.state.step, self.config.steps, self.task.unit());
        let summary = self.train(log.as_mut(), progress)?;
        progress.finish(&summary);
        Ok(summary)
    }

    fn train(&mut self, mut log: Option<&mut EventLog>, progress: &mut dyn Progress) -> Result<Summary> {
        let (mut last, mut validation, mut stopped) = (Metrics::new(), None, false);
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
            last = taken.metrics;
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
        let Some(every) = self.config.validate_every else { return Ok(None) };
        if self.state.validated == self.state.step || due(Some(every), self.state.step) || self.finished() {
            return Ok(None);
        }
        let lead = self.channel.rank() == 0;
        let _lock = if lead { Some(self.claim_folder()?) } else { None };
        let mut log = if lead { Some(EventLog::open(&self.out, self.state.step)?) } else { None };
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

    /// Creates the output folder, makes sure that no other process writes there, and tidies up.
    fn claim_folder(&self) -> Result<File> {
        std::fs::create_dir_all(&self.out).map_err(Error::io(&self.out))?;
        let path = self.out.join(".lock");
        let options = OpenOptions::new().create(true).write(true).truncate(false).open(&path);
        let lock = options.map_err(Error::io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let reason = "another process is training into this folder";
                return Err(Error::config(self.out.display().to_string(), reason));
            }
            // Some network file systems have no locks; that is no reason not to train.
            Err(TryLockError::Error(_)) => {}
        }
        self.checkpoints.clean()?;
        Ok(lock)
    }

    /// Data-dependent initialisation, the same on all ranks.
    fn initialize(&mut self) -> Result<()> {
        self.task.initialize(&mut FlowRng::named(self.config.seed, "initialization"))?;
        broadcast_weights(self.channel.as_ref(), self.task.store())?;
        let fresh = |ema| Ema::new(ema, self.task.store());
        self.ema = self.config.ema.clone().map(fresh).transpose()?;
        self.initialized = true;
        Ok(())
    }

    /// One step: gradient, mean over ranks, clipping, guard, update.
    fn advance(&mut self) -> Result<Taken> {
        let started = Instant::now();
        let step = self.state.step;
        // Every rank draws the same child from the common generator and descends to its own.
        let mut rng = (0..self.channel.rank()).fold(self.state.rng.fork(), |mut rng, _| rng.fork());
        self.gradients.clear();
        let (mut metrics, source) = match self.task.step(step, &mut rng, &mut self.gradients) {
            Ok(metrics) => (metrics, None),
            Err(error @ (Error::NonFinite { .. } | Error::Solver { .. })) => {
                (vec![("loss".to_string(), f64::NAN)], Some(error))
            }
            Err(error) => return Err(error),
        };
        let first =
            metrics.first_mut().ok_or_else(|| Error::config("task", "a step returned no metrics, not even a loss"))?;
        let mut shared = [first.1, f64::from(u8::from(self.stop.is_set()))];
        average(self.channel.as_ref(), &mut self.gradients, &mut shared)?;
        let [loss, stop] = shared;
        first.1 = loss;
        let norm = clip_global_norm(&mut self.gradients, self.config.clip_norm)?.norm;
        let limit = self.config.max_non_finite;
        let verdict = self.state.non_finite.judge(step, loss, norm, &self.gradients, source.as_ref(), limit)?;
        let factor = self.schedule.factor(step);
        if verdict == Verdict::Update {
            self.optimizer.step(&self.gradients, factor)?;
            self.ema.as_mut().map_or(Ok(()), Ema::update)?;
        }
        self.state.step += 1;
        let seconds = started.elapsed().as_secs_f64();
        self.state.seconds += seconds;
        self.rate.add(self.task.samples_per_step() * self.channel.world_size(), seconds);
        let learning_rate = self.config.optimizer.learning_rate * factor;
        Ok(Taken { metrics, learning_rate, norm, verdict, stop: stop > 0.0 })
    }

    /// Shows a step, and logs it where due.
    fn report(&self, taken: &Taken, log: Option<&mut EventLog>, progress: &mut dyn Progress) -> Result<()> {
        let report = StepReport {
            step: self.state.step,
            metrics: &taken.metrics,
            learning_rate: taken.learning_rate,
            gradient_norm: taken.norm,
            samples_per_second: self.rate.per_second(),
            skipped: self.state.non_finite.total,
        };
        progress.step(&report);
        let skipped = taken.verdict == Verdict::Skip;
        if skipped && self.state.non_finite.consecutive == 1 {
            let loss = taken.metrics.first().map_or(f64::NAN, |(_, loss)| *loss);
            progress.note(&format!("step {} skipped: loss {loss}, gradient norm {}", report.step, taken.norm));
        }
        let Some(log) = log.filter(|_| due(Some(self.config.log_every), report.step) || skipped) else { return Ok(()) };
        let mut values = taken.metrics.clone();
        values.push(("learning_rate".into(), report.learning_rate));
        values.push(("gradient_norm".into(), report.gradient_norm));
        values.push(("samples_per_second".into(), report.samples_per_second));
        values.push(("skipped_steps".into(), report.skipped as f64));
        log.record(RecordKind::Train, report.step, values)
    }

    /// Validates with the averaged weights, and keeps the checkpoint if it is the best.
    fn validate(
        &mut self,
        counted: Counted,
        log: Option<&mut EventLog>,
        progress: &mut dyn Progress,
    ) -> Result<Metrics> {
        let mut rng = FlowRng::named(self.config.seed, "validation");
        let task = &mut self.task;
        let mut metrics = match &mut self.ema {
            Some(ema) => ema.during(|| task.validate(&mut rng))?,
            None => task.validate(&mut rng)?,
        };
        average_metrics(self.channel.as_ref(), &mut metrics)?;
        let Some(&(_, objective)) = metrics.first() else {
            return Err(Error::config("task", "a validation returned no metrics, not even an objective"));
        };
        let to_beat = self.state.to_beat();
        if counted == Counted::Yes {
            self.schedule.observe(objective);
            self.state.stale_validations = if objective < to_beat { 0 } else { self.state.stale_validations + 1 };
            if self.state.best_scheduled.is_some() {
                self.state.best_scheduled = Some(Scheduled(objective.min(to_beat)));
            }
        } else {
            self.state.best_scheduled = Some(Scheduled(to_beat));
        }
        let improved = objective < self.state.best;
        if improved {
            (self.state.best, self.state.best_step) = (objective, self.state.step);
        }
        let apart = |scheduled: &Scheduled| scheduled.0 != self.state.best;
        self.state.best_scheduled = self.state.best_scheduled.filter(apart);
        self.state.validated = self.state.step;
        progress.validation(self.state.step, &metrics, self.state.best);
        if let Some(log) = log {
            log.record(RecordKind::Validation, self.state.step, metrics.clone())?;
            if improved {
                self.save(true)?;
            }
        }
        Ok(metrics)
    }

    fn preview(&mut self) -> Result<()> {
        if self.channel.rank() != 0 {
            return Ok(());
        }
        let folder = self.out.join("previews");
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mut rng = FlowRng::named(self.config.seed, "preview");
        let (task, step) = (&mut self.task, self.state.step);
        match &mut self.ema {
            Some(ema) => ema.during(|| task.preview(&folder, step, &mut rng)),
            None => task.preview(&folder, step, &mut rng),
        }
    }

    fn checkpoint(&mut self, log: Option<&mut EventLog>) -> Result<()> {
        if let Some(log) = log {
            // The log first: it may run ahead of the checkpoint, which cuts it off on resume, but not lag behind.
            log.flush()?;
            self.save(false)?;
        }
        self.channel.barrier()
    }

    fn save(&mut self, best: bool) -> Result<()> {
        self.state.schedule = self.schedule.state().clone();
        self.state.ema_updates = self.ema.as_ref().map_or(0, Ema::updates);
        self.state.data = self.task.data_state();
        let snapshot = Snapshot {
            store: self.task.store(),
            task: self.task.config(),
            train: &self.config,
            optimizer: &self.optimizer,
            ema: self.ema.as_ref(),
            state: &self.state,
        };
        if best {
            self.checkpoints.save_best(&snapshot)
        } else {
            self.checkpoints.save(&snapshot, self.config.keep_last).map(drop)
        }
    }
}
