//! What a cell of a text is.

/// What stands for a value that is not there: pandas' list, and what spreadsheets and repositories write.
const MISSING: [&str; 33] = [
    "", "na", "n/a", "<na>", "#n/a", "#n/a n/a", "#na", "nan", "-nan", "+nan", "1.#qnan", "-1.#qnan", "1.#ind",
    "-1.#ind", "null", "(null)", "nil", "none", "nat", "missing", "?", "-", "--", "---", ".", "*", "\\n", "#div/0!",
    "#value!", "#ref!", "#name?", "#num!", "#null!",
];

/// The integers up to here are numbers of 64 bits.
const EXACT: u128 = 1 << 53;

/// What a cell is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::data) enum Cell {
    /// A number, perhaps an infinite one.
    Number(f64),
    /// A number that 64 bits do not hold.
    Rounded(f64),
    /// No value.
    Missing,
    /// Anything else.
    Word,
}

impl Cell {
    /// A cell without the blanks around it.
    pub(in crate::data) fn of(text: &str) -> Self {
        match text.parse::<f64>() {
            Ok(value) if value.is_nan() => Cell::Missing,
            Ok(value) if !holds(text, value) => Cell::Rounded(value),
            // Spelled out it is infinite; written in digits it is beyond the largest number.
            Ok(value) => Cell::Number(value),
            Err(_) if is_missing(text) => Cell::Missing,
            Err(_) => Cell::Word,
        }
    }
}

/// Whether the cell of an unnamed value is all there is of a line that begins with `#`: no comment.
pub(in crate::data) fn is_missing(text: &str) -> bool {
    text.len() <= 8 && MISSING.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// Whether the number is the one that is written, as far as integers and very small numbers go.
fn holds(text: &str, value: f64) -> bool {
    if value == 0.0 {
        let digits = text.split(['e', 'E']).next().unwrap_or_default();
        return !digits.bytes().any(|b| (b'1'..=b'9').contains(&b));
    }
    if text.len() <= 15 || !text.trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit()) {
        return true;
    }
    text.trim_start_matches('+')
        .parse::<i128>()
        .is_ok_and(|exact| exact.unsigned_abs() <= EXACT || value as i128 == exact)
}

/// What should be there instead of a word that is no number of any notation.
pub(in crate::data) const NUMBER: &str = "a number";

/// What should be there instead of a word: [`NUMBER`], or what to do about marks of other countries.
pub(in crate::data) fn remedy(word: &str) -> &'static str {
    const THOUSANDS: &str = "a number without marks between thousands: write 10534, not 10,534 (pandas reads them with \
                             thousands=',')";
    const DECIMAL: &str = "a number with a decimal point: write 1.5, not 1,5 (pandas reads them with decimal=',')";
    const EITHER: &str = "a number: write 10534 if the mark parts thousands, 10.534 if it is a decimal comma (pandas reads \
                          them with thousands=',' or decimal=',')";
    const BLANKS: &str = "one number: do blanks part the columns and commas mark decimals? write 1.5, not 1,5";
    let bare = word.trim_start_matches(['+', '-', '\u{2212}']);
    let is_mark = |c: char| matches!(c, ',' | '.' | '\'' | '\u{2019}' | '_' | ' ' | '\u{a0}' | '\u{202f}' | '\u{2009}');
    if !bare.starts_with(|c: char| c.is_ascii_digit() || c == ',')
        || !bare.chars().all(|c| c.is_ascii_digit() || is_mark(c))
    {
        return NUMBER;
    }
    let marks: Vec<char> = bare.chars().filter(|&c| is_mark(c)).collect();
    let grouped = |mark: char| {
        let whole = match mark {
            '.' => bare.split(',').next(),
            _ => bare.split('.').next(),
        };
        let mut parts = whole.unwrap_or_default().split(mark);
        let first = parts.next().unwrap_or_default();
        (1..=3).contains(&first.len()) && parts.clone().count() > 0 && parts.all(|part| part.len() == 3)
    };
    match marks[..] {
        [] => NUMBER,
        [','] if grouped(',') => EITHER,
        [first, ..] if grouped(first) => THOUSANDS,
        _ if marks.iter().all(|&mark| mark == ' ') => BLANKS,
        _ if marks.contains(&',') => DECIMAL,
        _ => NUMBER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers_and_no_value_is_none() {
        for (text, value) in [("1", 1.0), ("-0.5", -0.5), ("+3e2", 300.0), (".5", 0.5), ("5.", 5.0), ("1E-3", 1e-3)] {
            assert_eq!(Cell::of(text), Cell::Number(value), "{text}");
        }
        for text in ["", "NA", "NaN", "-nan", "n/a", "#N/A", "?", "NULL", "None", "<NA>", "#DIV/0!", ".", "-1.#IND"] {
            assert_eq!(Cell::of(text), Cell::Missing, "{text}");
        }
        for text in ["setosa", "0x1F", "1d5", "12%", "\u{2212}5", "1,5", "10,534", "True", "nana", "1 2", "é"] {
            assert_eq!(Cell::of(text), Cell::Word, "{text}");
        }
    }

    #[test]
    fn integers_beyond_53_bits_are_known_to_be_rounded() {
        assert_eq!(Cell::of("9007199254740993"), Cell::Rounded(9007199254740992.0));
        assert_eq!(Cell::of("9007199254740992"), Cell::Number(9007199254740992.0));
        assert_eq!(Cell::of("-12345678901234567890123"), Cell::Rounded(-12345678901234567890123.0));
        assert_eq!(Cell::of("18446744073709551616"), Cell::Number(2.0_f64.powi(64)));
        assert_eq!(Cell::of("1e-400"), Cell::Rounded(0.0));
        assert_eq!(Cell::of("0.0e-400"), Cell::Number(0.0));
        assert_eq!(Cell::of(&"9".repeat(60)), Cell::Rounded(1e60));
    }

    #[test]
    fn marks_of_thousands_and_decimals_are_told_apart() {
        for (word, says) in [
            ("10,534", "10534 if"),
            ("1,234,567", "marks between thousands"),
            ("1,234.5", "marks between thousands"),
            ("1.234.567", "marks between thousands"),
            ("1.234,5", "marks between thousands"),
            ("1'234", "marks between thousands"),
            ("12\u{a0}345", "marks between thousands"),
            ("1,5", "decimal point"),
            ("-0,25", "decimal point"),
            (",5", "decimal point"),
            ("123456,789", "decimal point"),
            ("5 2", "do blanks part"),
            ("setosa", "a number"),
            ("2021-01-05", "a number"),
        ] {
            assert!(remedy(word).contains(says), "{word}: {}", remedy(word));
        }
    }
}
