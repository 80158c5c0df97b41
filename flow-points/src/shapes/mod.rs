//! The built-in shapes: procedural families with many random parameters each.
//!
//! Every shape is a mesh of simple closed parts that stands on the floor `y = 0`, `y` up and its front towards `+z`, about
//! one unit large. Parts may reach into each other; what lies inside is small. A shape is a function of its family and its
//! number alone, so training and test shapes never meet.

mod chair;
mod lamp;
mod mug;
mod parts;
mod plane;
mod table;

use std::ops::Range;

use flow_core::FlowRng;
use rayon::prelude::*;

use crate::{Error, Mesh, Point, Result};

/// A family of shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Seat, back with or without slats, legs, pedestal or sled, sometimes arms.
    Chair,
    /// Round or rectangular top on legs, a column or side walls.
    Table,
    /// Base, stem and shade: a surface of revolution.
    Lamp,
    /// Fuselage, swept wings, tail, engines.
    Plane,
    /// A cup with a handle.
    Mug,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 5] = [Family::Chair, Family::Table, Family::Lamp, Family::Plane, Family::Mug];

    /// The name, in the singular.
    pub fn name(self) -> &'static str {
        match self {
            Family::Chair => "chair",
            Family::Table => "table",
            Family::Lamp => "lamp",
            Family::Plane => "plane",
            Family::Mug => "mug",
        }
    }

    /// A random shape of the family.
    pub fn mesh(self, rng: &mut FlowRng) -> Mesh {
        match self {
            Family::Chair => chair::mesh(rng),
            Family::Table => table::mesh(rng),
            Family::Lamp => lamp::mesh(rng),
            Family::Plane => plane::mesh(rng),
            Family::Mug => mug::mesh(rng),
        }
    }
}

/// The shape of this number, centred on its bounding box, as points.
///
/// # Errors
/// [`flow_core::Error::Config`] for no points.
pub fn cloud(family: Family, number: usize, points: usize) -> Result<Vec<Point>> {
    if points == 0 {
        return Err(Error::config("points", "is 0, must be at least 1"));
    }
    let mut rng = FlowRng::named(number as u64, family.name());
    let mesh = family.mesh(&mut rng);
    let mut points = mesh.sample(points, &mut rng)?.points;
    let centre: [f32; 3] = std::array::from_fn(|k| {
        let axis = || mesh.vertices.iter().map(|v| v[k]);
        0.5 * (axis().fold(f32::INFINITY, f32::min) + axis().fold(f32::NEG_INFINITY, f32::max))
    });
    points.iter_mut().for_each(|p| p.iter_mut().zip(centre).for_each(|(v, c)| *v -= c));
    Ok(points)
}

/// The shapes of these numbers, families taking turns, each with its name.
///
/// # Errors
/// [`flow_core::Error::Config`] for no family, no number or no points.
pub fn set(families: &[Family], numbers: Range<usize>, points: usize) -> Result<Vec<(String, Vec<Point>)>> {
    if families.is_empty() || numbers.is_empty() {
        return Err(Error::config("built-in shapes", "need at least one family and one shape"));
    }
    let one = |number: usize| {
        let family = families[number % families.len()];
        Ok((format!("{}-{number:05}", family.name()), cloud(family, number, points)?))
    };
    numbers.into_par_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_shapes_are_finite_of_moderate_size_and_stand_on_the_floor() {
        for family in Family::ALL {
            for number in 0..200 {
                let mesh = family.mesh(&mut FlowRng::named(number, family.name()));
                let area = mesh.area();
                assert!(area > 0.3 && area < 15.0, "{family:?} {number}: area {area}");
                let low = mesh.vertices.iter().map(|v| v[1]).fold(f32::INFINITY, f32::min);
                assert!(low.abs() < 0.05, "{family:?} {number}: lowest point at {low}");
                assert!(mesh.vertices.iter().flatten().all(|v| v.is_finite() && v.abs() < 1.6), "{family:?} {number}");
            }
        }
    }

    #[test]
    fn a_shape_is_a_function_of_its_number_and_numbers_differ() {
        let all = set(&Family::ALL, 3..13, 64).unwrap();
        assert_eq!(all.len(), 10);
        // Number 6 falls to the second family.
        assert_eq!(all[3], ("table-00006".to_string(), cloud(Family::Table, 6, 64).unwrap()));
        assert_eq!(all, set(&Family::ALL, 3..13, 64).unwrap());
        for family in Family::ALL {
            let area = |n: u64| family.mesh(&mut FlowRng::named(n, family.name())).area();
            assert!((area(1) - area(2)).abs() > 1e-4, "{family:?}");
        }
        assert!(set(&[], 0..3, 10).is_err() && cloud(Family::Mug, 0, 0).is_err());
    }
}
