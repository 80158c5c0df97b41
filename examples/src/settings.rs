//! What a run was started with: `--resume` repeats it, so that nobody has to remember the flags of last week.
//!
//! The flags are kept in `command.json` in the run's folder, as they were typed. A resume takes those that it is not
//! given itself; the engine then compares what came of them with the checkpoint, as for any resume.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Command, CommandFactory, Parser};
use flow_core::files::atomic_write;
use serde::{Deserialize, Serialize};

use crate::ranks;

const FILE: &str = "command.json";
const RESUME: &str = "--resume";

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    /// The program, such as `glow`.
    program: String,
    /// The verb, such as `train`.
    verb: String,
    /// Its flags with their values.
    flags: Vec<String>,
}

impl Settings {
    /// From the arguments of a process; `None` where one of them is no text, which JSON cannot hold.
    fn of(arguments: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut texts = arguments.into_iter().map(OsString::into_string);
        let program = PathBuf::from(texts.next()?.ok()?).file_stem()?.to_str()?.to_string();
        let verb = texts.next()?.ok()?;
        Some(Settings { program, verb, flags: texts.collect::<Result<_, _>>().ok()? })
    }

    /// The settings kept in a run's folder, if there are any.
    fn read(out: &Path) -> Result<Option<Self>> {
        let path = out.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let read = || anyhow::Ok(serde_json::from_str(&std::fs::read_to_string(&path)?)?);
        read().with_context(|| format!("{}: cannot be read; remove it and give the run's flags again", path.display()))
    }

    /// The value of a flag.
    fn value(&self, name: &str) -> Option<&str> {
        groups(&self.flags).into_iter().rev().find(|group| flag(group) == name).and_then(|group| match group {
            [word] => word.split_once('=').map(|(_, value)| value),
            [_, value, ..] => Some(value.as_str()),
            [] => None,
        })
    }

    fn resumes(&self) -> bool {
        self.flags.iter().any(|word| word == RESUME)
    }

    /// The flags of `kept` that are not given here, then those that are.
    fn after(self, kept: Settings) -> Settings {
        // The engine says what the folder belongs to.
        if (&kept.program, &kept.verb) != (&self.program, &self.verb) {
            return self;
        }
        let given: Vec<&str> = groups(&self.flags).into_iter().map(flag).collect();
        let old = groups(&kept.flags).into_iter().filter(|group| !given.contains(&flag(group)));
        let flags: Vec<String> = old.flatten().chain(&self.flags).cloned().collect();
        Settings { flags, ..self }
    }
}

/// Words in groups of a flag and its values.
fn groups(words: &[String]) -> Vec<&[String]> {
    words.chunk_by(|_, next| !next.starts_with("--")).collect()
}

/// The name of a group's flag: `--steps` of `--steps 3` and of `--steps=3`.
fn flag(group: &[String]) -> &str {
    group.first().map_or("", |word| word.split_once('=').map_or(word.as_str(), |(name, _)| name))
}

/// Parses the arguments of this process. A resume is parsed with the flags that the run was started with.
///
/// # Errors
/// A file of settings that cannot be read; clap exits by itself, with code 2, on arguments that do not parse.
pub fn parse<P: Parser + CommandFactory>() -> Result<P> {
    let Some(given) = Settings::of(std::env::args_os()).filter(Settings::resumes) else {
        return Ok(parsed(std::env::args_os()));
    };
    let merged = ranks::from_first(|| merged(given.clone(), &folder(&given, &P::command())))?;
    if merged != given {
        eprintln!("note: with the settings of the run: {}", merged.flags.join(" "));
    }
    Ok(parsed([merged.program, merged.verb].into_iter().chain(merged.flags)))
}

/// Parses arguments; of several processes that refuse them the first says so.
fn parsed<P: Parser, A: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = A>) -> P {
    P::try_parse_from(arguments).unwrap_or_else(|refusal| {
        ranks::let_first_speak();
        refusal.exit()
    })
}

fn merged(given: Settings, out: &Path) -> Result<Settings> {
    Ok(match Settings::read(out)? {
        Some(kept) => given.after(kept),
        None => given,
    })
}

/// The folder that a run writes into: that of `--out`, or the verb's default.
fn folder(settings: &Settings, command: &Command) -> PathBuf {
    let default = || {
        let verb = command.find_subcommand(&settings.verb)?;
        let out = verb.get_arguments().find(|argument| argument.get_id() == "out")?;
        out.get_default_values().first().map(PathBuf::from)
    };
    settings.value("--out").map(PathBuf::from).or_else(default).unwrap_or_default()
}

/// Keeps the settings of this process in the folder of its run.
///
/// # Errors
/// A file that cannot be written, or one of an earlier part that cannot be read.
pub fn keep(out: &Path) -> Result<()> {
    let Some(given) = Settings::of(std::env::args_os()) else {
        eprintln!("note: an argument is no Unicode text; a resume of this run needs its flags again");
        return Ok(());
    };
    let mut kept = if given.resumes() { merged(given, out)? } else { given };
    kept.flags.retain(|word| word != RESUME);
    Ok(atomic_write(&out.join(FILE), (serde_json::to_string_pretty(&kept)? + "\n").as_bytes())?)
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;

    #[derive(Parser)]
    #[command(name = "program")]
    enum Cli {
        Train(Train),
    }

    #[derive(Args)]
    struct Train {
        #[arg(long, default_value = "flow-out/here")]
        out: PathBuf,
        #[arg(long)]
        resume: bool,
    }

    fn settings(line: &str) -> Settings {
        Settings::of(["bin/program"].into_iter().chain(line.split_whitespace()).map(OsString::from)).unwrap()
    }

    #[test]
    fn what_is_given_again_replaces_what_was_kept() {
        let kept = settings("train --data a.csv --hidden 3 4 --steps=10 --flip --shift -0.5");
        let merged = settings("train --resume --steps 20 --hidden 5").after(kept.clone());
        assert_eq!(merged, settings("train --data a.csv --flip --shift -0.5 --resume --steps 20 --hidden 5"));
        assert_eq!(settings("train --resume").after(kept.clone()).flags.len(), kept.flags.len() + 1);
        assert_eq!(
            settings("straighten --resume").after(kept.clone()),
            settings("straighten --resume"),
            "another verb"
        );
        let other = Settings { program: "other".into(), ..settings("train --resume") };
        assert_eq!(other.clone().after(kept), other, "another program");
    }

    #[test]
    fn the_folder_is_the_one_named_last_or_the_default() {
        let folder = |line: &str| folder(&settings(line), &Cli::command());
        assert_eq!(folder("train --out a --resume"), Path::new("a"));
        assert_eq!(folder("train --out=a --resume"), Path::new("a"));
        assert_eq!(folder("train --resume"), Path::new("flow-out/here"));
        let Cli::Train(train) = Cli::parse_from(["program", "train"]);
        assert!(train.out == Path::new("flow-out/here") && !train.resume);
    }

    #[test]
    fn a_damaged_file_is_named_with_the_remedy() {
        let out = tempfile::tempdir().unwrap();
        assert_eq!(Settings::read(out.path()).unwrap(), None);
        std::fs::write(out.path().join(FILE), "{").unwrap();
        let error = format!("{:#}", Settings::read(out.path()).unwrap_err());
        assert!(error.contains("command.json: cannot be read; remove it"), "{error}");
    }
}
