//! The header of an array: a dictionary in Python's notation.

use super::{Fault, MAGIC};

/// Brackets inside of each other, at most.
const DEEPEST: usize = 8;
/// As much of a header as an error shows.
const SHOWN: usize = 80;

/// What a header says.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The type of an element, `'<f4'`, or a list of fields.
    pub descr: Literal,
    /// Whether the first axis is the fastest.
    pub fortran: bool,
    /// The length of every axis.
    pub shape: Vec<usize>,
}

impl Header {
    /// The header of an array, and the bytes after it.
    ///
    /// # Errors
    /// [`Fault::Header`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), Fault> {
        let fault = |offset, expected, found: String| Fault::Header { offset, expected, found };
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            let found = format!("{:02x?}", &bytes[..bytes.len().min(MAGIC.len())]);
            return Err(fault(0, "the magic bytes of a NumPy file", found));
        };
        let (start, length) = match rest {
            [1, _, a, b, ..] => (10, usize::from(u16::from_le_bytes([*a, *b]))),
            [2 | 3, _, a, b, c, d, ..] => (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
            _ => return Err(fault(MAGIC.len(), "a version from 1 to 3 and the length of a header", "neither".into())),
        };
        let Some((text, rest)) = bytes.get(start..).and_then(|rest| rest.split_at_checked(length)) else {
            let found = format!("a length of {length} in {} bytes: cut off?", bytes.len());
            return Err(fault(MAGIC.len() + 2, "a header inside the file", found));
        };
        let valid = std::str::from_utf8(text).map_or_else(|error| error.valid_up_to(), str::len);
        let strange = |byte: &u8| byte.is_ascii_control() && *byte != b'\n';
        if let Some(at) = text.iter().position(strange).or((valid < text.len()).then_some(valid)) {
            return Err(fault(start + at, "printable ASCII or UTF-8", format!("byte {:#04x}", text[at])));
        }
        let text = std::str::from_utf8(text).unwrap_or_default();
        let read = Parser { text, at: 0 }.value(0).and_then(Header::of);
        let header = read.ok_or_else(|| {
            let found = text.trim_end().chars().filter(|c| !c.is_control()).take(SHOWN).collect();
            fault(start, "a dictionary with 'descr', 'fortran_order' and 'shape'", found)
        })?;
        Ok((header, rest))
    }

    fn of(dictionary: Literal) -> Option<Self> {
        let Literal::Dictionary(entries) = dictionary else { return None };
        let find = |name: &str| entries.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        match (find("descr")?, find("fortran_order")?, find("shape")?) {
            (descr, Literal::Truth(fortran), Literal::List(shape)) => {
                let shape = shape.iter().map(Literal::number).collect::<Option<_>>()?;
                Some(Header { descr: descr.clone(), fortran: *fortran, shape })
            }
            _ => None,
        }
    }
}

/// A value in Python's notation, as far as headers have them; tuples are lists.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// A string.
    Text(String),
    /// A whole number from zero.
    Number(usize),
    /// `True` or `False`.
    Truth(bool),
    /// A list or a tuple.
    List(Vec<Literal>),
    /// Values under their names, in their order.
    Dictionary(Vec<(String, Literal)>),
}

impl Literal {
    /// The number, if it is one.
    pub fn number(&self) -> Option<usize> {
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
