//! Many short strings in one allocation.

/// An ordered collection of strings, stored end to end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextList {
    pub(super) text: String,
    /// Where each string ends.
    pub(super) ends: Vec<usize>,
}

impl TextList {
    /// A list without strings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a string at the end.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// The string at an index, `None` out of range.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.text.get(start..end)
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no string.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All strings in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Bytes of memory that the strings take.
    pub fn heap_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_in_order() {
        let mut list = TextList::new();
        ["a", "", "öl"].iter().for_each(|text| list.push(text));
        assert_eq!(list.iter().collect::<Vec<_>>(), ["a", "", "öl"]);
        assert_eq!((list.get(2), list.get(3)), (Some("öl"), None));
    }
}
