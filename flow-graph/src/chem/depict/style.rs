//! Measures and colours that lines and letters share.

use crate::molecule::Element;

/// A place, `y` downwards.
pub(super) type Point = (f64, f64);

/// Length of a bond in pixels where there is room; a molecule that would not fit is drawn smaller.
pub(super) const BOND: f64 = 34.0;
/// Size of the letters at full scale, where a bond has [`BOND`] pixels.
pub(super) const LETTERS: f64 = 17.0;

/// The colours that chemists expect, dark enough for a white ground.
pub(super) fn colour(element: Element) -> &'static str {
    match element.symbol() {
        "N" => "#2448d0",
        "O" => "#d62020",
        "S" => "#a58000",
        "P" => "#d07000",
        "F" | "Cl" => "#1a8a2e",
        "Br" => "#8a3a14",
        "I" => "#6a2a9a",
        "B" => "#b06a5a",
        _ => BLACK,
    }
}

/// Carbon and whatever has no colour.
pub(super) const BLACK: &str = "#1a1a1a";
