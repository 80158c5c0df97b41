//! One molecule as SVG, about the origin.

use std::fmt::Write;

use super::label::Label;
use super::style::{BLACK, BOND, LETTERS, Point, colour};
use crate::molecule::{Bond, Molecule};

/// Length of a bond in a [`layout`](super::layout).
const LAYOUT_BOND: f64 = 1.5;
/// Distance of the lines of a double bond by its length.
const SPREAD: f64 = 0.17;
/// By how much the inner line of a double bond is shorter at either end, by the bond's length.
const INSET: f64 = 0.13;
const LINE: f64 = 1.9;
/// Letters smaller than this cannot be read.
const SMALLEST_LETTERS: f64 = 9.0;

/// Draws a molecule into a box around the origin.
pub(super) fn draw(molecule: &Molecule, places: &[(f64, f64)], rings: &[Vec<usize>], room: (f64, f64)) -> String {
    let picture = Picture::fit(molecule, places, rings, room);
    let mut svg = String::new();
    for (a, b, bond) in molecule.bonds() {
        picture.bond(&mut svg, a, b, bond);
    }
    picture.labels.iter().flatten().for_each(|label| label.draw(&mut svg));
    svg
}

struct Picture<'a> {
    molecule: &'a Molecule,
    rings: &'a [Vec<usize>],
    places: Vec<Point>,
    labels: Vec<Option<Label>>,
    /// By how much smaller than full size.
    scale: f64,
}

impl<'a> Picture<'a> {
    /// Scales and centres a molecule, its letters included.
    fn fit(molecule: &'a Molecule, places: &[(f64, f64)], rings: &'a [Vec<usize>], room: (f64, f64)) -> Self {
        let mut scale = 1.0;
        // Letters do not shrink in proportion, so the first guess may be too large.
        for _ in 0..8 {
            let picture = Picture::at_scale(molecule, places, rings, scale);
            let ((left, top), (right, bottom)) = picture.bounds();
            let excess = ((right - left) / room.0).max((bottom - top) / room.1);
            if excess <= 1.0 {
                return picture.centred();
            }
            scale /= excess * 1.005;
        }
        Picture::at_scale(molecule, places, rings, scale).centred()
    }

    fn at_scale(molecule: &'a Molecule, places: &[(f64, f64)], rings: &'a [Vec<usize>], scale: f64) -> Self {
        let unit = BOND / LAYOUT_BOND * scale;
        let places: Vec<Point> = places.iter().map(|&(x, y)| (x * unit, -y * unit)).collect();
        Picture { molecule, rings, labels: labels(molecule, &places, scale), places, scale }
    }

    fn centred(mut self) -> Self {
        let ((left, top), (right, bottom)) = self.bounds();
        let (x, y) = ((left + right) / 2.0, (top + bottom) / 2.0);
        self.places.iter_mut().for_each(|place| *place = (place.0 - x, place.1 - y));
        self.labels = labels(self.molecule, &self.places, self.scale);
        self
    }

    fn bounds(&self) -> (Point, Point) {
        let boxes = self.places.iter().zip(&self.labels).map(|(&place, label)| match label {
            Some(label) => label.bounds(),
            None => (place, place),
        });
        let none = ((f64::INFINITY, f64::INFINITY), (f64::NEG_INFINITY, f64::NEG_INFINITY));
        boxes.fold(none, |(low, high), (a, b)| ((low.0.min(a.0), low.1.min(a.1)), (high.0.max(b.0), high.1.max(b.1))))
    }

    /// One bond as one to three lines.
    fn bond(&self, svg: &mut String, a: usize, b: usize, bond: Bond) {
        let (from, to) = (self.places[a], self.places[b]);
        let length = (to.0 - from.0).hypot(to.1 - from.1).max(1e-9);
        let direction = ((to.0 - from.0) / length, (to.1 - from.1) / length);
        let left = (direction.1, -direction.0);
        let spread = SPREAD * length.min(BOND * self.scale);
        let mut line = |offset: f64, inset: f64| {
            let ends = (self.reach(a, direction).max(inset), self.reach(b, (-direction.0, -direction.1)).max(inset));
            let at = |t: f64| (from.0 + direction.0 * t + left.0 * offset, from.1 + direction.1 * t + left.1 * offset);
            if ends.0 + ends.1 < length {
                self.line(svg, (at(ends.0), at(length - ends.1)), at(length / 2.0), (a, b));
            }
        };
        match bond {
            Bond::Single => line(0.0, 0.0),
            Bond::Triple => [-spread, 0.0, spread].into_iter().for_each(|offset| line(offset, 0.0)),
            Bond::Double => match self.inner_side(a, b, left) {
                Some(side) => {
                    line(0.0, 0.0);
                    line(spread * side, INSET * length);
                }
                None => [-0.5, 0.5].into_iter().for_each(|half| line(spread * half, 0.0)),
            },
        }
    }

    /// Length of a bond that the letters of its atom cover.
    fn reach(&self, atom: usize, direction: Point) -> f64 {
        self.labels[atom].as_ref().map_or(0.0, |label| label.reach(direction))
    }

    /// On which side of a double bond the second line runs, 1 for left; `None` for one on either side.
    ///
    /// Inside a ring, and there in the ring with most double bonds; else where the neighbours are.
    fn inner_side(&self, a: usize, b: usize, left: Point) -> Option<f64> {
        let from = self.places[a];
        let side = |p: Point| (p.0 - from.0) * left.0 + (p.1 - from.1) * left.1;
        let inside = |ring: &&Vec<usize>| ring.contains(&a) && ring.contains(&b);
        let doubles = |ring: &Vec<usize>| {
            let next = ring.iter().skip(1).chain(ring.first());
            ring.iter().zip(next).filter(|&(&i, &j)| self.molecule.bond_between(i, j) == Some(Bond::Double)).count()
        };
        if let Some(ring) = self.rings.iter().filter(inside).max_by_key(|ring| (doubles(ring), usize::MAX - ring.len()))
        {
            return Some(ring.iter().map(|&i| side(self.places[i])).sum::<f64>().signum());
        }
        let beside = |atom: usize, other: usize| -> Vec<f64> {
            let neighbours = self.molecule.neighbours(atom).into_iter().filter(|&(n, _)| n != other);
            neighbours.map(|(n, _)| side(self.places[n]).signum()).collect()
        };
        let (at_a, at_b) = (beside(a, b), beside(b, a));
        // An end with two more bonds, or with none (C=O), is drawn symmetrically; so are cumulated bonds.
        let balance: f64 = at_a.iter().chain(&at_b).sum();
        let open = at_a.is_empty() || at_b.is_empty();
        let labelled = self.labels[a].is_some() || self.labels[b].is_some();
        match balance {
            0.0 => (at_a.len() == 1 && at_b.len() == 1).then_some(1.0),
            s if open && (labelled || s.abs() > 1.0) => None,
            s => Some(s.signum()),
        }
    }

    /// A line in the colours of its atoms, each to the middle of the bond.
    fn line(&self, svg: &mut String, (start, end): (Point, Point), middle: Point, (a, b): (usize, usize)) {
        let colour_of = |i: usize| self.molecule.atom(i).map_or(BLACK, |atom| colour(atom.element));
        let width = LINE * self.scale.max(0.6);
        let mut stroke = |from: Point, to: Point, colour: &str| {
            let _ = writeln!(
                svg,
                "<line x1=\"{:.2}\" y1=\"{:.2}\" x2=\"{:.2}\" y2=\"{:.2}\" stroke=\"{colour}\" \
                 stroke-width=\"{width:.2}\" stroke-linecap=\"round\"/>",
                from.0, from.1, to.0, to.1
            );
        };
        if colour_of(a) == colour_of(b) {
            stroke(start, end, colour_of(a));
        } else {
            stroke(start, middle, colour_of(a));
            stroke(middle, end, colour_of(b));
        }
    }
}

fn labels(molecule: &Molecule, places: &[Point], scale: f64) -> Vec<Option<Label>> {
    let size = (LETTERS * scale).max(SMALLEST_LETTERS);
    (0..molecule.len()).map(|i| Label::of(molecule, places, i, size)).collect()
}
