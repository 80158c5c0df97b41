//! Which molecules of a file: the parts that a run gave them, cut again and known by the run's fingerprint.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use flow_core::train::{Fingerprint, find_checkpoint, load_fingerprint};
use flow_graph::data::{Duplicates, Loaded, Splits};
use flow_graph::trainer::{GraphRun, fingerprint};

use super::common::{Expressed, PROGRAM};
use crate::cli::{CheckpointArg, refuse};

/// How a run cuts its molecules.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut<'a> {
    /// The file that lists the test entries; without one a tenth is drawn.
    pub(super) test_indices: Option<&'a Path>,
    /// By what each molecule is kept once, if it is.
    pub(super) dedup: Option<&'a Duplicates>,
    pub(super) seed: u64,
}

impl Cut<'_> {
    /// The parts of these molecules.
    pub(super) fn of(self, loaded: &Loaded) -> Result<Splits> {
        let splits = match (self.test_indices, self.dedup) {
            (Some(path), _) => Splits::from_file(path, loaded, 0.02, self.seed)?,
            (None, Some(duplicates)) => duplicates.cut(0.05, 0.1, self.seed)?,
            (None, None) => Splits::cut(loaded.len(), 0.05, 0.1, self.seed)?,
        };
        match self.dedup {
            Some(duplicates) => Ok(duplicates.removed_from(splits)?),
            None => Ok(splits),
        }
    }
}

/// A part of the molecules of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// What the model was trained on.
    Train,
    /// What its checkpoints were chosen by.
    Validation,
    /// What nothing was fitted to.
    Test,
    /// All molecules, in the order of the file.
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

/// Which molecules of a file to work on.
#[derive(Args, Debug, Clone)]
pub(super) struct SplitArg {
    /// Which part of the molecules, as the run of the checkpoint cut them; all where they are not those of the run
    #[arg(long, value_enum)]
    split: Option<Part>,
    /// The file of test entries that the run was given, if it was
    #[arg(long, value_name = "FILE")]
    test_indices: Option<PathBuf>,
}

impl SplitArg {
    /// The flags, each with whether it was given.
    pub(super) fn given(&self) -> [(&'static str, bool); 2] {
        [("--split", self.split.is_some()), ("--test-indices", self.test_indices.is_some())]
    }

    /// The places of the molecules of the part that is asked for, or of `usual`; of all where no part is known and none was
    /// asked for. Says on stderr which.
    pub(super) fn choose(
        &self,
        usual: Part,
        loaded: &Loaded,
        checkpoint: &CheckpointArg,
        run: &GraphRun,
    ) -> Result<Vec<usize>> {
        let all = || (0..loaded.len()).collect::<Vec<_>>();
        let say = |part: Part, count: usize, why: &str| {
            eprintln!("split: {part}, {count} of {} molecules of {}{why}", loaded.len(), loaded.source);
        };
        if self.split == Some(Part::All) {
            refuse(&[("--test-indices", self.test_indices.is_some())], "says nothing of --split all; leave it out")?;
            say(Part::All, loaded.len(), "");
            return Ok(all());
        }
        let asked = self.split.is_some() || self.test_indices.is_some();
        let part = self.split.unwrap_or(usual);
        let splits = match self.cut_of(
            loaded,
            load_fingerprint(&find_checkpoint(&checkpoint.folder(PROGRAM))?)?,
            run,
        )? {
            Ok(splits) => splits,
            Err(reason) if asked => bail!(
                "--split {part}: {}: {reason}; give the data that the run was trained on, with its --test-indices if it had \
                 them, or --split all",
                loaded.source
            ),
            Err(reason) => {
                say(Part::All, loaded.len(), &format!(": {reason}"));
                return Ok(all());
            }
        };
        let chosen = match part {
            Part::Train => splits.train,
            Part::Validation => splits.validation,
            Part::Test => splits.test,
            Part::All => all(),
        };
        if chosen.is_empty() {
            bail!("--split {part}: the run has no molecules in this part; name another, or all");
        }
        say(part, chosen.len(), "");
        Ok(chosen)
    }

    /// The parts that the run of this fingerprint cut, or why they are not known.
    fn cut_of(
        &self,
        loaded: &Loaded,
        then: Option<Fingerprint>,
        run: &GraphRun,
    ) -> Result<std::result::Result<Splits, String>> {
        let Some(then) = then else {
            return Ok(Err("the checkpoint was written before runs knew their data".into()));
        };
        let expressed = Expressed::new(loaded.molecules.iter(), &run.model);
        let (mut first, mut duplicates) = (None, None);
        for dedup in [false, true] {
            let dedup = if dedup { Some(&*duplicates.insert(Duplicates::of(&loaded.molecules))) } else { None };
            let cut = Cut { test_indices: self.test_indices.as_deref(), dedup, seed: run.seed };
            // Too few molecules to cut are not those of a run.
            let splits = match cut.of(loaded) {
                Ok(splits) => splits,
                Err(error) if self.test_indices.is_some() => return Err(error),
                Err(error) => return Ok(Err(format!("not the molecules of the run ({error})"))),
            };
            let now = fingerprint(&expressed.part(&splits.train), &expressed.part(&splits.validation));
            match now.difference(&then) {
                None => return Ok(Ok(splits)),
                Some(difference) => first = first.or(Some(difference)),
            }
        }
        Ok(Err(format!("not the molecules of the run ({})", first.unwrap_or_default())))
    }
}
