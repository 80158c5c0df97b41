//! `density eval`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use flow_core::files::atomic_write;
use flow_density::data::{Columns, Data, Rows, Source, Split, Toy};
use flow_density::io::{header, quoted};
use flow_density::metrics::{Report, likeliest_classes, score_rows};
use flow_density::trainer::DensityRun;

use super::common::{PROGRAM, load};
use super::grid;
use super::picture::{self, PictureArg, Shown};
use super::reading::{ReadingArg, check_columns, other_table, print, print_notes, table_of};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, counted, create_folder, refuse};

/// Points of a toy, unless told.
const POINTS: usize = 20_000;

/// A part of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitName {
    /// The eight tenths that the model was trained on.
    Train,
    /// The tenth that decided on the best checkpoint.
    Validation,
    /// The tenth that nothing was decided by.
    Test,
    /// Every row.
    All,
}

impl SplitName {
    fn split(self) -> Split {
        match self {
            SplitName::Train => Split::Train,
            SplitName::Validation => Split::Validation,
            SplitName::Test => Split::Test,
            SplitName::All => Split::All,
        }
    }
}

/// Measure the likelihood of held-out or of other points
#[derive(Args, Debug)]
#[command(after_help = "\
For a toy the points are fresh ones; their mean negative log-likelihood lies above the entropy by the divergence from the
toy to the model, which is also estimated from the same points with a smaller error. For the table of the run they are
the tenth of its rows that training has not seen, or the part that --split names. Another table, given with --data, is
scored whole; its columns are found by the names that the run's have.

Likelihoods are in nats of the data's own units: densities over the columns as they are in the file. With --per-row each
row's ln p is written beside the row's number in the file, counted from one without the line of names.

Examples:
  density eval
  density eval --checkpoint runs/board --points 200000 --json board.json
  density eval --checkpoint runs/table --data new.csv --per-row scores.csv
  density eval --checkpoint runs/table --split all
  density eval --checkpoint runs/iris --classify --per-row scores.csv
  density eval --checkpoint runs/board --grid density.csv
  density eval --checkpoint runs/board --pictures again")]
pub(super) struct EvalArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Another table to score, all of it unless --split is given, or a toy [default: the run's own data]
    #[arg(long, value_name = "TOY|FILE")]
    data: Option<String>,
    /// Part of the table; of another file than the run's, the part that the same seed would choose [default: test for the
    /// run's own table, all for another]
    #[arg(long, value_enum)]
    split: Option<SplitName>,
    /// Largest number of points [default: 20000 of a toy, all of a table]
    #[arg(long)]
    points: Option<usize>,
    /// Write ln p of every row as CSV
    #[arg(long, value_name = "FILE")]
    per_row: Option<PathBuf>,
    /// Also compute the likeliest class of every row by Bayes' rule, with the shares of the classes among the training rows,
    /// and count how often it is the row's own; --per-row writes it too (models that are given the class)
    #[arg(long)]
    classify: bool,
    /// Write ln p on a grid over the points as CSV, and print the integral (one or two columns)
    #[arg(long, value_name = "FILE")]
    grid: Option<PathBuf>,
    /// Points along each axis of --grid [default: 2000 for one column, 200 for two]
    #[arg(long, requires = "grid")]
    grid_side: Option<usize>,
    /// Also write the numbers as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the pictures of `train` into this folder (data of the plane)
    #[arg(long, value_name = "FOLDER")]
    pictures: Option<PathBuf>,
    /// Seed of the fresh points of a toy, of the spread of columns of steps and of pictures [default: the run's, so that the
    /// number is the one that `train` printed]
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    style: PictureArg,
    #[command(flatten)]
    reading: ReadingArg,
    #[command(flatten)]
    device: DeviceArg,
}

/// What is scored.
struct Scored {
    name: String,
    split: Split,
    rows: Rows,
    /// Rows of the split.
    of: usize,
    /// Rows of the file, with those that were left out.
    file: usize,
    toy: Option<Toy>,
}

impl EvalArgs {
    pub(super) fn run(self) -> Result<()> {
        self.style.check(self.pictures.is_some(), "for the pictures of --pictures FOLDER; add it, or leave it out")?;
        at_least_one("--points", self.points.unwrap_or(1))?;
        let files = [&self.json, &self.per_row, &self.grid];
        files.into_iter().flatten().try_for_each(|path| check_output(path))?;
        if self.data.is_none() {
            self.reading
                .refuse("for another table, the run's own is read as in training; add --data FILE, or leave it out")?;
        }
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let fitted = "was fitted to a density, not to data: its diagnostics are in the report of `density fit`";
        ensure!(run.fitted.is_none(), "{}: {fitted}", run.data);
        let given = "is conditioned on observations: its held-out likelihood is in the report of `density posterior`";
        ensure!(run.given == 0, "{}: {given}", run.data);
        ensure!(!run.is_distilled(), "a distilled model has no density, only samples: see `density sample`");
        let seed = self.seed.unwrap_or(run.seed);
        let scored = self.scored(&run, seed)?;
        let unread = scored.toy.is_none() && !run.standard.is_dequantized() && self.pictures.is_none();
        let reason =
            "for points of a toy, columns of steps and pictures, these rows are scored as they are; leave it out";
        refuse(&[("--seed", unread && self.seed.is_some())], reason)?;
        let columns = run.features();
        let drawn = [("--pictures", self.pictures.is_some()), ("--grid", self.grid.is_some())];
        let given = run.classes().is_some();
        refuse(
            &drawn.map(|(flag, asked)| (flag, asked && given)),
            "for densities that are given nothing, this one is given the class; leave it out",
        )?;
        let reason = "for models that are given the class, this one was trained without --class-column; leave it out";
        refuse(&[("--classify", self.classify && !given)], reason)?;
        ensure!(
            self.pictures.is_none() || columns == 2,
            "--pictures is for data of the plane, these have {columns} columns"
        );
        let logs = score_rows(model.density(), &run.standard, &scored.rows, run.classes(), seed)?;
        let mut report = Report::of(&logs, &run.standard, scored.split, &scored.name, scored.of)?;
        if given {
            report = report.given_classes();
        }
        if let Some(toy) = scored.toy {
            report = report.against(toy, scored.rows.values(), &logs);
        }
        warn_of_infinite(&scored, &logs);
        println!("{report}");
        let likeliest = match run.classes().filter(|_| self.classify) {
            Some(classes) => {
                let likeliest = likeliest_classes(model.density(), &run.standard, &scored.rows, classes, seed)?;
                let right = likeliest.iter().zip(scored.rows.classes()).filter(|(a, b)| a == b).count();
                let (rows, percent) = (likeliest.len(), 100.0 * right as f64 / likeliest.len().max(1) as f64);
                println!("the likeliest class is that of the row for {right} of {rows} rows, {percent:.2} %");
                Some(likeliest)
            }
            None => None,
        };
        if let Some(path) = &self.json {
            atomic_write(path, serde_json::to_string_pretty(&report)?.as_bytes())?;
        }
        if let Some(path) = &self.per_row {
            write_rows(path, &run, &scored, &logs, likeliest.as_deref())?;
        }
        if let Some(path) = &self.grid {
            grid::write(&model, &run, scored.rows.values(), self.grid_side, path)?;
        }
        if let Some(folder) = &self.pictures {
            create_folder(folder)?;
            let shown = Shown { toy: scored.toy, rows: scored.rows.values() };
            picture::write_all(&model, &run, shown, self.style, folder, seed)?;
        }
        Ok(())
    }

    /// The points to score.
    fn scored(&self, run: &DensityRun, seed: u64) -> Result<Scored> {
        match Source::named(self.data.as_deref().unwrap_or(&run.data))? {
            Source::Toy(toy) => {
                let reason = "for tables, the points of a toy are drawn; leave it out";
                refuse(&[("--split", self.split.is_some())], reason)?;
                self.reading.refuse(reason)?;
                let given = run.classes().is_some();
                ensure!(!given, "{}: a toy has no classes, which the model is given", toy.name());
                let data = Data::from_toy(toy)?;
                check_columns(run, toy.name(), &Columns::unnamed(data.columns()))?;
                let rows = data.test(self.points.unwrap_or(POINTS), seed);
                let (of, file) = (rows.len(), rows.len());
                Ok(Scored { name: toy.name().into(), split: Split::Test, rows, of, file, toy: Some(toy) })
            }
            Source::Table(path) => self.scored_table(run, &path),
            other => bail!("{other:?} cannot be scored"),
        }
    }

    fn scored_table(&self, run: &DensityRun, path: &Path) -> Result<Scored> {
        let own = self.data.is_none();
        let split = self.split.map_or(if own { Split::Test } else { Split::All }, SplitName::split);
        let table = match own {
            true => table_of(run, path)?,
            false => other_table(run, path, &self.reading.reading(run.reading.missing))?,
        };
        let rows = match split {
            Split::All => {
                eprintln!("{}: {} of {}", table.name(), counted(table.rows(), "row"), table.chosen());
                print_notes(table.notes());
                if own || same_file(path, Path::new(&run.data)) {
                    eprintln!(
                        "note: this is the run's own table, of which eight tenths were trained on; see --split test"
                    );
                }
                table.to_rows()
            }
            split => {
                let data = Data::from_table(&table, run.seed)?.scaled_as(&run.standard);
                print(&data);
                self.refuse_changed(own, &data)?;
                data.rows(split)
            }
        };
        let of = rows.len();
        let rows = self.points.map_or_else(|| rows.clone(), |most| rows.first(most));
        let (name, file) = (table.name().to_string(), table.rows_of_file());
        Ok(Scored { name, split, rows, of, file, toy: None })
    }

    /// Refuses the run's own table if it has changed: its parts would be cut anew, through what was trained on.
    fn refuse_changed(&self, own: bool, data: &Data) -> Result<()> {
        let Some(now) = data.fingerprint().filter(|_| own) else { return Ok(()) };
        if let Some(difference) = self.checkpoint.difference_of_data(PROGRAM, &now)? {
            bail!(
                "{}: has changed since the training ({difference}), so its parts are not those of the run; \
                 --data FILE scores all rows of a table",
                data.name()
            );
        }
        Ok(())
    }
}

/// Whether two paths lead to one file.
fn same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    real(a).is_some_and(|a| real(b) == Some(a))
}

/// Rows without a finite logarithm are named: one of them makes the mean what it is.
fn warn_of_infinite(scored: &Scored, logs: &[f64]) {
    let bad = || logs.iter().zip(scored.rows.numbers()).filter(|(log, _)| !log.is_finite());
    if let Some((log, row)) = bad().next() {
        eprintln!("warning: ln p of {} rows is no finite number, first of row {row}: {log}", bad().count());
    }
}

/// `row,log_p` in the order of the file; rows that were left out have no number. Points of a toy, which are in no file,
/// are written with it.
fn write_rows(path: &Path, run: &DensityRun, scored: &Scored, logs: &[f64], likeliest: Option<&[u32]>) -> Result<()> {
    let name = |class: Option<&u32>| -> String {
        let name = run.classes().zip(class).and_then(|(classes, &class)| classes.names.get(class as usize));
        name.map(|name| quoted(name) + ",").unwrap_or_default()
    };
    let of_row = |row: usize| name(scored.rows.classes().get(row)) + &name(likeliest.and_then(|all| all.get(row)));
    let mut all: Vec<(usize, &[f64], f64, String)> = Vec::new();
    for (row, ((number, values), &log)) in scored.rows.iter().zip(logs).enumerate() {
        all.push((number, values, log, of_row(row)));
    }
    all.sort_by_key(|(number, ..)| *number);
    let is_whole = scored.split == Split::All && all.len() == scored.of;
    let last = if is_whole { scored.file } else { all.last().map_or(0, |row| row.0) };
    let names: &[&str] = match (scored.toy.is_some(), run.classes().is_some(), likeliest.is_some()) {
        (true, ..) => &["row", "x", "y", "log_p"],
        (_, true, true) => &["row", "class", "likeliest", "log_p"],
        (_, true, false) => &["row", "class", "log_p"],
        _ => &["row", "log_p"],
    };
    let between = ",".repeat(names.len() - 1);
    let mut text = header(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
    let mut next = 1;
    // Writing to a string does not fail.
    let mut empty = |text: &mut String, until: usize| {
        if scored.split == Split::All {
            for number in next..until {
                let _ = writeln!(text, "{number}{between}");
            }
        }
        next = until + 1;
    };
    for (number, row, log, classes) in all {
        empty(&mut text, number);
        let point: String = match scored.toy {
            Some(_) => row.iter().enumerate().map(|(c, &v)| run.standard.text(c, v) + ",").collect(),
            None => String::new(),
        };
        let _ = writeln!(text, "{number},{point}{classes}{log:.6}");
    }
    empty(&mut text, last + 1);
    atomic_write(path, text.as_bytes())?;
    let left_out = if is_whole { scored.file - scored.of } else { 0 };
    let without = if left_out > 0 { format!(", {left_out} more without a value") } else { String::new() };
    let what = if run.standard.is_dequantized() { "ln of the mean density over the cells" } else { "ln p" };
    println!("{}: {what} of {}, nats of the data's units{without}", path.display(), counted(logs.len(), "row"));
    Ok(())
}
