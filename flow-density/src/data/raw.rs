//! A table as it stands in a file, before columns are chosen and rows are judged.

use super::Classes;
use super::fault::{Fault, Read};
use super::reading::{Columns, Missing, Reading, label};
use super::text::cell::{NUMBER, remedy};
use crate::error::Place;

/// Names of columns are listed up to here, numbers beyond.
const NAMES_LISTED: usize = 12;

/// Some cells of a column: how many, and the first of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Cells {
    pub(super) count: usize,
    /// The row, counted from zero, and what is there.
    pub(super) first: Option<(usize, String)>,
}

impl Cells {
    pub(super) fn add(&mut self, row: usize, cell: &str) {
        self.count += 1;
        if self.first.is_none() {
            self.first = Some((row, cell.into()));
        }
    }
}

/// A column of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct RawColumn {
    pub(super) name: Option<String>,
    /// What a column holds, in the plural, that is of no numbers by its type: `timestamps`.
    pub(super) kind: Option<&'static str>,
    /// NaN where there is no number.
    pub(super) values: Vec<f64>,
    /// Empty cells and those that say that there is no value.
    pub(super) missing: Cells,
    /// Cells that are neither numbers nor missing.
    pub(super) words: Cells,
    /// The words, each with its row, where they are kept.
    pub(super) texts: Option<Vec<(usize, String)>>,
    /// Integers with more digits than a number of 64 bits holds.
    pub(super) rounded: Cells,
}

impl RawColumn {
    /// A column of numbers, where NaN is a missing value.
    pub(super) fn of_numbers(name: Option<String>, values: Vec<f64>) -> Self {
        let mut missing = Cells::default();
        values.iter().enumerate().filter(|(_, v)| v.is_nan()).for_each(|(row, _)| missing.add(row, "NaN"));
        RawColumn { name, values, missing, ..RawColumn::default() }
    }
}

/// All columns of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Raw {
    pub(super) columns: Vec<RawColumn>,
    /// The line of each row of a text; empty for arrays, whose rows are counted.
    pub(super) lines: Vec<usize>,
    /// What was passed over.
    pub(super) notes: Vec<String>,
}

/// Columns and rows that were chosen.
pub(super) struct Chosen {
    pub(super) columns: Columns,
    /// Row after row.
    pub(super) values: Vec<f64>,
    /// The class of each row, if there are classes.
    pub(super) classes: Vec<u32>,
    /// Numbers of the rows in the file, counted from one.
    pub(super) rows: Vec<usize>,
    /// Rows of the file.
    pub(super) of: usize,
    pub(super) notes: Vec<String>,
}

impl Raw {
    pub(super) fn rows(&self) -> usize {
        self.columns.first().map_or(0, |column| column.values.len())
    }

    /// The columns that a reading asks for.
    pub(super) fn read(self, reading: &Reading) -> Read<Chosen> {
        let class = reading.class.as_ref().map(|entry| self.class_column(entry)).transpose()?;
        let chosen = match reading.columns.is_empty() {
            true => {
                self.refuse_a_count_of_rows(class)?;
                (0..self.columns.len()).filter(|column| Some(*column) != class).collect()
            }
            false => self.find(&reading.columns)?,
        };
        self.take(&chosen, class, reading.missing, Vec::new())
    }

    /// The one column of this name or number.
    fn class_column(&self, entry: &str) -> Read<usize> {
        match self.find(std::slice::from_ref(&entry.to_string()))?[..] {
            [one] => Ok(one),
            _ => Err(Fault::whole(format!("the columns {entry} for classes"), "one column")),
        }
    }

    /// The columns of a run: by name if both have names, else by number.
    /// The class column likewise, unless the reading names another.
    pub(super) fn read_as(self, wanted: &Columns, reading: &Reading) -> Read<Chosen> {
        let class = self.class_of_run(wanted, reading)?;
        let named = self.columns.iter().any(|column| column.name.is_some());
        let mut notes = Vec::new();
        let chosen: Vec<usize> = if named && !wanted.names.is_empty() {
            let chosen: Vec<usize> = wanted.names.iter().map(|name| self.find_one_of_run(name)).collect::<Read<_>>()?;
            let others: Vec<usize> =
                (0..self.columns.len()).filter(|c| !chosen.contains(c) && Some(*c) != class).collect();
            if !others.is_empty() {
                notes.push(format!("columns that the run does not know are left out: {}", self.listed(&others)));
            }
            chosen
        } else {
            let (found, expected) = (self.columns.len(), wanted.len());
            let chosen: Vec<usize> = match found {
                _ if found == wanted.of => wanted.numbers.iter().map(|number| number.saturating_sub(1)).collect(),
                _ if found == expected => (0..found).collect(),
                _ if class.is_some() && found == expected + 1 => (0..found).filter(|c| Some(*c) != class).collect(),
                _ => {
                    let expected = format!("the {expected} of the run; choose them with --columns");
                    return Err(Fault::whole(format!("{found} columns"), expected));
                }
            };
            if named == wanted.names.is_empty() {
                let without = if named { "the run" } else { "the file" };
                notes.push(format!("{without} has no names of columns: they are taken by their places"));
            }
            chosen
        };
        self.take(&chosen, class, reading.missing, notes)
    }

    fn class_of_run(&self, wanted: &Columns, reading: &Reading) -> Read<Option<usize>> {
        match (&reading.class, &wanted.class) {
            (Some(entry), _) => self.class_column(entry).map(Some),
            (None, None) => Ok(None),
            (None, Some(classes)) => match &classes.column {
                Some(name) if !self.named(name).is_empty() => self.find_one_of_run(name).map(Some),
                _ if self.columns.len() == wanted.of => Ok(Some(classes.number.saturating_sub(1))),
                _ => {
                    let found = format!("no column of classes ({classes})");
                    Err(Fault::whole(found, "one, for a model that is given the class: name it with --class-column"))
                }
            },
        }
    }

    fn find_one_of_run(&self, name: &str) -> Read<usize> {
        match self.named(name)[..] {
            [one] => Ok(one),
            [] => {
                let expected = format!("the run's columns, here are {}; name them with --columns", self.all_listed());
                Err(Fault::whole(format!("no column '{name}'"), expected))
            }
            _ => Err(Fault::whole(format!("several columns '{name}'"), "one; choose with --columns by numbers")),
        }
    }

    fn named(&self, name: &str) -> Vec<usize> {
        (0..self.columns.len()).filter(|&c| self.columns[c].name.as_deref() == Some(name)).collect()
    }

    /// Columns by name, by number, by a range of numbers.
    fn find(&self, entries: &[String]) -> Read<Vec<usize>> {
        let mut chosen = Vec::new();
        for entry in entries {
            let entry = entry.trim();
            let range = entry.split_once('-').unwrap_or((entry, entry));
            let number =
                |text: &str| text.trim().parse::<usize>().ok().filter(|n| (1..=self.columns.len()).contains(n));
            match (self.named(entry)[..].as_ref(), number(range.0), number(range.1)) {
                ([one], ..) => chosen.push(*one),
                ([], Some(from), Some(to)) if from <= to => chosen.extend(from - 1..to),
                ([], ..) => {
                    let expected = format!("of the columns {}", self.all_listed());
                    return Err(Fault::whole(format!("no column '{entry}'"), expected));
                }
                _ => {
                    let found = format!("several columns '{entry}'");
                    return Err(Fault::whole(found, "a number for --columns, counted from one"));
                }
            }
        }
        match (1..chosen.len()).find(|&i| chosen[..i].contains(&chosen[i])) {
            None => Ok(chosen),
            Some(i) => Err(Fault::whole(format!("{} chosen twice", self.label(chosen[i])), "each column once")),
        }
    }

    /// An index that was written beside the data is none of them: a first column that counts the rows, without a name or
    /// with the one that pandas gives it.
    fn refuse_a_count_of_rows(&self, class: Option<usize>) -> Read<()> {
        if class == Some(0) {
            return Ok(());
        }
        let [first, others @ ..] = &self.columns[..] else { return Ok(()) };
        let unnamed = match &first.name {
            None => others.iter().any(|column| column.name.is_some()),
            Some(name) => name.starts_with("Unnamed: ") || name.eq_ignore_ascii_case("index"),
        };
        let counts = first.values.len() > 1 && first.values.windows(2).all(|pair| pair[1] == pair[0] + 1.0);
        if !(unnamed && counts && !others.is_empty()) {
            return Ok(());
        }
        let rest: Vec<usize> = (1..self.columns.len()).filter(|column| Some(*column) != class).collect();
        let expected = format!("data: choose the others with --columns {}", self.choice(&rest));
        let name = first.name.as_ref().map_or("no name".into(), |name| format!("the name '{name}'"));
        Err(Fault::new(Place::Column(1), format!("{name}, and a count of the rows (an index?)"), expected))
    }

    fn take(self, chosen: &[usize], class: Option<usize>, missing: Missing, mut notes: Vec<String>) -> Read<Chosen> {
        if let Some(class) = class.filter(|class| chosen.contains(class)) {
            return Err(Fault::whole(format!("{} read and for classes", self.label(class)), "one of them"));
        }
        if chosen.is_empty() {
            return Err(Fault::whole("no column beside the classes", "at least one of numbers"));
        }
        chosen.iter().try_for_each(|&c| self.check_words(c, chosen))?;
        let rows = self.rows();
        let cells = class.map(|class| self.cells(class));
        let lacks: Vec<bool> = (0..rows)
            .map(|row| {
                let unclassed = cells.as_ref().is_some_and(|cells| cells[row].is_none());
                unclassed || chosen.iter().any(|&c| self.columns[c].values[row].is_nan())
            })
            .collect();
        let lacking = lacks.iter().filter(|&&lacks| lacks).count();
        if lacking > 0 {
            let asked: Vec<usize> = chosen.iter().copied().chain(class).collect();
            let said = self.missing(&asked, lacking);
            if missing == Missing::Refuse {
                let expected = "a number in every cell: leave these rows out with --missing drop, fill them in, or \
                                choose other columns with --columns";
                return Err(Fault::whole(said, expected));
            }
            notes.push(format!("{said}: left out"));
        }
        let kept: Vec<usize> = (0..rows).filter(|&row| !lacks[row]).collect();
        let mut values = Vec::with_capacity(kept.len() * chosen.len());
        for &row in &kept {
            values.extend(chosen.iter().map(|&c| self.columns[c].values[row]));
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            let (row, column) = (kept[at / chosen.len()], chosen[at % chosen.len()]);
            let expected = "a finite number: correct it, or leave the row out";
            return Err(Fault::new(self.place(row, column), values[at].to_string(), expected));
        }
        for &c in chosen {
            let Cells { count, first: Some((_, first)) } = &self.columns[c].rounded else { continue };
            notes.push(format!(
                "{}: {count} numbers have more digits than 64 bits hold, first {first}: rounded",
                self.label(c)
            ));
        }
        let names = match chosen.iter().any(|&c| self.columns[c].name.is_some()) {
            true => chosen.iter().map(|&c| self.columns[c].name.clone().unwrap_or_default()).collect(),
            false => Vec::new(),
        };
        let (mut classes, mut of_rows) = (None, Vec::new());
        if let (Some(class), Some(cells)) = (class, &cells) {
            let cells: Vec<&str> = kept.iter().filter_map(|&row| cells[row].as_deref()).collect();
            let (found, places) = Classes::of(self.columns[class].name.clone(), class + 1, &cells)?;
            (classes, of_rows) = (Some(found), places);
        }
        let numbers = chosen.iter().map(|c| c + 1).collect();
        let columns = Columns { names, numbers, of: self.columns.len(), class: classes };
        let kept = kept.into_iter().map(|row| row + 1).collect();
        Ok(Chosen { columns, values, classes: of_rows, rows: kept, of: rows, notes: [self.notes, notes].concat() })
    }

    /// What stands in every row of a column, as text; `None` where a value is missing.
    fn cells(&self, column: usize) -> Vec<Option<String>> {
        let RawColumn { values, texts, .. } = &self.columns[column];
        let number = |value: &f64| (!value.is_nan()).then(|| value.to_string());
        let mut cells: Vec<Option<String>> = values.iter().map(number).collect();
        for (row, text) in texts.iter().flatten() {
            cells[*row] = Some(text.clone());
        }
        cells
    }

    /// Refuses a chosen column that holds words, with the way out.
    fn check_words(&self, column: usize, chosen: &[usize]) -> Read<()> {
        let RawColumn { kind: declared, words, values, texts, .. } = &self.columns[column];
        let Some((row, word)) = &words.first else { return Ok(()) };
        let mut found = declared.map_or(format!("'{word}'"), String::from);
        if let Some(name) = self.columns[column].name.as_deref().filter(|name| !name.is_empty()) {
            found += &format!(" under the name '{name}'");
        }
        let kind = if remedy(word) == NUMBER { "text" } else { "its like" };
        found += &match words.count {
            _ if declared.is_some() => String::new(),
            1 => String::new(),
            all if all == values.len() => format!(", and {kind} in all {all} rows"),
            some => format!(", and {kind} in {some} of {} rows", values.len()),
        };
        let mut expected = remedy(word).to_string();
        let others: Vec<usize> = chosen.iter().copied().filter(|&c| self.columns[c].words.count == 0).collect();
        if !others.is_empty() && expected == NUMBER {
            expected += &format!(": correct it, or leave such columns out with --columns {}", self.choice(&others));
            if texts.is_none() && declared.is_none() && words.count == values.len() {
                expected += &format!(", or make classes of it with --class-column {}", self.choice(&[column]));
            }
        }
        Err(Fault::new(self.place(*row, column), found, expected))
    }

    /// `3 of 150 rows lack a value (column 2 ('b'): 3, first in line 7)`.
    fn missing(&self, chosen: &[usize], lacking: usize) -> String {
        let lacking_columns: Vec<usize> =
            chosen.iter().copied().filter(|&c| self.columns[c].missing.count > 0).collect();
        let one = |&c: &usize| {
            let Cells { count, first } = &self.columns[c].missing;
            let (row, cell) = first.clone().unwrap_or_default();
            let place = match self.lines.get(row) {
                Some(line) => format!("line {line}"),
                None => format!("row {}", row + 1),
            };
            let cell = if cell.is_empty() { "an empty cell".into() } else { format!("'{cell}'") };
            format!("{}: {count}, first in {place}, {cell}", self.label(c))
        };
        let mut said: Vec<String> = lacking_columns.iter().take(NAMES_LISTED).map(one).collect();
        if lacking_columns.len() > NAMES_LISTED {
            said.push(format!("and {} columns more", lacking_columns.len() - NAMES_LISTED));
        }
        let verb = if lacking == 1 { "lacks" } else { "lack" };
        format!("{lacking} of {} rows {verb} a value ({})", self.rows(), said.join("; "))
    }

    fn place(&self, row: usize, column: usize) -> Place {
        match self.lines.get(row) {
            Some(&line) => Place::Cell { line, column: column + 1 },
            None => Place::Entry { row: row + 1, column: column + 1 },
        }
    }

    fn label(&self, column: usize) -> String {
        label(column + 1, self.columns[column].name.as_deref())
    }

    /// What `--columns` takes for these columns: names if they are plain, else numbers.
    fn choice(&self, columns: &[usize]) -> String {
        let plain = |&c: &usize| {
            let name = self.columns[c].name.as_deref()?;
            let clear = !name.is_empty() && !name.contains([',', ' ', '"', '\'']) && self.named(name).len() == 1;
            clear.then_some(name)
        };
        match columns.iter().map(plain).collect::<Option<Vec<_>>>() {
            Some(names) if names.len() <= NAMES_LISTED => names.join(","),
            _ => ranges(columns),
        }
    }

    fn listed(&self, columns: &[usize]) -> String {
        match columns.len() {
            0..=NAMES_LISTED => columns.iter().map(|&c| self.label(c)).collect::<Vec<_>>().join(", "),
            many => format!("{many} columns, {}", ranges(columns)),
        }
    }

    fn all_listed(&self) -> String {
        self.listed(&(0..self.columns.len()).collect::<Vec<_>>())
    }
}

/// Numbers counted from one, neighbours as ranges: `1-4,6`.
fn ranges(columns: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for number in columns.iter().map(|c| c + 1) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let one = |&(from, to): &(usize, usize)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    runs.iter().map(one).collect::<Vec<_>>().join(",")
}
