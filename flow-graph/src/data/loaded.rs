//! What a file of molecules came to, the good and the bad.

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{MoleculeSet, TextList};
use crate::smiles::{self, Dropped};
use crate::{Error, Molecule, Result};

/// A place in a file where there should be a molecule and is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadLine {
    /// Line number, counted from one (after decompression).
    pub line: usize,
    /// Column counted from one, in characters.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
    /// The SMILES that stands there, at most its first 200 letters; empty where the line has no such field.
    pub source: String,
    /// The name beside it, empty where there is none.
    pub name: String,
}

/// `line 3, column 7: …`.
impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.reason)
    }
}

/// What becomes of a molecule of several components: a salt, a hydrate, a mixture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Components {
    /// The component with most atoms is kept; [`Loaded::multi_component`] counts how often.
    #[default]
    Largest,
    /// The line is a bad one.
    Refuse,
}

/// The molecules of a source, and an account of everything that is not among them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// The molecules in the order of the source.
    pub molecules: MoleculeSet,
    /// For every molecule the SMILES of the source as it stands there; of an SD file the one that
    /// [`smiles::write`] gives.
    pub source_strings: TextList,
    /// For every molecule its name, empty where the source gives none.
    pub names: TextList,
    /// For every molecule the line it stands on, counted from one.
    pub lines: Vec<usize>,
    /// For every molecule which entry of the source it is, counted from zero; a bad line is an entry, a
    /// blank one, a comment and a header are none. Files of indices count so.
    pub entries: Vec<usize>,
    /// Number of entries, the bad ones included.
    pub entry_count: usize,
    /// The first bad entries, at most [`Loaded::BAD_KEPT`].
    pub bad: Vec<BadLine>,
    /// How many entries are bad in all.
    pub bad_count: usize,
    /// What the SMILES said that a molecule does not carry, in all.
    pub dropped: Dropped,
    /// Molecules of which only the largest component was kept.
    pub multi_component: usize,
    /// Components set aside that are no molecules of their own, such as `[Na]OC`.
    pub unreadable_components: usize,
    /// CXSMILES extensions, `|…|` after a SMILES, which are not read.
    pub extensions: usize,
    /// Lines that are not UTF-8 and were taken for Latin-1.
    pub latin1: usize,
    /// The column of a table that holds the SMILES, by its header.
    pub column: Option<String>,
    /// The file's path, or `builtin`.
    pub source: String,
    /// Whether the molecules came from the cache.
    pub from_cache: bool,
}

impl Loaded {
    /// Most bad lines that are kept; a file of noise has no end of them.
    pub const BAD_KEPT: usize = 10_000;

    /// Heavy atoms of the largest molecule that is read; a polymer on a line is a bad line.
    pub const MOST_ATOMS: usize = 1_000;

    /// Molecules from SMILES at hand, read as those of a file are: each may have a name after it, a bad one is counted, and
    /// its line is its place, from one.
    pub fn from_strings<S: AsRef<str>>(strings: &[S], source: &str, rule: Components) -> Self {
        let mut loaded = Loaded { source: source.into(), ..Loaded::default() };
        for (index, text) in strings.iter().enumerate() {
            let text = text.as_ref();
            let body = text.trim();
            let column = text.chars().take_while(|c| c.is_whitespace()).count() + 1;
            loaded.push(Entry::of_smiles(&Field::of(body), index + 1, column, rule));
        }
        loaded
    }

    /// Number of molecules.
    pub fn len(&self) -> usize {
        self.molecules.len()
    }

    /// Whether there is no molecule.
    pub fn is_empty(&self) -> bool {
        self.molecules.is_empty()
    }

    /// The name of the molecule at an index, `None` where it has none.
    pub fn name(&self, index: usize) -> Option<&str> {
        self.names.get(index).filter(|name| !name.is_empty())
    }

    /// Bytes of memory that all of it takes, the bad lines aside.
    pub fn heap_bytes(&self) -> usize {
        let numbers = (self.lines.capacity() + self.entries.capacity()) * size_of::<usize>();
        self.molecules.heap_bytes() + self.source_strings.heap_bytes() + self.names.heap_bytes() + numbers
    }

    /// One sentence for a person: how many molecules, and what was left out.
    pub fn summary(&self) -> String {
        let mut parts = vec![format!("{} from {}", counted(self.len(), "molecule"), self.source)];
        let mut note = |count: usize, what: &str| {
            if count > 0 {
                parts.push(counted(count, what));
            }
        };
        note(self.bad_count, "bad line");
        note(self.multi_component, "smaller component set aside");
        note(self.unreadable_components, "unreadable component");
        note(self.dropped.stereo, "stereo mark");
        note(self.dropped.isotopes, "isotope");
        note(self.dropped.atom_maps, "atom map");
        note(self.extensions, "CXSMILES extension");
        let mut text = parts.remove(0);
        if !parts.is_empty() {
            text = format!("{text}; without {}", parts.join(", "));
        }
        if let Some(column) = self.column.as_ref().filter(|column| !column.eq_ignore_ascii_case("smiles")) {
            text += &format!("; SMILES in column '{column}'");
        }
        if self.latin1 > 0 {
            text += &format!("; {} read as Latin-1", counted(self.latin1, "line"));
        }
        match self.bad.first() {
            Some(first) => format!("{text} (first: {first})"),
            None => text,
        }
    }

    /// An error instead of a data set without molecules.
    pub(super) fn or_refuse(mut self, path: &Path) -> Result<Self> {
        const SHOWN: usize = 3;
        if self.is_empty() {
            let shown: Vec<_> = self.bad.iter().take(SHOWN).map(ToString::to_string).collect();
            let reason = match self.bad_count {
                0 => "holds no molecules, only blank lines, comments or a header".to_string(),
                count if count > shown.len() => {
                    format!("none of its {count} lines is a molecule; {}; …", shown.join("; "))
                }
                count => format!("none of its {} is a molecule; {}", counted(count, "line"), shown.join("; ")),
            };
            return Err(Error::File { path: path.into(), reason });
        }
        self.shrink_to_fit();
        Ok(self)
    }

    fn shrink_to_fit(&mut self) {
        self.molecules.shrink_to_fit();
        self.source_strings.shrink_to_fit();
        self.names.shrink_to_fit();
        self.lines.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Adds an entry, a good or a bad one.
    pub(super) fn push(&mut self, entry: Entry) {
        let index = self.entry_count;
        self.entry_count += 1;
        match entry {
            Entry::Good(good) => match self.molecules.push(&good.molecule) {
                Ok(()) => self.push_good(&good, index),
                Err(error) => {
                    let bad = BadLine { line: good.line, column: 1, reason: error.to_string(), ..BadLine::default() };
                    self.push_bad(BadLine { source: good.source, name: good.name, ..bad });
                }
            },
            Entry::Bad(bad) => self.push_bad(bad),
        }
    }

    fn push_good(&mut self, good: &Good, index: usize) {
        self.source_strings.push(&good.source);
        self.names.push(&good.name);
        self.lines.push(good.line);
        self.entries.push(index);
        self.multi_component += usize::from(good.parted);
        self.unreadable_components += good.unreadable;
        self.extensions += usize::from(good.extended);
        self.dropped.stereo += good.dropped.stereo;
        self.dropped.isotopes += good.dropped.isotopes;
        self.dropped.atom_maps += good.dropped.atom_maps;
        self.dropped.hydrogens += good.dropped.hydrogens;
    }

    fn push_bad(&mut self, bad: BadLine) {
        self.bad_count += 1;
        if self.bad.len() < Self::BAD_KEPT {
            self.bad.push(bad);
        }
    }

    /// Reads the entries of a source: `read` turns one raw row into its entry, in parallel; the order stays.
    pub(super) fn extend<R: Send + Sync>(
        &mut self,
        mut rows: impl FnMut() -> Result<Option<R>>,
        weight: impl Fn(&R) -> usize,
        read: impl Fn(&R) -> Option<Entry> + Sync,
    ) -> Result<()> {
        // Enough rows to keep every core busy, few enough bytes not to matter.
        const ROWS: usize = 8192;
        const BYTES: usize = 4 << 20;
        loop {
            let (mut chunk, mut bytes) = (Vec::new(), 0);
            while chunk.len() < ROWS && bytes < BYTES {
                let Some(row) = rows()? else { break };
                bytes += weight(&row);
                chunk.push(row);
            }
            if chunk.is_empty() {
                return Ok(());
            }
            let entries: Vec<_> = chunk.par_iter().with_min_len(64).map(&read).collect();
            entries.into_iter().flatten().for_each(|entry| self.push(entry));
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 {
        return format!("1 {what}");
    }
    // The noun may be followed by more words.
    match what.split_once(" set ") {
        Some((noun, rest)) => format!("{count} {noun}s set {rest}"),
        None => format!("{count} {what}s"),
    }
}

/// One entry of a source.
pub(super) enum Entry {
    Good(Box<Good>),
    Bad(BadLine),
}

/// A molecule with what the source says about it.
pub(super) struct Good {
    pub molecule: Molecule,
    pub source: String,
    pub name: String,
    pub line: usize,
    pub dropped: Dropped,
    pub parted: bool,
    pub unreadable: usize,
    pub extended: bool,
}

/// What a source says beside a molecule.
pub(super) struct About {
    pub source: String,
    pub name: String,
    pub dropped: Dropped,
    pub unreadable: usize,
    pub extended: bool,
}

/// A SMILES as it stands in a field or on a line, with what may follow it: `CCO |$;;x$| ethanol`.
pub(super) struct Field<'a> {
    pub smiles: &'a str,
    pub name: &'a str,
    /// Whether a CXSMILES extension stands between.
    pub extended: bool,
}

impl<'a> Field<'a> {
    /// Divides a text that does not begin with white space. No SMILES holds a comma or a semicolon, so these end one too.
    pub(super) fn of(text: &'a str) -> Self {
        let ends = |c: char| c.is_whitespace() || matches!(c, ',' | ';');
        let (smiles, rest) = match text.find(ends) {
            Some(end) => (&text[..end], text[end..].trim_start_matches(ends).trim_end()),
            None => (text, ""),
        };
        match rest.strip_prefix('|').and_then(|inside| inside.split_once('|')) {
            Some((_, name)) => Field { smiles, name: name.trim(), extended: true },
            None => Field { smiles, name: rest, extended: false },
        }
    }
}

impl Entry {
    /// A bad entry.
    pub(super) fn bad(line: usize, column: usize, reason: impl Into<String>) -> Self {
        Entry::Bad(BadLine { line, column, reason: reason.into(), ..BadLine::default() })
    }

    /// The entry of a SMILES that starts at a column of a line.
    pub(super) fn of_smiles(field: &Field<'_>, line: usize, column: usize, rule: Components) -> Self {
        const SHOWN: usize = 200;
        match Entry::read_smiles(field, line, column, rule) {
            Entry::Bad(bad) => {
                let source = field.smiles.chars().take(SHOWN).collect();
                Entry::Bad(BadLine { source, name: field.name.into(), ..bad })
            }
            good => good,
        }
    }

    fn read_smiles(field: &Field<'_>, line: usize, column: usize, rule: Components) -> Self {
        let text = field.smiles;
        // A counter-ion that cannot be read does not throw the drug away.
        let reading = match smiles::read(text) {
            Err(error) if rule == Components::Largest => match smiles::read_largest(text) {
                Ok(reading) if reading.pieces > 1 => Ok(reading),
                _ => Err(error),
            },
            other => other,
        };
        match reading {
            Ok(reading) => {
                let (source, name) = (text.to_string(), field.name.to_string());
                let (dropped, unreadable, extended) = (reading.dropped, reading.unreadable, field.extended);
                let about = About { source, name, dropped, unreadable, extended };
                Entry::of_molecule(reading.molecule, about, (line, column), rule)
            }
            Err(Error::Smiles { column: inside, reason, .. }) => Entry::bad(line, column + inside - 1, reason),
            Err(other) => Entry::bad(line, column, other.to_string()),
        }
    }

    /// The entry of a molecule that was read at a line and column.
    pub(super) fn of_molecule(
        molecule: Molecule,
        about: About,
        (line, column): (usize, usize),
        rule: Components,
    ) -> Self {
        if molecule.is_empty() {
            return Entry::bad(line, column, "a molecule without atoms");
        }
        let components = molecule.components().into_iter().max().unwrap_or(0) + 1;
        let molecule = match rule {
            _ if components == 1 => molecule,
            Components::Largest => molecule.largest_component(),
            Components::Refuse => {
                return Entry::bad(line, column, format!("{components} components, expected one connected molecule"));
            }
        };
        if molecule.len() > Loaded::MOST_ATOMS {
            let reason = format!("a molecule of {} atoms, at most {} are read", molecule.len(), Loaded::MOST_ATOMS);
            return Entry::bad(line, column, reason);
        }
        let About { source, name, dropped, unreadable, extended } = about;
        let parted = components > 1 || unreadable > 0;
        Entry::Good(Box::new(Good { molecule, source, name, line, dropped, parted, unreadable, extended }))
    }
}
