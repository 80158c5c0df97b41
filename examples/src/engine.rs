//! The flags of the training engine: one set for every verb that trains.
//!
//! A program supplies its recipe, a [`TrainConfig`], and the flags change of it what the user gave and nothing else. What a
//! recipe sets where no flag is given stands in the help text, in words: see [`default_is`].

use std::path::Path;

use anyhow::{Result, bail};
use candle_core::Device;
use clap::{Arg, Args, ValueEnum};
use flow_core::train::{Checkpoints, Decay, EmaConfig, ScheduleConfig, TrainConfig, load_train_config};

use crate::cli::{DeviceArg, at_least_one, refuse};
use crate::ranks;
use crate::training::{RunArg, TimeLimit};

/// How the learning rate goes on after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScheduleName {
    /// It stays.
    Constant,
    /// It falls along half a cosine wave until the last step, to zero if the recipe has no other end.
    Cosine,
    /// It stays for half of the run and then falls along a straight line to zero.
    Linear,
    /// It is halved whenever five validations in a row were no better than the best.
    Plateau,
}

/// Flags of the training engine, flattened into the arguments of a verb.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Training")]
pub struct EngineArgs {
    /// Continue the run in --out with its own settings; flags that are given again replace them
    #[arg(long)]
    resume: bool,
    /// Steps of the whole run
    #[arg(long)]
    steps: Option<u64>,
    /// Minutes after which the run stops and reports; the schedule of the learning rate still follows --steps [default: no limit]
    #[arg(long)]
    minutes: Option<f64>,
    /// Samples per step
    #[arg(long)]
    batch_size: Option<usize>,
    /// Learning rate at its highest, after the warm-up
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Steps over which the learning rate rises from zero
    #[arg(long)]
    warmup: Option<u64>,
    /// Learning rate after the warm-up
    #[arg(long, value_enum)]
    schedule: Option<ScheduleName>,
    /// An earlier spelling of --schedule cosine
    #[arg(long, hide = true)]
    cosine: bool,
    /// An earlier spelling of --schedule constant
    #[arg(long, hide = true, alias = "plain")]
    constant: bool,
    /// Decay of the running average of the weights, 0 for none
    #[arg(long)]
    ema: Option<f64>,
    /// Largest norm of the gradient, longer ones are shortened to it; 0 for no limit
    #[arg(long, value_name = "NORM")]
    clip: Option<f64>,
    /// Stop after this many validations without a new best [default: never]
    #[arg(long, value_name = "N")]
    patience: Option<u64>,
    /// Steps between validations
    #[arg(long)]
    validate_every: Option<u64>,
    /// Steps between checkpoints
    #[arg(long)]
    checkpoint_every: Option<u64>,
    /// Steps between previews in OUT/previews [default: no previews]
    #[arg(long)]
    preview_every: Option<u64>,
    /// Steps between lines of log.jsonl [default: 10]
    #[arg(long)]
    log_every: Option<u64>,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl EngineArgs {
    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Opens the device.
    ///
    /// # Errors
    /// Those of [`DeviceArg::open`].
    pub fn device(&self) -> Result<Device> {
        self.device.open()
    }

    /// Samples per step: those that were asked for, or those of the recipe.
    ///
    /// # Errors
    /// A batch of zero.
    pub fn batch(&self, recipe: usize) -> Result<usize> {
        at_least_one("--batch-size", self.batch_size.unwrap_or(1))?;
        Ok(self.batch_size.unwrap_or(recipe))
    }

    /// Where the run writes and how it begins and ends.
    ///
    /// Asked before data are read or drawn, so that a folder which cannot be used costs nothing.
    ///
    /// # Errors
    /// A time limit that is not positive, a folder that holds a run already, or none to resume.
    pub fn place<'a>(&self, out: &'a Path) -> Result<RunArg<'a>> {
        let checkpoints = Checkpoints::new(out);
        // Only the first of several processes needs to see the folder.
        match ranks::is_first() {
            true if self.resume => checkpoints.to_resume().map(drop)?,
            true => checkpoints.check_free()?,
            false => {}
        }
        Ok(RunArg { out, resume: self.resume, limit: TimeLimit::new(self.minutes)? })
    }

    /// The recipe for a run of `steps`, unless another number was asked for, with what the flags change.
    ///
    /// A run that goes on keeps its schedule, whatever its length is now: a recipe's warm-up follows the steps. The values
    /// are checked by the engine, which names the field.
    ///
    /// # Errors
    /// Two different schedules, a checkpoint to resume that cannot be read, or a `FLOW_RANKS_OVERLAP` that is not understood.
    pub fn config(
        &self,
        place: &RunArg<'_>,
        steps: u64,
        recipe: impl FnOnce(u64) -> TrainConfig,
    ) -> Result<TrainConfig> {
        let mut config = recipe(self.steps.unwrap_or(steps));
        config.seed = self.seed;
        config.optimizer.learning_rate = self.learning_rate.unwrap_or(config.optimizer.learning_rate);
        let kept = match place.resume {
            true => ranks::from_first(|| Ok(load_train_config(&Checkpoints::new(place.out).to_resume()?)?))?,
            false => None,
        };
        config.schedule = self.schedule(kept.map_or(config.schedule, |kept| kept.schedule))?;
        if let Some(decay) = self.ema {
            config.ema = (decay != 0.0).then_some(EmaConfig { decay });
        }
        if let Some(norm) = self.clip {
            config.clip_norm = (norm != 0.0).then_some(norm);
        }
        config.early_stop_patience = self.patience.or(config.early_stop_patience);
        config.validate_every = self.validate_every.or(config.validate_every);
        config.checkpoint_every = self.checkpoint_every.or(config.checkpoint_every);
        config.preview_every = self.preview_every.or(config.preview_every);
        config.log_every = self.log_every.unwrap_or(config.log_every);
        config.overlap = ranks::overlap()?;
        Ok(config)
    }

    fn schedule(&self, recipe: ScheduleConfig) -> Result<ScheduleConfig> {
        let spelled = [
            self.schedule,
            self.cosine.then_some(ScheduleName::Cosine),
            self.constant.then_some(ScheduleName::Constant),
        ];
        let mut names = spelled.into_iter().flatten();
        let warmup = self.warmup.unwrap_or(recipe.warmup_steps);
        let Some(name) = names.next() else { return Ok(ScheduleConfig { warmup_steps: warmup, ..recipe }) };
        if let Some(other) = names.find(|&other| other != name) {
            bail!("--schedule: a run has one, got {name:?} and {other:?}; leave one of them out");
        }
        Ok(match (name, recipe.decay) {
            (ScheduleName::Constant, _) => ScheduleConfig::constant(warmup),
            (ScheduleName::Cosine, Decay::Cosine { floor }) => ScheduleConfig::cosine(warmup, floor),
            (ScheduleName::Cosine, _) => ScheduleConfig::cosine(warmup, 0.0),
            (ScheduleName::Linear, _) => ScheduleConfig::linear(warmup, 0.5),
            (ScheduleName::Plateau, _) => ScheduleConfig::plateau(warmup, 0.5, 5),
        })
    }

    /// Refuses `--preview-every` where there is nothing to preview.
    ///
    /// # Errors
    /// The flag with `reason`.
    pub fn without_previews(&self, reason: &str) -> Result<()> {
        refuse(&[("--preview-every", self.preview_every.is_some())], reason)
    }

    /// Refuses every flag of a run that leaves checkpoints, where fits are made in memory.
    ///
    /// # Errors
    /// The flags that were given, with `reason`.
    pub fn without_checkpoints(&self, reason: &str) -> Result<()> {
        let flags = [
            ("--resume", self.resume),
            ("--minutes", self.minutes.is_some()),
            ("--checkpoint-every", self.checkpoint_every.is_some()),
            ("--log-every", self.log_every.is_some()),
            ("mpirun", ranks::are_several()),
        ];
        refuse(&flags, reason)
    }

    /// Refuses every flag that only a training reads; seed and device are read without one too.
    ///
    /// # Errors
    /// The flags that were given, with `reason`.
    pub fn without_training(&self, reason: &str) -> Result<()> {
        let flags = [
            ("--resume", self.resume),
            ("--steps", self.steps.is_some()),
            ("--minutes", self.minutes.is_some()),
            ("--batch-size", self.batch_size.is_some()),
            ("--learning-rate", self.learning_rate.is_some()),
            ("--warmup", self.warmup.is_some()),
            ("--schedule", self.schedule.is_some() || self.cosine || self.constant),
            ("--ema", self.ema.is_some()),
            ("--clip", self.clip.is_some()),
            ("--patience", self.patience.is_some()),
            ("--validate-every", self.validate_every.is_some()),
            ("--checkpoint-every", self.checkpoint_every.is_some()),
            ("--preview-every", self.preview_every.is_some()),
            ("--log-every", self.log_every.is_some()),
        ];
        refuse(&flags, reason)
    }
}

/// Says in the help text of a flag what happens without it: `#[command(mut_arg("steps", default_is("3,000")))]`.
pub fn default_is(words: &str) -> impl FnOnce(Arg) -> Arg {
    let default = format!(" [default: {words}]");
    move |arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        arg.help(help + &default)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use flow_core::train::OptimizerConfig;

    use super::*;

    #[derive(Parser, Debug)]
    #[command(mut_arg("steps", default_is("seven")))]
    struct Cli {
        #[command(flatten)]
        engine: EngineArgs,
    }

    fn parse(flags: &str) -> EngineArgs {
        Cli::try_parse_from(["program"].into_iter().chain(flags.split_whitespace())).unwrap().engine
    }

    fn recipe(steps: u64) -> TrainConfig {
        TrainConfig {
            steps,
            optimizer: OptimizerConfig::adam(0.5),
            schedule: ScheduleConfig::cosine(9, 0.25),
            clip_norm: Some(2.0),
            ema: Some(EmaConfig { decay: 0.75 }),
            ..TrainConfig::default()
        }
    }

    /// A run that begins.
    fn fresh() -> RunArg<'static> {
        RunArg { out: Path::new("out"), resume: false, limit: TimeLimit::default() }
    }

    fn config(flags: &str) -> TrainConfig {
        parse(flags).config(&fresh(), 70, recipe).unwrap()
    }

    #[test]
    fn a_recipe_keeps_what_no_flag_names() {
        assert_eq!(config(""), recipe(70));
        assert_eq!(config("--steps 3"), recipe(3));
    }

    #[test]
    fn every_flag_changes_its_field_and_no_other() {
        let base = recipe(70);
        let cases = [
            ("--learning-rate 0.125", TrainConfig { optimizer: OptimizerConfig::adam(0.125), ..base.clone() }),
            ("--warmup 4", TrainConfig { schedule: ScheduleConfig::cosine(4, 0.25), ..base.clone() }),
            ("--ema 0.5", TrainConfig { ema: Some(EmaConfig { decay: 0.5 }), ..base.clone() }),
            ("--ema 0", TrainConfig { ema: None, ..base.clone() }),
            ("--clip 8", TrainConfig { clip_norm: Some(8.0), ..base.clone() }),
            ("--clip 0", TrainConfig { clip_norm: None, ..base.clone() }),
            ("--patience 2", TrainConfig { early_stop_patience: Some(2), ..base.clone() }),
            ("--validate-every 3", TrainConfig { validate_every: Some(3), ..base.clone() }),
            ("--checkpoint-every 3", TrainConfig { checkpoint_every: Some(3), ..base.clone() }),
            ("--preview-every 3", TrainConfig { preview_every: Some(3), ..base.clone() }),
            ("--log-every 3", TrainConfig { log_every: 3, ..base.clone() }),
            ("--seed 3", TrainConfig { seed: 3, ..base.clone() }),
        ];
        for (flags, expected) in cases {
            assert_eq!(config(flags), expected, "{flags}");
            let refused = parse(flags).without_training("for trainings").is_err();
            assert_eq!(refused, flags != "--seed 3", "{flags}");
        }
    }

    #[test]
    fn a_schedule_has_one_name_and_its_earlier_spellings() {
        let schedule = |flags: &str| config(flags).schedule;
        assert_eq!(schedule("--schedule cosine"), ScheduleConfig::cosine(9, 0.25), "the recipe's floor");
        for flags in ["--schedule constant", "--constant", "--plain", "--constant --schedule constant"] {
            assert_eq!(schedule(flags), ScheduleConfig::constant(9), "{flags}");
        }
        assert_eq!(schedule("--schedule linear --warmup 2"), ScheduleConfig::linear(2, 0.5));
        assert_eq!(schedule("--schedule plateau"), ScheduleConfig::plateau(9, 0.5, 5));
        let constant = |steps| TrainConfig { schedule: ScheduleConfig::constant(3), ..recipe(steps) };
        for flags in ["--cosine", "--schedule cosine"] {
            assert_eq!(
                parse(flags).config(&fresh(), 70, constant).unwrap().schedule,
                ScheduleConfig::cosine(3, 0.0),
                "{flags}"
            );
        }
        let both = parse("--cosine --schedule linear").config(&fresh(), 70, recipe).unwrap_err().to_string();
        assert!(both.contains("Linear and Cosine"), "{both}");
    }

    #[test]
    fn batch_and_time_are_positive() {
        assert_eq!(parse("").batch(5).unwrap(), 5);
        assert_eq!(parse("--batch-size 2").batch(5).unwrap(), 2);
        assert!(parse("--batch-size 0").batch(5).is_err());
        assert!(parse("--minutes 0").place(Path::new("out")).is_err());
    }

    #[test]
    fn defaults_are_said_in_words() {
        let help = <Cli as clap::CommandFactory>::command().render_help().to_string();
        assert!(help.contains("Steps of the whole run [default: seven]"), "{help}");
        assert!(!help.contains("--cosine"), "{help}");
    }
}
