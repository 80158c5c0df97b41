//! The header of an NPY array: a dictionary in Python's notation.

use super::super::fault::{Fault, Read};

/// The first bytes of every array.
const MAGIC: &[u8] = b"\x93NUMPY";
/// Brackets inside of each other, at most.
const DEEPEST: usize = 8;

/// What a header says.
#[derive(Debug)]
pub(super) struct Header {
    /// `'<f4'`, or a list of fields.
    pub(super) descr: Literal,
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
}

impl Header {
    /// The header of an array, and the bytes after it.
    pub(super) fn of(bytes: &[u8]) -> Read<(Self, &[u8])> {
        let none = || Fault::whole("not an NPY file", "its magic bytes and a header");
        let (length, rest) = match bytes.strip_prefix(MAGIC).ok_or_else(none)? {
            [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
            [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
            _ => return Err(none()),
        };
        let (text, rest) = rest.split_at_checked(length).ok_or_else(none)?;
        let text = std::str::from_utf8(text).map_err(|_| none())?;
        let dictionary = Parser { text, at: 0 }.value(0).ok_or_else(none)?;
        let Literal::Dictionary(entries) = dictionary else { return Err(none()) };
        let find = |name: &str| entries.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        match (find("descr"), find("fortran_order"), find("shape")) {
            (Some(descr), Some(Literal::Truth(fortran)), Some(Literal::List(shape))) => {
                let shape = shape.iter().map(Literal::number).collect::<Option<_>>().ok_or_else(none)?;
                Ok((Header { descr: descr.clone(), fortran: *fortran, shape }, rest))
            }
            _ => Err(none()),
        }
    }
}

/// A value in Python's notation, as far as headers have them; tuples are lists.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Text(String),
    Number(usize),
    Truth(bool),
    List(Vec<Literal>),
    Dictionary(Vec<(String, Literal)>),
}

impl Literal {
    pub(super) fn number(&self) -> Option<usize> {
        match self {
            Literal::Number(number) => Some(*number),
            _ => None,
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// The next value; `None` for anything that headers do not have.
    fn value(&mut self, depth: usize) -> Option<Literal> {
        if depth > DEEPEST {
            return None;
        }
        match self.peek()? {
            b'\'' | b'"' => self.quoted().map(Literal::Text),
            b'(' => self.list(b')', depth),
            b'[' => self.list(b']', depth),
            b'{' => self.dictionary(depth),
            b'0'..=b'9' => self.digits(),
            _ => {
                let rest = &self.text[self.at..];
                let truth = [("True", true), ("False", false)].into_iter().find(|(word, _)| rest.starts_with(word))?;
                self.at += truth.0.len();
                Some(Literal::Truth(truth.1))
            }
        }
    }

    fn quoted(&mut self) -> Option<String> {
        let mark = char::from(self.peek()?);
        let rest = &self.text[self.at + 1..];
        let end = rest.find(mark)?;
        self.at += end + 2;
        // Names with escapes are left as they are written.
        Some(rest[..end].to_string())
    }

    fn digits(&mut self) -> Option<Literal> {
        let rest = &self.text[self.at..];
        let end = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += end;
        // Python 2 wrote long integers.
        self.at += usize::from(rest.as_bytes().get(end) == Some(&b'L'));
        rest[..end].parse().ok().map(Literal::Number)
    }

    fn list(&mut self, end: u8, depth: usize) -> Option<Literal> {
        self.at += 1;
        let mut values = Vec::new();
        while !self.accept(end) {
            values.push(self.value(depth + 1)?);
            if !self.accept(b',') && self.peek() != Some(end) {
                return None;
            }
        }
        Some(Literal::List(values))
    }

    fn dictionary(&mut self, depth: usize) -> Option<Literal> {
        self.at += 1;
        let mut entries = Vec::new();
        while !self.accept(b'}') {
            let key = match self.peek()? {
                b'\'' | b'"' => self.quoted()?,
                _ => return None,
            };
            if !self.accept(b':') {
                return None;
            }
            entries.push((key, self.value(depth + 1)?));
            if !self.accept(b',') && self.peek() != Some(b'}') {
                return None;
            }
        }
        Some(Literal::Dictionary(entries))
    }
}
