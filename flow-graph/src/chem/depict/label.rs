//! Atoms as letters: symbol, hydrogens, charge.

use std::fmt::Write;

use super::style::{Point, colour};
use crate::molecule::{Element, Molecule};

/// Height of a capital letter by the size of the font.
const CAPITAL: f64 = 0.70;
/// Size of an index by that of the letters.
const INDEX: f64 = 0.72;
/// Room between a letter and the end of a bond.
const GAP: f64 = 2.5;

/// Where the hydrogens stand, seen from the symbol.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Right,
    Left,
    Above,
    Below,
}

/// The letters of an atom, at a place.
pub(super) struct Label {
    symbol: &'static str,
    hydrogens: u8,
    charge: i8,
    side: Side,
    /// Whether a bond runs where a charge would stand, so that the charge goes higher.
    high_charge: bool,
    colour: &'static str,
    at: Point,
    size: f64,
}

impl Label {
    /// The letters of an atom; `None` for a carbon atom that is the end of its bonds and no more.
    pub(super) fn of(molecule: &Molecule, places: &[Point], index: usize, size: f64) -> Option<Self> {
        let atom = molecule.atom(index)?;
        let neighbours = molecule.neighbours(index);
        if atom.element == Element::CARBON && atom.charge == 0 && !neighbours.is_empty() {
            return None;
        }
        let at = places[index];
        let (mut dx, mut dy) = (0.0, 0.0);
        let mut to_the_right = false;
        for &(other, _) in &neighbours {
            let (x, y) = (places[other].0 - at.0, places[other].1 - at.1);
            let length = x.hypot(y).max(1e-9);
            dx += x / length;
            dy += y / length;
            to_the_right |= x / length > 0.6 && (-0.75..0.3).contains(&(y / length));
        }
        // Away from the bonds; beside the symbol rather than above it where there is a choice.
        let side = match neighbours.len() {
            0 => Side::Right,
            1 if dx > 0.1 => Side::Left,
            1 => Side::Right,
            _ if dy.abs() > dx.abs() + 0.1 => {
                if dy > 0.0 {
                    Side::Above
                } else {
                    Side::Below
                }
            }
            _ if dx > 0.0 => Side::Left,
            _ => Side::Right,
        };
        let hydrogens = molecule.hydrogens(index).unwrap_or(0);
        Some(Label {
            symbol: atom.element.symbol(),
            hydrogens,
            charge: atom.charge,
            side,
            high_charge: to_the_right,
            colour: colour(atom.element),
            at,
            size,
        })
    }

    /// Half the width of the symbol.
    fn half(&self) -> f64 {
        width(self.symbol) * self.size / 2.0
    }

    /// Distance from the atom's place, in direction `(x, y)` of length 1, at which a bond leaves the symbol.
    pub(super) fn reach(&self, (x, y): Point) -> f64 {
        let along = |extent: f64, component: f64| (extent + GAP) / component.abs().max(1e-9);
        along(self.half(), x).min(along(CAPITAL * self.size / 2.0, y))
    }

    /// Corners of the box around all letters.
    pub(super) fn bounds(&self) -> (Point, Point) {
        let (half, high) = (self.half() + 1.0, CAPITAL * self.size / 2.0 + 2.0);
        let (mut left, mut right, mut top, mut bottom) = (half, half, high, high);
        let beside = if self.hydrogens > 0 { self.hydrogen_width() } else { 0.0 };
        right += self.charge_width();
        match self.side {
            Side::Left => left += beside,
            Side::Right => right += beside,
            Side::Above => top += self.size * if self.hydrogens > 0 { 0.95 } else { 0.0 },
            Side::Below => bottom += self.size * if self.hydrogens > 0 { 0.95 } else { 0.0 },
        }
        if self.charge != 0 {
            top += self.size * if self.high_charge { 0.6 } else { 0.25 };
        }
        if self.hydrogens > 1 {
            bottom += self.size * 0.2;
        }
        ((self.at.0 - left, self.at.1 - top), (self.at.0 + right, self.at.1 + bottom))
    }

    fn hydrogen_width(&self) -> f64 {
        let index = if self.hydrogens > 1 { width("3") * INDEX } else { 0.0 };
        (width("H") + index) * self.size
    }

    fn charge_width(&self) -> f64 {
        if self.charge == 0 {
            0.0
        } else {
            (width("+") * charge_text(self.charge).chars().count() as f64) * INDEX * self.size
        }
    }

    /// Writes the letters as SVG.
    pub(super) fn draw(&self, svg: &mut String) {
        let size = self.size;
        let baseline = self.at.1 + CAPITAL * size / 2.0;
        let mut text = |x: f64, y: f64, size: f64, content: &str| {
            // The built-in font is a light one; an outline of the same colour gives it weight.
            let _ = writeln!(
                svg,
                "<text x=\"{x:.2}\" y=\"{y:.2}\" font-size=\"{size:.2}\" fill=\"{0}\" stroke=\"{0}\" \
                 stroke-width=\"0.5\">{content}</text>",
                self.colour
            );
        };
        text(self.at.0 - self.half(), baseline, size, self.symbol);
        let mut right = self.at.0 + self.half();
        if self.hydrogens > 0 {
            let (x, y) = match self.side {
                Side::Right => (right, baseline),
                Side::Left => (self.at.0 - self.half() - self.hydrogen_width(), baseline),
                Side::Above => (self.at.0 - width("H") * size / 2.0, baseline - size * 0.95),
                Side::Below => (self.at.0 - width("H") * size / 2.0, baseline + size * 0.95),
            };
            text(x, y, size, "H");
            if self.hydrogens > 1 {
                let digit = self.hydrogens.to_string();
                text(x + width("H") * size, y + size * 0.2, size * INDEX, &digit);
            }
            if self.side == Side::Right {
                right += self.hydrogen_width();
            }
        }
        if self.charge != 0 {
            let raised = if self.high_charge { 0.72 } else { 0.38 };
            text(right, baseline - size * raised, size * INDEX, &charge_text(self.charge));
        }
    }
}

/// `+`, `−`, `2+`.
fn charge_text(charge: i8) -> String {
    let sign = if charge > 0 { '+' } else { '−' };
    match charge.unsigned_abs() {
        1 => sign.to_string(),
        more => format!("{more}{sign}"),
    }
}

/// Width of some letters by the size of the font.
fn width(text: &str) -> f64 {
    let letter = |c: char| match c {
        'I' => 0.27,
        'i' | 'l' | 'j' => 0.25,
        'r' | 't' | 'f' => 0.36,
        'N' | 'H' => 0.71,
        'O' | 'Q' => 0.77,
        'C' | 'B' | 'P' | 'S' | 'F' => 0.58,
        'M' | 'W' | 'm' => 0.87,
        'A'..='Z' => 0.65,
        '0'..='9' => 0.55,
        _ => 0.54,
    };
    text.chars().map(letter).sum()
}
