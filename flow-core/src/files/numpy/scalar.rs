//! Elements of arrays as numbers of 64 bits.

use super::Fault;

/// The numbers up to here are exact in 64 bits.
const EXACT: u64 = 1 << 53;

/// What the elements of an array are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Truth values, a byte each.
    Bool,
    /// Integers without a sign.
    Unsigned,
    /// Integers with a sign.
    Signed,
    /// IEEE 754 numbers.
    Float,
}

/// The type of an element: `<f4`, `>i8`, `|b1`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scalar {
    kind: Kind,
    size: usize,
    big: bool,
}

impl Scalar {
    /// The type of this name in NumPy's notation.
    ///
    /// # Errors
    /// [`Fault::Elements`] for what is no number: words, times, objects, complex numbers; and for floats of 16 bytes.
    pub fn of(descr: &str) -> Result<Self, Fault> {
        let (order, rest) = match descr.as_bytes() {
            [order @ (b'<' | b'>' | b'=' | b'|'), ..] => (*order, &descr[1..]),
            _ => (b'=', descr),
        };
        let (kind, sizes): (_, &[usize]) = match rest.as_bytes().first() {
            Some(b'f') => (Kind::Float, &[2, 4, 8]),
            Some(b'i') => (Kind::Signed, &[1, 2, 4, 8]),
            Some(b'u') => (Kind::Unsigned, &[1, 2, 4, 8]),
            Some(b'b') => (Kind::Bool, &[1]),
            _ => (Kind::Bool, &[]),
        };
        match rest.get(1..).and_then(|size| size.parse().ok()).filter(|size| sizes.contains(size)) {
            Some(size) => Ok(Scalar { kind, size, big: order == b'>' }),
            None => Err(Fault::Elements { descr: descr.chars().take(40).collect() }),
        }
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        self.kind
    }

    /// Its bytes.
    pub fn size(self) -> usize {
        self.size
    }

    /// What it is in NumPy's words: `uint8`.
    pub fn name(self) -> String {
        let name = match self.kind {
            Kind::Bool => return "bool".into(),
            Kind::Unsigned => "uint",
            Kind::Signed => "int",
            Kind::Float => "float",
        };
        format!("{name}{}", 8 * self.size)
    }

    /// The number in these bytes, of which there are as many as the size says, and whether it is exact.
    pub fn read(self, bytes: &[u8]) -> (f64, bool) {
        let mut raw = 0_u64;
        let push = |raw: u64, &byte: &u8| raw << 8 | u64::from(byte);
        raw = if self.big { bytes.iter().fold(raw, push) } else { bytes.iter().rev().fold(raw, push) };
        match (self.kind, self.size) {
            (Kind::Float, 2) => (half(raw as u16), true),
            (Kind::Float, 4) => (f64::from(f32::from_bits(raw as u32)), true),
            (Kind::Float, _) => (f64::from_bits(raw), true),
            (Kind::Bool, _) => (f64::from(u8::from(raw != 0)), true),
            (Kind::Unsigned, _) => (raw as f64, raw <= EXACT || raw as f64 as u128 == u128::from(raw)),
            (Kind::Signed, size) => {
                // The sign of the narrower number fills the wider one.
                let unused = 64 - 8 * size as u32;
                let value = (raw << unused).cast_signed() >> unused;
                (value as f64, value.unsigned_abs() <= EXACT || value as f64 as i128 == i128::from(value))
            }
        }
    }
}

/// A float of two bytes, IEEE 754 binary16.
pub fn half(raw: u16) -> f64 {
    let sign = if raw >> 15 == 1 { -1.0 } else { 1.0 };
    let fraction = f64::from(raw & 0x3ff) / 1024.0;
    sign * match raw >> 10 & 0x1f {
        0 => fraction * 2.0_f64.powi(-14),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1.0 + fraction) * 2.0_f64.powi(i32::from(exponent) - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `np.frombuffer(…, dtype).astype('f8')` reads them.
    #[test]
    fn every_type_is_read_as_numpy_reads_it() {
        for (descr, bytes, value) in [
            ("<f2", &[0x00_u8, 0x3e][..], 1.5),
            (">f2", &[0xc2, 0x48], -3.140625),
            ("<f2", &[0x01, 0x00], 5.960464477539063e-08),
            ("<f2", &[0xff, 0x7b], 65504.0),
            ("<f4", &[0xdb, 0x0f, 0x49, 0x40], 3.1415927410125732),
            (">f4", &[0x40, 0x49, 0x0f, 0xdb], 3.1415927410125732),
            (">f8", &[0x40, 0x09, 0x21, 0xfb, 0x54, 0x44, 0x2d, 0x18], std::f64::consts::PI),
            ("|i1", &[0x80], -128.0),
            ("<i2", &[0xfe, 0xff], -2.0),
            (">i4", &[0xff, 0xff, 0xff, 0x85], -123.0),
            ("<i8", &[0xff; 8], -1.0),
            ("|u1", &[0xff], 255.0),
            (">u2", &[0x01, 0x00], 256.0),
            ("<u4", &[0xff; 4], 4294967295.0),
            ("|b1", &[1], 1.0),
            ("=f4", &[0, 0, 0x80, 0x3f], 1.0),
        ] {
            let scalar = Scalar::of(descr).unwrap();
            assert_eq!((scalar.size, scalar.read(bytes)), (bytes.len(), (value, true)), "{descr}");
        }
        assert_eq!(Scalar::of("<i8").unwrap().read(&9007199254740993_i64.to_le_bytes()), (9007199254740992.0, false));
        assert_eq!(Scalar::of("<u8").unwrap().read(&[0xff; 8]), (18446744073709551616.0, false));
        assert_eq!(Scalar::of("<i8").unwrap().read(&i64::MIN.to_le_bytes()), (-9223372036854775808.0, true));
        assert!(Scalar::of("<f2").unwrap().read(&[0x00, 0xfe]).0.is_nan());
        assert_eq!(Scalar::of("<f2").unwrap().read(&[0x00, 0xfc]), (f64::NEG_INFINITY, true));
    }

    #[test]
    fn other_types_are_named() {
        for descr in ["<U10", "|O", "<c16", "<M8[ns]", "<f16", "<i3", "f", "", "|V8", "<"] {
            assert_eq!(Scalar::of(descr), Err(Fault::Elements { descr: descr.into() }));
        }
    }
}
