//! What all programs share: flags that mean the same everywhere, devices, exit codes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use flow_core::train::launch::{Launch, PANICKED};
use flow_core::train::{
    Decay, Fingerprint, Rule, RunState, TrainConfig, find_checkpoint, load_fingerprint, load_train_config,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ranks;

/// Exit code for bad arguments and bad input.
const BAD_INPUT: u8 = 2;
/// Bytes of a thread's stack: what the first thread of a process usually has.
const STACK: usize = 8 << 20;

/// Runs a program: errors become one line on stderr and exit code 2.
///
/// A reader that closes its end of the pipe, `| head`, wants no more: that is no error.
pub fn main(run: impl FnOnce() -> Result<()> + Send) -> ExitCode {
    let panics = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload().downcast_ref::<String>();
        if said.is_some_and(|said| said.contains("Broken pipe") && said.contains("failed printing to stdout")) {
            std::process::exit(0);
        }
        panics(panic);
    }));
    ranks::share_threads();
    among_workers(|| as_rank(run))
}

/// Runs a program as one of several processes, if it was started with others.
fn as_rank(run: impl FnOnce() -> Result<()>) -> ExitCode {
    let closed = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    let whole = || ranks::begin().and_then(|()| run());
    // A panic of one rank ends the others too, which wait for it.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(whole)).unwrap_or_else(|panic| {
        ranks::give_up(PANICKED);
        std::panic::resume_unwind(panic)
    });
    match outcome {
        Ok(()) => {
            ranks::finish();
            ExitCode::SUCCESS
        }
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(closed) => ExitCode::SUCCESS,
        Err(error) => {
            let line = one_line(&error);
            ranks::give_up(&line);
            eprintln!("error: {line}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Runs a program on a thread of Rayon's pool.
///
/// A thread from outside goes to sleep for every loop that the pool runs for it, which takes a tenth of a millisecond; one of the
/// pool does its share of the loop. Steps of small models have dozens of loops.
fn among_workers<R: Send>(run: impl FnOnce() -> R + Send) -> R {
    // A pool that is there already has stacks that are large enough for what has begun to use it.
    let _ = rayon::ThreadPoolBuilder::new().stack_size(STACK).build_global();
    rayon::scope(|_| run())
}

/// An error and its causes on one line, repeated causes once.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !line.contains(&text) {
            let separator = if line.is_empty() { "" } else { ": " };
            line = line + separator + &text;
        }
    }
    line
}

/// Where to compute.
#[derive(Args, Debug, Clone)]
pub struct DeviceArg {
    /// Where to compute: cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
}

impl DeviceArg {
    /// Opens the device.
    ///
    /// # Errors
    /// An unknown name, or a device that this build or machine does not have.
    pub fn open(&self) -> Result<Device> {
        let (kind, number) = self.device.split_once(':').map_or((self.device.as_str(), None), |(k, n)| (k, Some(n)));
        match (kind, number) {
            ("cpu", None) => Ok(Device::Cpu),
            ("cuda", number) => {
                // Ranks on one machine take one GPU each.
                let own = Launch::of_this_process().and_then(|launch| launch.local).unwrap_or(0);
                let n = number.map_or(Ok(own), str::parse);
                let n = n.with_context(|| format!("--device {}: not the number of a GPU", self.device))?;
                Device::new_cuda(n).map_err(|e| absent(&format!("cuda:{n}"), cfg!(feature = "cuda"), &e))
            }
            ("metal", None) => Device::new_metal(0).map_err(|e| absent("metal", cfg!(feature = "metal"), &e)),
            _ => bail!("--device {}: expected cpu, cuda, cuda:N or metal", self.device),
        }
    }
}

/// In what convolutions multiply on a GPU.
#[derive(Args, Debug, Clone)]
pub struct ConvolutionsArg {
    /// Type in which convolutions multiply with --device cuda, f32 or bf16; all else, log-determinants above all, is f32
    #[arg(long, default_value = "f32", value_name = "TYPE", value_parser = ["f32", "bf16"])]
    convolutions: String,
}

impl ConvolutionsArg {
    /// Sets it for this process.
    ///
    /// # Errors
    /// Half precision for another device than CUDA.
    pub fn apply(&self, device: &Device) -> Result<()> {
        let half = self.convolutions != "f32";
        if half && !device.is_cuda() {
            bail!("--convolutions {} needs --device cuda; other devices multiply in f32", self.convolutions);
        }
        flow_core::nn::set_bf16_convolutions(half);
        Ok(())
    }
}

/// A device that cannot be opened, and what would help.
fn absent(device: &str, built: bool, error: &candle_core::Error) -> anyhow::Error {
    let kind = device.split(':').next().unwrap_or_default();
    let reason = error.to_string().lines().next().unwrap_or_default().to_string();
    let remedy = match built {
        true => "has this machine such a GPU, and its driver?".into(),
        false => format!("the program was built without it: --features {kind}"),
    };
    anyhow::anyhow!("--device {device}: {reason} ({remedy})")
}

/// A number of things in words: `1 image`, `12 images`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Creates a folder for results.
///
/// # Errors
/// Names the folder when it cannot be made, or when a file is in its place.
pub fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("{}: cannot create the folder", path.display()))
}

/// Creates the folder of a file that is about to be written.
///
/// # Errors
/// As [`create_folder`].
pub fn create_parent(path: &Path) -> Result<()> {
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) => create_folder(parent),
        None => Ok(()),
    }
}

/// Refuses a folder where a file is to be written: before the work, not after it.
///
/// # Errors
/// Names the folder.
pub fn check_output(path: &Path) -> Result<()> {
    if path.is_dir() {
        bail!("{}: expected the name of a file to write, found a folder", path.display());
    }
    Ok(())
}

/// `name.png` as `name-2.png`.
pub fn numbered(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let ending = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{number}{ending}"))
}

/// Refuses zero where at least one is needed.
///
/// # Errors
/// Names the flag.
pub fn at_least_one(flag: &str, value: usize) -> Result<()> {
    if value == 0 {
        bail!("{flag} must be at least 1, got 0");
    }
    Ok(())
}

/// Refuses flags that were given where nothing reads them: `--first, --second: REASON`.
///
/// The reason says why they do not apply and what to do instead.
///
/// # Errors
/// Names every flag of the list that was given.
pub fn refuse(flags: &[(&str, bool)], reason: &str) -> Result<()> {
    let given: Vec<&str> = flags.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag).collect();
    if !given.is_empty() {
        bail!("{}: {reason}", given.join(", "));
    }
    Ok(())
}

/// A configuration with the fields that a file of JSON sets.
///
/// # Errors
/// A file that cannot be read, is no JSON object, or sets a field that the configuration does not have.
pub fn configured<T: Serialize + DeserializeOwned>(base: &T, path: &Path) -> Result<T> {
    let set: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let mut fields = serde_json::to_value(base)?;
    merge(&mut fields, serde_json::Value::Object(set));
    described(fields)
}

/// What JSON describes.
///
/// # Errors
/// Names the field that cannot be read, with its path.
pub fn described<T: DeserializeOwned>(value: serde_json::Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|e| match e.path().to_string() {
        root if root == "." => anyhow::anyhow!("{}", e.inner()),
        path => anyhow::anyhow!("{path}: {}", e.inner()),
    })
}

/// Sets what `set` holds, field by field; what is no object is replaced whole.
fn merge(base: &mut serde_json::Value, set: serde_json::Value) {
    match (base, set) {
        (serde_json::Value::Object(base), serde_json::Value::Object(set)) => {
            // The one field of a choice: naming another choice replaces it.
            let choice = base.len() == 1 && set.len() == 1 && !set.keys().all(|k| base.contains_key(k));
            if choice {
                base.clear();
            }
            for (name, value) in set {
                merge(base.entry(name).or_insert(serde_json::Value::Null), value);
            }
        }
        (base, set) => *base = set,
    }
}

/// A trained model to use.
#[derive(Args, Debug, Clone)]
pub struct CheckpointArg {
    /// Run folder (its best checkpoint is used) or checkpoint folder [default: where `train` leaves its run]
    #[arg(long, value_name = "FOLDER")]
    checkpoint: Option<PathBuf>,
    /// Use the weights of the last step even where averaged ones exist
    #[arg(long)]
    pub raw_weights: bool,
}

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What models are trained on.
    Train,
    /// What checkpoints are chosen by.
    Validation,
    /// What nothing was fitted to.
    Test,
    /// Everything, in the order of the source.
    All,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Train => "train",
            Part::Validation => "validation",
            Part::Test => "test",
            Part::All => "all",
        })
    }
}

impl CheckpointArg {
    /// The folder, `flow-out/<program>` if none was named.
    pub fn folder(&self, program: &str) -> PathBuf {
        self.checkpoint.clone().unwrap_or_else(|| Path::new("flow-out").join(program))
    }

    /// The flags, each with whether it was given, for [`refuse`].
    pub fn given(&self) -> [(&'static str, bool); 2] {
        [("--checkpoint", self.checkpoint.is_some()), ("--raw-weights", self.raw_weights)]
    }

    /// Says so on stderr if parts of data were not cut of what the run was trained on.
    ///
    /// # Errors
    /// A checkpoint that cannot be read.
    pub fn note_other_data(&self, program: &str, now: &Fingerprint) -> Result<()> {
        if let Some(difference) = self.difference_of_data(program, now)? {
            eprintln!(
                "note: these are not the run's own data ({difference}); parts of a source that has changed are cut anew, \
                 and the test part may hold what the run was trained on"
            );
        }
        Ok(())
    }

    /// How data differ from those that the run was trained on, in words; `None` if they are the same or nothing is known.
    ///
    /// # Errors
    /// A checkpoint that cannot be read.
    pub fn difference_of_data(&self, program: &str, now: &Fingerprint) -> Result<Option<String>> {
        let then = load_fingerprint(&find_checkpoint(&self.folder(program))?)?;
        Ok(then.and_then(|then| now.difference(&then)))
    }

    /// Prints how far the run has come and how it was trained, where the checkpoint says so.
    ///
    /// # Errors
    /// A checkpoint that cannot be read.
    pub fn print_training(&self, program: &str, unit: &str) -> Result<()> {
        let checkpoint = find_checkpoint(&self.folder(program))?;
        println!("checkpoint   {}", checkpoint.display());
        if let Some(config) = load_train_config(&checkpoint)? {
            println!("training     {}", recipe(&config));
        }
        if let Some(data) = load_fingerprint(&checkpoint)? {
            println!("data         {data}");
        }
        let path = checkpoint.join("state.json");
        if path.exists() {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let state: RunState = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            println!("step         {} after {:.0} s", state.step, state.seconds);
            if state.best.is_finite() {
                println!("best         {:.4} {unit} in validation at step {}", state.best, state.best_step);
            }
        }
        Ok(())
    }
}

/// How a run learns, in words.
fn recipe(config: &TrainConfig) -> String {
    let optimizer = &config.optimizer;
    let rule = match optimizer.rule {
        Rule::Adam => "Adam",
        Rule::AdamW => "AdamW",
        Rule::Adamax => "Adamax",
    };
    let decay = match config.schedule.decay {
        Decay::Constant => "constant".to_string(),
        Decay::Cosine { floor } => format!("along a cosine to {floor} of it"),
        Decay::Linear { start } => format!("linearly to zero from {start} of the run on"),
        Decay::Plateau { factor, patience, .. } => {
            format!("times {factor} after {patience} validations without progress")
        }
    };
    let mut words = format!(
        "{} steps of {rule} at {}, warm-up {} steps, then {decay}",
        config.steps, optimizer.learning_rate, config.schedule.warmup_steps
    );
    if let Some(norm) = config.clip_norm {
        words += &format!(", gradients clipped at {norm}");
    }
    if let Some(ema) = &config.ema {
        words += &format!(", weights averaged with decay {}", ema.decay);
    }
    words + &format!(", seed {}", config.seed)
}

/// A field of a table of comma-separated values, in quotes where it needs them (RFC 4180).
pub(crate) fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.into() }
}

#[cfg(test)]
mod tests {
    use flow_core::train::{OptimizerConfig, ScheduleConfig};

    use super::*;

    #[test]
    fn a_recipe_is_told_in_words() {
        let config = TrainConfig {
            steps: 7,
            optimizer: OptimizerConfig::adam(0.5),
            schedule: ScheduleConfig::cosine(3, 0.25),
            clip_norm: Some(2.0),
            ..TrainConfig::default()
        };
        let expected = "7 steps of Adam at 0.5, warm-up 3 steps, then along a cosine to 0.25 of it, gradients clipped at 2, seed 0";
        assert_eq!(recipe(&config), expected);
    }

    #[test]
    fn a_configuration_keeps_what_a_file_does_not_set() {
        let mut base = serde_json::json!({"a": 1, "deep": {"b": 2, "c": [3]}, "choice": {"one": {"d": 4, "f": 0}}});
        merge(&mut base, serde_json::json!({"deep": {"c": [5, 6]}, "choice": {"one": {"e": 7}}}));
        let expected =
            serde_json::json!({"a": 1, "deep": {"b": 2, "c": [5, 6]}, "choice": {"one": {"d": 4, "f": 0, "e": 7}}});
        assert_eq!(base, expected);
        merge(&mut base, serde_json::json!({"choice": {"two": {}}}));
        assert_eq!(base["choice"], serde_json::json!({"two": {}}));
    }

    #[test]
    fn a_field_that_cannot_be_read_is_named() {
        #[derive(Debug, serde::Deserialize)]
        struct Outer {
            #[allow(dead_code, reason = "read only")]
            inner: Vec<u8>,
        }
        let value = serde_json::json!({"inner": [1, "two"]});
        let error = described::<Outer>(value).unwrap_err().to_string();
        assert!(error.starts_with("inner[1]: ") && error.contains("two"), "{error}");
        let error = described::<Outer>(serde_json::json!({})).unwrap_err().to_string();
        assert_eq!(error, "missing field `inner`");
    }

    #[test]
    fn only_flags_that_were_given_are_refused() {
        let refused = |flags: &[(&str, bool)]| refuse(flags, "a stone has none").err().map(|e| e.to_string());
        assert_eq!(refused(&[("--leaves", false)]), None);
        let both = [("--leaves", true), ("--bark", false), ("--roots", true)];
        assert_eq!(refused(&both).unwrap(), "--leaves, --roots: a stone has none");
    }

    #[test]
    fn errors_are_one_line_without_repetition() {
        let inner = anyhow::anyhow!("file.bin: truncated\nat byte 3");
        let error = inner.context("file.bin: truncated at byte 3").context("cannot read the images");
        assert_eq!(one_line(&error), "cannot read the images: file.bin: truncated at byte 3");
    }

    #[test]
    fn unknown_devices_are_refused() {
        let arg = DeviceArg { device: "tpu".into() };
        assert!(arg.open().unwrap_err().to_string().contains("expected cpu"));
    }
}
