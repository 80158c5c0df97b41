//! Yes/no attributes of images, the columns of a `labels.csv`.
//!
//! An attribute gives a direction in latent space: the mean latent of the images that have it minus the
//! mean of those that do not (Kingma & Dhariwal 2018, section 5.1).

use std::collections::HashMap;
use std::path::Path;

use super::{foreign, some_of};
use crate::{Error, Result};

/// A table of `N` rows and `A` named yes/no columns; a row may be unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    names: Vec<String>,
    rows: Vec<Option<Vec<bool>>>,
}

impl Attributes {
    /// A table from its column names and rows.
    ///
    /// # Errors
    /// No column, or a row of another length than the names.
    pub fn new(names: Vec<String>, rows: Vec<Vec<bool>>) -> Result<Self> {
        Self::with_unknown(names, rows.into_iter().map(Some).collect())
    }

    /// A table in which nothing is known of some images.
    ///
    /// # Errors
    /// As [`Attributes::new`].
    pub fn with_unknown(names: Vec<String>, rows: Vec<Option<Vec<bool>>>) -> Result<Self> {
        if names.is_empty() || rows.iter().flatten().any(|row| row.len() != names.len()) {
            return Err(Error::config("attributes", format!("every row needs {} (at least one) values", names.len())));
        }
        Ok(Attributes { names, rows })
    }

    /// Number of rows `N`.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the table has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Names of the columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// One column, a value per image; `None` for images of which the table says nothing.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn column(&self, name: &str) -> Result<Vec<Option<bool>>> {
        let unknown = || Error::config(format!("attribute {name}"), format!("known are {}", self.names.join(", ")));
        let column = self.names.iter().position(|n| n == name).ok_or_else(unknown)?;
        Ok(self.rows.iter().map(|row| row.as_ref().map(|row| row[column])).collect())
    }

    /// The rows at `indices`, all of which exist.
    pub(crate) fn subset(&self, indices: &[usize]) -> Self {
        Attributes { names: self.names.clone(), rows: indices.iter().map(|&i| self.rows[i].clone()).collect() }
    }

    /// Both tables, one below the other, if they have the same columns.
    pub(crate) fn join(mut self, other: Self) -> Option<Self> {
        self.rows.extend(other.rows);
        (self.names == other.names).then_some(self)
    }

    /// Reads a `labels.csv`: a header, then a row per image with its file in the column `file` or else in the first one,
    /// and `1` for yes and `0` or `-1` for no in the others. Cells may be quoted and separated by commas, semicolons or
    /// tabs. A file is a path relative to the folder with `/` between its parts, its last part alone where there is
    /// only one of that name, either with or without the ending. CelebA's own form, which begins with the number of images
    /// and has blanks between cells, is read as well. `files` is the order the rows are wanted in.
    ///
    /// Also returns what to tell: columns that hold something else than yes and no, which are left out (all of them:
    /// no table), images without a row and rows without an image.
    pub(crate) fn read_csv(path: &Path, files: &[String]) -> Result<(Option<Self>, Vec<String>)> {
        let bytes = super::read_file(path)?;
        foreign::refuse(path, &bytes)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let position = error.utf8_error().valid_up_to();
            Error::format(path, position, "UTF-8 text (iconv -f LATIN1 -t UTF-8)", "another encoding")
        })?;
        let table = Table::parse(path, &as_celeba(&text).unwrap_or(text))?;
        let places = table.places(path, files)?;
        let mut notes = table.unmatched(path, files, &places);
        let mut kept = Vec::new();
        for column in (0..table.header.len()).filter(|&column| column != table.file) {
            match table.column(path, column)? {
                Ok(values) => kept.push((table.header[column].clone(), values)),
                Err(why) => notes.push(why),
            }
        }
        if kept.is_empty() {
            notes.push(format!("{}: no column of 0 and 1, or -1 and 1: no attributes are read", path.display()));
            return Ok((None, notes));
        }
        let names = kept.iter().map(|(name, _)| name.clone()).collect();
        let row = |place: &Option<usize>| place.map(|place| kept.iter().map(|(_, values)| values[place]).collect());
        Ok((Some(Attributes::with_unknown(names, places.iter().map(row).collect())?), notes))
    }
}

/// CelebA's table as a CSV with the same lines, if it is one: the number of images, the names of the attributes, and rows
/// of a file and -1 or 1 for each, with blanks between.
fn as_celeba(text: &str) -> Option<String> {
    let mut lines = text.trim_start_matches('\u{feff}').lines();
    lines.next()?.trim().parse::<u32>().ok()?;
    let rest: Vec<String> = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(",")).collect();
    Some(format!("\nfile,{}\n", rest.join("\n")))
}

/// The cells of a file.
struct Table {
    header: Vec<String>,
    /// The column of file names.
    file: usize,
    /// Rows with their lines, counted from one.
    rows: Vec<(usize, Vec<String>)>,
}

impl Table {
    fn parse(path: &Path, text: &str) -> Result<Self> {
        let text = text.trim_start_matches('\u{feff}');
        let first = text.lines().next().unwrap_or_default();
        // The separator is the one that the header has most of.
        let count = |separator: &u8| first.bytes().filter(|byte| byte == separator).count();
        let separator = [b';', b'\t', b','].into_iter().max_by_key(count).unwrap_or(b',');
        let mut reader = csv::ReaderBuilder::new();
        reader.delimiter(separator).has_headers(false).flexible(true).trim(csv::Trim::All);
        let mut rows = Vec::new();
        for record in reader.from_reader(text.as_bytes()).into_records() {
            let record = record.map_err(|e| Error::config(path.display().to_string(), e.to_string()))?;
            let line = record.position().map_or(0, |position| position.line() as usize);
            if record.iter().any(|cell| !cell.is_empty()) {
                rows.push((line, record.iter().map(String::from).collect::<Vec<String>>()));
            }
        }
        let mut rows = rows.into_iter();
        let header = rows.next().map(|(_, cells)| cells).unwrap_or_default();
        if header.len() < 2 {
            let expected = "a header with a column of files and columns of attributes";
            return Err(csv_error(path, 1, expected, &header.join(",")));
        }
        let rows: Vec<_> = rows.collect();
        if let Some((line, row)) = rows.iter().find(|(_, row)| row.len() != header.len()) {
            return Err(csv_error(path, *line, &format!("{} cells", header.len()), &row.len().to_string()));
        }
        let file = header.iter().position(|name| name == "file").unwrap_or(0);
        Ok(Table { header, file, rows })
    }

    /// The row of each file, if there is one.
    fn places(&self, path: &Path, files: &[String]) -> Result<Vec<Option<usize>>> {
        let mut rows: HashMap<&str, usize> = HashMap::new();
        for (place, (line, row)) in self.rows.iter().enumerate() {
            let name = row[self.file].as_str();
            if rows.insert(name, place).is_some() {
                return Err(csv_error(path, *line, "one row for each file", &format!("{name} twice")));
            }
        }
        let short = |name: &str| -> [String; 4] {
            let last = name.rsplit('/').next().unwrap_or(name);
            let stem = |name: &str| name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_string();
            [name.to_string(), stem(name), last.to_string(), stem(last)]
        };
        // A short form stands for a file only where no other file has it.
        let mut owners: HashMap<String, usize> = HashMap::new();
        for form in files.iter().flat_map(|file| {
            let mut forms = short(file).to_vec();
            forms.dedup();
            forms.sort_unstable();
            forms.dedup();
            forms
        }) {
            *owners.entry(form).or_default() += 1;
        }
        let place = |file: &String| {
            let forms = short(file);
            forms.iter().enumerate().find_map(|(i, form)| {
                let sure = i == 0 || owners.get(form) == Some(&1);
                rows.get(form.as_str()).copied().filter(|_| sure)
            })
        };
        let places: Vec<Option<usize>> = files.iter().map(place).collect();
        if !self.rows.is_empty() && places.iter().all(Option::is_none) {
            let expected =
                format!("files of the folder under `{}`, such as {}", self.header[self.file], some_of(files));
            let found = some_of(&self.rows.iter().map(|(_, row)| row[self.file].as_str()).collect::<Vec<_>>());
            return Err(csv_error(path, self.rows[0].0, &expected, &found));
        }
        Ok(places)
    }

    /// Images without a row and rows without an image.
    fn unmatched(&self, path: &Path, files: &[String], places: &[Option<usize>]) -> Vec<String> {
        let mut notes = Vec::new();
        let without: Vec<&String> = files.iter().zip(places).filter(|(_, p)| p.is_none()).map(|(f, _)| f).collect();
        if !without.is_empty() {
            let (count, all) = (without.len(), files.len());
            notes.push(format!("{}: no row for {count} of {all} pictures: {}", path.display(), some_of(&without)));
        }
        let mut used = vec![false; self.rows.len()];
        places.iter().flatten().for_each(|&place| used[place] = true);
        let idle = self.rows.iter().zip(&used).filter(|(_, used)| !**used);
        let idle: Vec<&str> = idle.map(|((_, row), _)| row[self.file].as_str()).collect();
        if !idle.is_empty() {
            notes.push(format!("{}: {} rows name no picture: {}", path.display(), idle.len(), some_of(&idle)));
        }
        notes
    }

    /// The values of a column, or why it holds no yes and no. One stray value among them is a mistake.
    fn column(&self, path: &Path, column: usize) -> Result<std::result::Result<Vec<bool>, String>> {
        let values: Vec<Option<bool>> = self.rows.iter().map(|(_, row)| yes_or_no(&row[column])).collect();
        let mut others: Vec<(usize, &str)> = self
            .rows
            .iter()
            .zip(&values)
            .filter(|(_, value)| value.is_none())
            .map(|((line, row), _)| (*line, row[column].as_str()))
            .collect();
        let Some(&(line, stray)) = others.first() else { return Ok(Ok(values.into_iter().flatten().collect())) };
        let name = &self.header[column];
        others.dedup_by_key(|(_, cell)| *cell);
        let distinct: std::collections::BTreeSet<&str> = others.iter().map(|(_, cell)| *cell).collect();
        if distinct.len() == 1 && values.iter().any(Option::is_some) && stray.parse::<f64>().is_err() {
            return Err(csv_error(path, line, &format!("0 or 1 (or -1 or 1) as {name}"), &format!("`{stray}`")));
        }
        Ok(Err(format!("{}: the column {name} holds no yes and no (line {line}: `{stray}`), left out", path.display())))
    }
}

fn yes_or_no(cell: &str) -> Option<bool> {
    match cell {
        "1" | "1.0" | "+1" => Some(true),
        "0" | "-1" | "0.0" | "-1.0" => Some(false),
        word if word.eq_ignore_ascii_case("true") => Some(true),
        word if word.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn csv_error(path: &Path, line: usize, expected: &str, found: &str) -> Error {
    // A quoted cell may hold line breaks, and all of the file where a quote is not closed.
    let one_line = |text: &str| -> String {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.chars().count() > 120 { line.chars().take(120).chain(['…']).collect() } else { line }
    };
    Error::Line { path: path.into(), line, expected: one_line(expected), found: one_line(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], files: &[&str]) -> Result<(Option<Attributes>, Vec<String>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.csv");
        std::fs::write(&path, text).unwrap();
        Attributes::read_csv(&path, &files.iter().map(|f| f.to_string()).collect::<Vec<_>>())
    }

    fn column(text: &str, files: &[&str], name: &str) -> Vec<Option<bool>> {
        read(text.as_bytes(), files).unwrap().0.unwrap().column(name).unwrap()
    }

    #[test]
    fn rows_follow_the_order_of_the_files() {
        let (table, notes) = read(b"smile,file,hat\r\n1,b.png,0\n\n-1, a.png ,1\n", &["a.png", "b.png"]).unwrap();
        let table = table.unwrap();
        assert_eq!((table.names(), notes.len()), (&["smile".to_string(), "hat".into()][..], 0));
        assert_eq!(table.column("smile").unwrap(), [Some(false), Some(true)]);
        assert_eq!(table.column("hat").unwrap(), [Some(true), Some(false)]);
        assert!(table.column("nose").unwrap_err().to_string().contains("smile, hat"));
    }

    #[test]
    fn tables_of_other_houses_are_read() {
        let (yes, no) = (Some(true), Some(false));
        // CelebA's first column, quoted cells, other separators, a mark in front, truth values as pandas writes them.
        for text in [
            "image_id,Smiling,Male\na.png,1,-1\nb.png,-1,1\n",
            "\"image id\",\"Smiling\",\"Male\"\n\"a.png\",\"1\",\"0\"\n\"b.png\",\"0\",\"1\"\n",
            "\u{feff}id;Smiling;Male\na;1;0\nb;0;1\n",
            "name\tSmiling\tMale\nb.png\tFalse\tTrue\na.png\tTrue\tFalse\n",
        ] {
            assert_eq!(column(text, &["a.png", "b.png"], "Smiling"), [yes, no], "{text}");
            assert_eq!(column(text, &["a.png", "b.png"], "Male"), [no, yes], "{text}");
        }
        // Without folder and ending where that is enough to know the file.
        let files = ["x/a.png", "y/a.png", "y/b.jpg"];
        assert_eq!(column("id,hat\nx/a,1\ny/a.png,0\nb,1\n", &files, "hat"), [yes, no, yes]);
        let (table, notes) = read(b"id,hat\na.png,1\nb.jpg,1\n", &files).unwrap();
        assert_eq!(table.unwrap().column("hat").unwrap(), [None, None, yes], "two files are a.png");
        assert!(notes[0].contains("no row for 2 of 3 pictures: x/a.png, y/a.png"), "{notes:?}");
        assert!(notes[1].contains("1 rows name no picture: a.png"), "{notes:?}");
    }

    #[test]
    fn columns_of_other_things_are_left_out_and_told() {
        let (table, notes) = read(b"id,breed\na,boxer\nb,pug\n", &["a.png", "b.png"]).unwrap();
        assert!(
            table.is_none() && notes[0].contains("column breed holds no yes and no (line 2: `boxer`)"),
            "{notes:?}"
        );
        assert!(notes[1].contains("no attributes are read"), "{notes:?}");
        let (table, notes) = read(b"id,digit,hat\na,0,1\nb,7,0\nc,5,1\n", &["a.png", "b.png", "c.png"]).unwrap();
        assert_eq!(table.unwrap().names(), ["hat"]);
        assert!(notes[0].contains("digit"), "{notes:?}");
    }

    #[test]
    fn malformed_tables_name_the_line() {
        let cases: [(&[u8], &str); 9] = [
            (b"", "empty file"),
            (b"file\na\n", "line 1"),
            (b"file,smile\na,1,0\n", "line 2"),
            (b"file,smile\na,1\nb,yes\n", "line 3: expected 0 or 1 (or -1 or 1) as smile, found `yes`"),
            (b"file,smile\na,1\nb,\n", "line 3: expected 0 or 1"),
            (b"file,smile\na,1\na,0\n", "line 3: expected one row for each file"),
            (b"file,smile\nb,1\n", "line 2: expected files of the folder under `file`, such as a, found b"),
            (b"file,smile\na,\xff\n", "byte 13: expected UTF-8"),
            (b"<html><body>Sign in</body></html>", "an HTML page"),
        ];
        for (text, expected) in cases {
            let error = read(text, &["a"]).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("labels.csv"), "{error}");
        }
    }
}
