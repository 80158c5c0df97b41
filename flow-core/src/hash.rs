//! A hash that stays the same across platforms and releases, unlike the standard library's.

/// 64-bit FNV-1a: tells apart what differs by chance, and is no protection against intent.
///
/// ```
/// use flow_core::hash::Fnv;
///
/// assert_eq!(Fnv::new().bytes(b"foobar").value(), 0x8594_4171_f739_67e8);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fnv(u64);

impl Fnv {
    /// The hash of nothing.
    pub fn new() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    /// Takes in bytes.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        bytes.iter().fold(self, |hash, &byte| hash.mix(byte.into()))
    }

    /// Takes in whole words, at a quarter of the time that their bytes need; another hash than theirs.
    #[must_use]
    pub fn words(self, words: impl IntoIterator<Item = u32>) -> Self {
        words.into_iter().fold(self, |hash, word| hash.mix(word.into()))
    }

    /// The number.
    pub fn value(self) -> u64 {
        self.0
    }

    fn mix(self, word: u64) -> Self {
        Fnv((self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3))
    }
}

impl Default for Fnv {
    fn default() -> Self {
        Fnv::new()
    }
}
