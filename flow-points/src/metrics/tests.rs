use super::*;
use flow_core::FlowRng;
use flow_core::numerics::transport::Cost;

fn cloud(seed: u64, points: usize) -> Vec<Point> {
    let mut rng = FlowRng::seed_from(seed);
    (0..points).map(|_| std::array::from_fn(|_| rng.next_normal() as f32)).collect()
}

fn shuffled(cloud: &[Point]) -> Vec<Point> {
    FlowRng::seed_from(3).permutation(cloud.len()).into_iter().map(|i| cloud[i]).collect()
}

#[test]
fn chamfer_and_f_score_are_their_definitions() {
    for (n, m) in [(1, 1), (5, 9), (300, 70), (1000, 1500)] {
        let (a, b) = (cloud(1, n), cloud(2, m));
        let least = |p: &Point, to: &[Point]| to.iter().map(|q| squared(p, q)).fold(f64::INFINITY, f64::min);
        let half = |x: &[Point], y: &[Point]| x.iter().map(|p| least(p, y)).sum::<f64>() / x.len() as f64;
        let parts = chamfer_parts(&a, &b).unwrap();
        assert!((parts.forward - half(&a, &b)).abs() < 1e-9 && (parts.backward - half(&b, &a)).abs() < 1e-9);
        let again = chamfer(&shuffled(&a), &shuffled(&b)).unwrap();
        assert!((chamfer(&a, &b).unwrap() - again).abs() < 1e-12);
        let share = |x: &[Point], y: &[Point]| x.iter().filter(|p| least(p, y) <= 0.09).count() as f64 / x.len() as f64;
        let (p, r) = (share(&a, &b), share(&b, &a));
        let expected = if p + r > 0.0 { 2.0 * p * r / (p + r) } else { 0.0 };
        assert!((f_score(&a, &b, 0.3).unwrap() - expected).abs() < 1e-12);
    }
    // Many points on one plane and many duplicates.
    let flat: Vec<Point> = (0..400).map(|i| [(i % 7) as f32, 0.0, 0.0]).collect();
    assert_eq!(chamfer(&flat, &flat).unwrap(), 0.0);
    assert_eq!(
        chamfer(&flat, &[[0.0, 3.0, 0.0]]).unwrap(),
        flat.iter().map(|p| f64::from(p[0] * p[0]) + 9.0).sum::<f64>() / 400.0 + 9.0
    );
}

#[test]
fn exact_emd_is_the_best_permutation() {
    let (a, b) = (cloud(1, 6), cloud(2, 6));
    let mut best = [f64::INFINITY; 2];
    let mut order: Vec<usize> = (0..6).collect();
    permutations(&mut order, 0, &mut |order| {
        let cost = |f: fn(f64) -> f64| order.iter().zip(&a).map(|(&j, p)| f(squared(p, &b[j]))).sum::<f64>() / 6.0;
        best = [best[0].min(cost(f64::sqrt)), best[1].min(cost(|x| x))];
    });
    assert!((emd_exact(&a, &b).unwrap() - best[0]).abs() < 1e-12);
    assert!((emd_exact_squared(&a, &b).unwrap() - best[1]).abs() < 1e-12);
    let (a, b, c) = (cloud(1, 200), cloud(2, 200), cloud(3, 200));
    assert!(emd_exact(&a, &shuffled(&a)).unwrap() < 1e-9);
    let d = |x: &[Point], y: &[Point]| emd_exact(x, y).unwrap();
    assert!((d(&a, &b) - d(&b, &a)).abs() < 1e-9 && d(&a, &c) <= d(&a, &b) + d(&b, &c));
}

fn permutations(order: &mut Vec<usize>, from: usize, visit: &mut impl FnMut(&[usize])) {
    if from == order.len() {
        return visit(order);
    }
    for i in from..order.len() {
        order.swap(from, i);
        permutations(order, from + 1, visit);
        order.swap(from, i);
    }
}

/// The values come from numpy and scipy:
///
/// ```text
/// i = numpy.arange(32); a = numpy.stack([numpy.sin(i), numpy.cos(2*i), numpy.sin(3*i)], 1).astype('f4')
/// b = numpy.stack([numpy.cos(i), numpy.sin(5*i), numpy.cos(7*i)], 1).astype('f4')
/// d = scipy.spatial.distance.cdist(a.astype('f8'), b.astype('f8')); r, c = scipy.optimize.linear_sum_assignment(d)
/// (d**2).min(1).mean() + (d**2).min(0).mean(), d[r, c].mean(), ((d**2)[linear_sum_assignment(d**2)]).mean()
/// ```
#[test]
fn agrees_with_numpy_and_scipy() {
    let make = |f: [fn(f64) -> f64; 3]| -> Vec<Point> { (0..32).map(|i| f.map(|f| f(f64::from(i)) as f32)).collect() };
    let a = make([f64::sin, |i| (2.0 * i).cos(), |i| (3.0 * i).sin()]);
    let b = make([f64::cos, |i| (5.0 * i).sin(), |i| (7.0 * i).cos()]);
    for (got, expected) in [
        (chamfer(&a, &b).unwrap(), CHAMFER),
        (emd_exact(&a, &b).unwrap(), EMD),
        (emd_exact_squared(&a, &b).unwrap(), EMD_SQUARED),
    ] {
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
    }
}
const CHAMFER: f64 = 0.6272477261600462;
const EMD: f64 = 0.6436850182475183;
const EMD_SQUARED: f64 = 0.5181377071436786;

#[test]
fn the_approximations_are_feasible_plans() {
    let (a, b) = (cloud(1, 128), cloud(2, 128));
    let (exact, approximate) = (emd_exact(&a, &b).unwrap(), emd_approx_pointflow(&a, &b).unwrap());
    assert!(approximate > exact && approximate < 1.6 * exact, "{approximate} {exact}");
    let (exact, approximate) = (emd_exact_squared(&a, &b).unwrap(), emd_approx_squared(&a, &b).unwrap());
    assert!(approximate > exact && approximate < 3.0 * exact, "{approximate} {exact}");
    // Far apart, all that matters is the distance.
    let far: Vec<Point> = a.iter().map(|p| [p[0] + 100.0, p[1], p[2]]).collect();
    assert!((emd_approx_pointflow(&a, &far).unwrap() / 100.0 - 1.0).abs() < 0.02);
}

#[test]
fn matching_coverage_and_neighbours_of_a_known_matrix() {
    let across = Matrix { rows: 3, columns: 2, values: vec![1.0, 4.0, 2.0, 0.5, 3.0, 0.25] };
    let square = |n: usize, d: f64| Matrix {
        rows: n,
        columns: n,
        values: (0..n * n).map(|k| if k / n == k % n { 0.0 } else { d }).collect(),
    };
    let known = |across: &Matrix, own: f64| {
        let d = Distances { samples: square(3, own), across: across.clone(), references: square(2, own) };
        Neighbours::of(&d).unwrap()
    };
    assert_eq!(minimum_matching_distance(&known(&across, 0.1)), (1.0 + 0.25) / 2.0);
    assert_eq!(coverage(&known(&across, 0.1)), 1.0);
    let far = Matrix { values: vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0], ..across.clone() };
    assert_eq!(coverage(&known(&far, 0.1)), 0.5);
    // Own neighbours at 0.1: all are told apart; at 100: none.
    assert_eq!(one_nearest_neighbour(&known(&across, 0.1)), 1.0);
    assert_eq!(one_nearest_neighbour(&known(&across, 100.0)), 0.0);
    // At 0.75 the first sample (nearest reference at 1) and the first reference (nearest sample at 1) stay with their own.
    assert_eq!(one_nearest_neighbour(&known(&across, 0.75)), 2.0 / 5.0);
    let (value, [low, high]) = one_nearest_neighbour_interval(&known(&across, 0.75), &mut FlowRng::seed_from(1));
    assert!(value == 0.4 && low < 0.4 && high > 0.4);
}

/// Clouds that differ in where their points are as much as in how they are spread.
fn family(seed: u64, count: usize, points: usize) -> Vec<Vec<Point>> {
    let mut rng = FlowRng::seed_from(seed);
    let shape = |rng: &mut FlowRng| -> Vec<Point> {
        let (size, moved): ([f32; 3], [f32; 3]) = (
            std::array::from_fn(|_| 0.2 + rng.next_uniform() as f32),
            std::array::from_fn(|_| 0.2 * rng.next_normal() as f32),
        );
        (0..points).map(|_| std::array::from_fn(|k| moved[k] + size[k] * rng.next_normal() as f32)).collect()
    };
    (0..count).map(|_| shape(&mut rng)).collect()
}

#[test]
fn neighbours_by_exact_emd_are_those_of_all_pairs() {
    for (cost, distance) in
        [(Cost::Euclidean, emd_exact as fn(&[Point], &[Point]) -> Result<f64>), (Cost::Squared, emd_exact_squared)]
    {
        for points in [1, 50, 150] {
            let (mut a, mut b) = (family(1, 14, points), family(2, 11, points));
            // Two of the same set, and one in both, that are equal: the first of equals is the nearest.
            (a[5], b[3], b[7]) = (a[2].clone(), a[2].clone(), a[2].clone());
            let all = Neighbours::of(&Distances::of(&a, &b, distance).unwrap()).unwrap();
            assert_eq!(Neighbours::by_exact_emd(&a, &b, cost).unwrap(), all, "{cost:?}, {points} points");
            let alone = Neighbours::by_exact_emd(&a[..1], &b, cost).unwrap();
            assert_eq!((alone.samples[0].own, alone.references[3].other.index), (None, 0));
        }
    }
}

#[test]
fn divergence_is_zero_for_the_same_and_one_for_disjoint_space() {
    let a = vec![cloud(1, 500), cloud(2, 500)];
    let frame = Frame::around(&a).unwrap();
    assert!(jensen_shannon(&a, &a, &frame).unwrap() < 1e-12);
    let (left, right) = (vec![vec![[-0.4, 0.0, 0.0]; 3]], vec![vec![[0.4, 0.0, 0.0], [0.38, 0.1, 0.0]]]);
    let unit = Frame { centre: [0.0; 3], scale: 1.0 };
    assert!((jensen_shannon(&left, &right, &unit).unwrap() - 1.0).abs() < 1e-12);
    // Half of the points of one side where all of the other's are: 1.5·H(¾, ¼) … = ¾ log 4/3 + ¼ log 4 − ½.
    let half = vec![vec![[-0.4, 0.0, 0.0], [0.4, 0.0, 0.0]]];
    let expected = 0.75 * (4.0_f64 / 3.0).log2() + 0.25 * 2.0 - 0.5;
    assert!((jensen_shannon(&left, &half, &unit).unwrap() - expected).abs() < 1e-12);
    // Points outside the ball go to its nearest cells and not away.
    let outside = vec![vec![[-0.5, -0.5, -0.5], [9.0, 9.0, 9.0]]];
    assert!(jensen_shannon(&outside, &left, &unit).unwrap() <= 1.0);
}

#[test]
fn a_table_of_copies_and_of_strangers() {
    let references: Vec<Vec<Point>> = (0..6).map(|i| cloud(i, 40)).collect();
    let copies: Vec<Vec<Point>> = references.iter().map(|c| shuffled(c)).collect();
    let mut rng = FlowRng::seed_from(1);
    let table = evaluate(&copies, &references, &EvaluateOptions::default(), &mut rng).unwrap();
    assert!(table.chamfer.mmd < 1e-9 && table.chamfer.coverage == 1.0 && table.chamfer.one_nna == 0.0);
    assert!(table.emd.unwrap().mmd < 1e-6 && table.jsd < 1e-12);
    let moved: Vec<Vec<Point>> =
        references.iter().map(|c| c.iter().map(|p| [p[0] + 9.0, p[1], p[2]]).collect()).collect();
    let table = evaluate(&moved, &references, &EvaluateOptions { emd: None }, &mut rng).unwrap();
    assert_eq!((table.chamfer.one_nna, table.emd), (1.0, None));
    assert!(table.jsd > 0.9);
    assert!(Table::header(&EvaluateOptions::default()).contains("MMD-EMD"));
    assert!(format!("{table}").contains("100.00"));
}

#[test]
fn bad_clouds_are_refused_by_name() {
    let good = cloud(1, 5);
    assert!(chamfer(&good, &[]).unwrap_err().to_string().contains("no points"));
    assert!(emd_exact(&good, &good[..4]).unwrap_err().to_string().contains("5 and 4"));
    let bad = vec![[0.0, f32::NAN, 0.0]];
    assert!(chamfer(&bad, &good).unwrap_err().to_string().contains("not finite"));
    assert!(evaluate(&[], &[good], &EvaluateOptions::default(), &mut FlowRng::seed_from(1)).is_err());
}
