//! Which points of a cloud a step sees.

use flow_core::FlowRng;

use crate::{Error, Point, Result};

/// `count` random points of a cloud, each at most once, or with `replacement` as the reference implementation draws them.
///
/// # Errors
/// [`flow_core::Error::Config`] when the cloud has too few points, or none.
pub fn train_points(cloud: &[Point], count: usize, replacement: bool, rng: &mut FlowRng) -> Result<Vec<Point>> {
    if cloud.is_empty() || (count > cloud.len() && !replacement) {
        let reason = format!("{count} are wanted of a cloud that has {}", cloud.len());
        return Err(Error::config("points", reason));
    }
    if replacement {
        return Ok((0..count).map(|_| cloud[rng.below(cloud.len())]).collect());
    }
    // The first steps of a Fisher–Yates shuffle.
    let mut order: Vec<usize> = (0..cloud.len()).collect();
    for k in 0..count {
        let other = k + rng.below(order.len() - k);
        order.swap(k, other);
    }
    Ok(order.iter().take(count).map(|&i| cloud[i]).collect())
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
}
