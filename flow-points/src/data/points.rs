//! Which points of a cloud a step sees.

use flow_core::FlowRng;

use crate::{Error, Point, Result};

/// `count` random points of a cloud, each at most once, or with `replacement` as the reference implementation draws them.
///
/// # Errors
/// [`flow_core::Error::Config`] when the cloud has too few points, or none.
pub fn train_points(cloud: &[Point], count: usize, replacement: bool, rng: &mut FlowRng) -> Result<Vec<Point>> {
    Ok(train_places(cloud.len(), count, replacement, rng)?.into_iter().map(|i| cloud[i]).collect())
}

/// The places of what [`train_points`] draws of a cloud of so many points.
///
/// # Errors
/// As [`train_points`].
pub fn train_places(points: usize, count: usize, replacement: bool, rng: &mut FlowRng) -> Result<Vec<usize>> {
    if points == 0 || (count > points && !replacement) {
        let reason = format!("{count} are wanted of a cloud that has {points}");
        return Err(Error::config("points", reason));
    }
    if replacement {
        return Ok((0..count).map(|_| rng.below(points)).collect());
    }
    // The first steps of a Fisher–Yates shuffle.
    let mut order: Vec<usize> = (0..points).collect();
    for k in 0..count {
        let other = k + rng.below(order.len() - k);
        order.swap(k, other);
    }
    order.truncate(count);
    Ok(order)
}

/// Turns points about the vertical axis `y` by `angle` radians.
pub fn rotate_about_y(points: &mut [Point], angle: f64) {
    let (sine, cosine) = angle.sin_cos();
    for p in points {
        let (x, z) = (f64::from(p[0]), f64::from(p[2]));
        p[0] = (cosine * x + sine * z) as f32;
        p[2] = (cosine * z - sine * x) as f32;
    }
}

/// A random smooth change of a shape: every axis is stretched by up to `e^amount` and tapered along the other two by half
/// of that for each unit of length, `p_i ← p_i exp(s_i + Σ_{j≠i} t_ij p_j)`.
///
/// Coordinates beyond three units count as three, so that a stray point stays near.
pub fn warp(points: &mut [Point], amount: f64, rng: &mut FlowRng) {
    let mut draw = |scale: f64| scale * (2.0 * rng.next_uniform() - 1.0);
    let exponents: [[f64; 4]; 3] = std::array::from_fn(|i| {
        std::array::from_fn(|j| if j == i { 0.0 } else { draw(if j == 3 { 1.0 } else { 0.5 }) })
    });
    for p in points {
        let from = p.map(|v| f64::from(v).clamp(-3.0, 3.0));
        for (value, e) in p.iter_mut().zip(&exponents) {
            let exponent = e[3] + from.iter().zip(e).map(|(v, t)| v * t).sum::<f64>();
            *value = (f64::from(*value) * (amount * exponent).exp()) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_replacement_no_point_comes_twice() {
        let cloud: Vec<Point> = (0..50).map(|i| [i as f32, 0.0, 0.0]).collect();
        let mut rng = FlowRng::seed_from(1);
        let mut some = train_points(&cloud, 40, false, &mut rng).unwrap();
        some.sort_by(|a, b| a[0].total_cmp(&b[0]));
        some.dedup();
        assert_eq!(some.len(), 40);
        let many = train_points(&cloud, 400, true, &mut rng).unwrap();
        assert!(many.len() == 400 && many.iter().all(|p| cloud.contains(p)));
        assert!(train_points(&cloud, 51, false, &mut rng).is_err());
        assert!(train_points(&[], 0, true, &mut rng).is_err());
    }

    #[test]
    fn a_quarter_turn() {
        let mut points = [[1.0, 2.0, 0.0]];
        rotate_about_y(&mut points, std::f64::consts::FRAC_PI_2);
        let [x, y, z] = points[0];
        assert!(x.abs() < 1e-6 && y == 2.0 && (z + 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_warp_keeps_to_its_amount_and_to_the_planes_of_coordinates() {
        let mut rng = FlowRng::seed_from(2);
        let still = [[0.5, -1.0, 2.0], [0.0, 1.0, -0.3]];
        let mut points = still;
        warp(&mut points, 0.0, &mut rng);
        assert_eq!(points, still);
        for _ in 0..50 {
            let mut points = still;
            warp(&mut points, 0.2, &mut rng);
            assert!(points != still && points[1][0] == 0.0, "a coordinate of zero stays");
            for (moved, from) in points.iter().flatten().zip(still.iter().flatten()).filter(|(_, from)| **from != 0.0) {
                // The exponent is at most 1 + ½ (1 + 2), in units of the amount.
                assert!((moved / from).ln().abs() <= 0.2 * 2.5 + 1e-6, "{from} became {moved}");
            }
        }
    }
}
