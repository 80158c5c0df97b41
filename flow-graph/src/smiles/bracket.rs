//! Bracket atoms: `[13C@@H2+:7]`.

use crate::molecule::draft::{DraftAtom, Dropped, Hydrogens};
use crate::molecule::{Atom, Element};

/// Why the text is no bracket atom, at an offset in it.
pub(super) type Refusal = (usize, String);

/// Reads what stands between `[` and `]`.
pub(super) fn read(inside: &[u8], dropped: &mut Dropped) -> Result<DraftAtom, Refusal> {
    let mut bracket = Bracket { bytes: inside, at: 0 };
    if bracket.number(3, "an isotope")?.is_some() {
        dropped.isotopes += 1;
    }
    let (element, aromatic) = bracket.symbol()?;
    if bracket.chirality()? {
        dropped.stereo += 1;
    }
    let hydrogens = bracket.hydrogens();
    let charge = bracket.charge()?;
    if bracket.take(b':') {
        if bracket.number(9, "an atom map")?.is_none() {
            return Err((bracket.at, "expected the number of an atom map".into()));
        }
        dropped.atom_maps += 1;
    }
    if bracket.at < inside.len() {
        let found = char::from(inside[bracket.at]);
        let order = "isotope, symbol, chirality, H, charge, map";
        return Err((bracket.at, format!("expected ']', found '{found}' (the order in brackets is {order})")));
    }
    let atom = Atom { element, charge };
    Ok(DraftAtom { atom, aromatic, hydrogens: Hydrogens::Written(hydrogens), merged: 0 })
}

struct Bracket<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bracket<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// A decimal number of so many digits at most, if there is one.
    fn number(&mut self, digits: usize, what: &str) -> Result<Option<u32>, Refusal> {
        let start = self.at;
        let mut value = None;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            if self.at - start == digits {
                return Err((self.at, format!("{what} has {digits} digits at most")));
            }
            value = Some(value.unwrap_or(0) * 10 + u32::from(digit - b'0'));
            self.at += 1;
        }
        Ok(value)
    }

    /// The element, and whether it is written aromatic; two letters before one.
    fn symbol(&mut self) -> Result<(Element, bool), Refusal> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.first() == Some(&b'*') {
            return Err((self.at, "expected an element, '*' stands for any and is not read".into()));
        }
        for length in [2, 1] {
            let Some(symbol) = rest.get(..length).and_then(|s| std::str::from_utf8(s).ok()) else { continue };
            let aromatic = symbol.starts_with(|c: char| c.is_ascii_lowercase());
            let element = if aromatic { aromatic_element(symbol) } else { Element::from_symbol(symbol) };
            if let Some(element) = element {
                self.at += length;
                return Ok((element, aromatic));
            }
        }
        let aromatic = "an aromatic b c n o p s se as te si";
        Err((self.at, format!("expected the symbol of an element or {aromatic}")))
    }

    /// `@`, `@@`, or `@` with a class and a number.
    fn chirality(&mut self) -> Result<bool, Refusal> {
        if !self.take(b'@') {
            return Ok(false);
        }
        if self.take(b'@') {
            return Ok(true);
        }
        let start = self.at;
        let class = self.bytes.get(start..start + 2).unwrap_or_default();
        let most = match class {
            b"TH" | b"AL" => 2,
            b"SP" => 3,
            b"TB" => 20,
            b"OH" => 30,
            _ => return Ok(true),
        };
        self.at += 2;
        match self.number(2, "a permutation")? {
            Some(number) if (1..=most).contains(&number) => Ok(true),
            _ => {
                let class = String::from_utf8_lossy(class);
                Err((start, format!("expected @{class} with a number from 1 to {most}")))
            }
        }
    }

    /// `H` with an optional digit.
    fn hydrogens(&mut self) -> u8 {
        if !self.take(b'H') {
            return 0;
        }
        match self.peek().filter(u8::is_ascii_digit) {
            Some(digit) => {
                self.at += 1;
                digit - b'0'
            }
            None => 1,
        }
    }

    /// `+`, `-`, `++`, `--`, `+2`, …
    fn charge(&mut self) -> Result<i8, Refusal> {
        const MOST: i32 = 15;
        let start = self.at;
        let Some(sign) = self.peek().filter(|b| matches!(b, b'+' | b'-')) else { return Ok(0) };
        while self.take(sign) {}
        let signs = self.at - start;
        let size = match self.number(2, "a charge")? {
            Some(_) if signs > 1 => return Err((start, "expected signs or a number for the charge, not both".into())),
            Some(number) => number as usize,
            None => signs,
        };
        match i8::try_from(size) {
            Ok(size) if i32::from(size) <= MOST => Ok(if sign == b'+' { size } else { -size }),
            _ => Err((start, format!("expected a charge from -{MOST} to +{MOST}"))),
        }
    }
}

/// The elements that have an aromatic form.
pub(super) fn aromatic_element(symbol: &str) -> Option<Element> {
    let symbol = match symbol {
        "b" => "B",
        "c" => "C",
        "n" => "N",
        "o" => "O",
        "p" => "P",
        "s" => "S",
        "se" => "Se",
        "si" => "Si",
        "as" => "As",
        "te" => "Te",
        _ => return None,
    };
    Element::from_symbol(symbol)
}
