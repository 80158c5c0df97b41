//! Against all permutations, against a plain Hungarian method, and against the dual bound.

use super::*;
use crate::FlowRng;

/// A plain `O(n^3)` Hungarian method over whole rows, with potentials and one-based sentinels: slow
/// and independent of the code under test.
fn hungarian(costs: &[f64], n: usize) -> f64 {
    let (mut u, mut v) = (vec![0.0; n + 1], vec![0.0; n + 1]);
    let (mut row_of, mut way) = (vec![0; n + 1], vec![0; n + 1]);
    for i in 1..=n {
        row_of[0] = i;
        let mut j0 = 0;
        let (mut least, mut used) = (vec![f64::INFINITY; n + 1], vec![false; n + 1]);
        while row_of[j0] != 0 {
            used[j0] = true;
            let (i0, mut delta, mut j1) = (row_of[j0], f64::INFINITY, 0);
            for j in (1..=n).filter(|&j| !used[j]) {
                let slack = costs[(i0 - 1) * n + j - 1] - u[i0] - v[j];
                if slack < least[j] {
                    (least[j], way[j]) = (slack, j0);
                }
                if least[j] < delta {
                    (delta, j1) = (least[j], j);
                }
            }
            for j in 0..=n {
                if used[j] {
                    u[row_of[j]] += delta;
                    v[j] -= delta;
                } else {
                    least[j] -= delta;
                }
            }
            j0 = j1;
        }
        while j0 != 0 {
            let j1 = way[j0];
            row_of[j0] = row_of[j1];
            j0 = j1;
        }
    }
    (1..=n).map(|j| costs[(row_of[j] - 1) * n + j - 1]).sum()
}

/// The least cost over all permutations, by recursion on the first free row.
fn by_enumeration(costs: &[f64], n: usize, row: usize, taken: u32) -> f64 {
    if row == n {
        return 0.0;
    }
    let free = (0..n).filter(|j| taken & (1 << j) == 0);
    free.map(|j| costs[row * n + j] + by_enumeration(costs, n, row + 1, taken | 1 << j)).fold(f64::INFINITY, f64::min)
}

/// Checks that the columns are a permutation of the stated cost and that the duals prove it
/// optimal to `1e-9` relative.
fn certify(best: &Assignment, costs: &[f64], n: usize) {
    let mut seen = vec![false; n];
    best.columns.iter().for_each(|&j| assert!(!std::mem::replace(&mut seen[j as usize], true), "column {j} twice"));
    assert_eq!(best.columns.len(), n);
    let primal: f64 = best.columns.iter().enumerate().map(|(i, &j)| costs[i * n + j as usize]).sum();
    let scale = costs.iter().fold(1e-30, |s: f64, c| s.max(c.abs())) * n as f64;
    assert!((primal - best.cost).abs() <= 1e-13 * scale, "stated {} is {primal}", best.cost);
    let cheapest = |i: usize| (0..n).map(|j| costs[i * n + j] - best.duals[j]).fold(f64::INFINITY, f64::min);
    let dual: f64 = best.duals.iter().sum::<f64>() + (0..n).map(cheapest).sum::<f64>();
    assert!((primal - dual).abs() <= 1e-9 * primal.abs() + 1e-13 * scale, "n {n}: primal {primal}, dual {dual}");
}

fn uniform(n: usize, rng: &mut FlowRng) -> Vec<f64> {
    (0..n * n).map(|_| rng.next_uniform()).collect()
}

fn matrix(a: &[[f32; 3]], b: &[[f32; 3]], cost: Cost) -> Vec<f64> {
    a.iter().flat_map(|x| b.iter().map(move |y| cost.between(x, y))).collect()
}

/// Standard normal points.
fn ball(n: usize, rng: &mut FlowRng) -> Vec<[f32; 3]> {
    (0..n).map(|_| [0; 3].map(|_| rng.next_normal() as f32)).collect()
}

/// Points on a sphere of radius one half around `(0.3, 0, 0)`: a surface, as shapes are.
fn sphere(n: usize, rng: &mut FlowRng) -> Vec<[f32; 3]> {
    let on_surface = |[x, y, z]: [f32; 3]| {
        let scale = 0.5 / (x * x + y * y + z * z).sqrt();
        [x * scale + 0.3, y * scale, z * scale]
    };
    ball(n, rng).into_iter().map(on_surface).collect()
}

#[test]
fn small_problems_agree_with_enumeration() {
    let mut rng = FlowRng::seed_from(1);
    for n in 0..=7 {
        for _ in 0..20 {
            let costs: Vec<f64> = uniform(n, &mut rng).iter().map(|c| c - 0.4).collect();
            let best = assign(&costs, n).unwrap();
            certify(&best, &costs, n);
            assert!((best.cost - by_enumeration(&costs, n, 0, 0)).abs() < 1e-12, "n {n}");
        }
    }
}

#[test]
fn random_matrices_agree_with_a_plain_hungarian_method() {
    let mut rng = FlowRng::seed_from(2);
    for n in [1, 2, 30, 96, 97, 130, 200] {
        let costs = uniform(n, &mut rng);
        let best = assign(&costs, n).unwrap();
        certify(&best, &costs, n);
        assert!((best.cost - hungarian(&costs, n)).abs() < 1e-10, "n {n}");
    }
}

#[test]
fn ties_and_constant_rows_are_solved() {
    let mut rng = FlowRng::seed_from(3);
    for n in [5, 60, 150] {
        let few: Vec<f64> = (0..n * n).map(|_| rng.below(3) as f64).collect();
        let constant = vec![2.5; n * n];
        let outer: Vec<f64> = (0..n * n).map(|k| ((k / n + 1) * (k % n + 1)) as f64).collect();
        for costs in [few, constant, outer] {
            let best = assign(&costs, n).unwrap();
            certify(&best, &costs, n);
            assert!((best.cost - hungarian(&costs, n)).abs() < 1e-9 * (1.0 + best.cost), "n {n}");
        }
    }
}

#[test]
fn points_agree_with_their_matrix_and_the_hungarian_method() {
    let mut rng = FlowRng::seed_from(4);
    for n in [40, 150, 200] {
        for cost in [Cost::Euclidean, Cost::Squared] {
            for (a, b) in [(sphere(n, &mut rng), ball(n, &mut rng)), (sphere(n, &mut rng), sphere(n, &mut rng))] {
                let costs = matrix(&a, &b, cost);
                let best = assign_points(&a, &b, cost).unwrap();
                certify(&best, &costs, n);
                assert!((best.cost - hungarian(&costs, n)).abs() < 1e-9 * best.cost, "n {n} {cost:?}");
                let vectors = assign_vectors(a.as_flattened(), b.as_flattened(), 3, cost).unwrap();
                assert!((best.cost - vectors.cost).abs() < 1e-12 * best.cost);
            }
        }
    }
}

#[test]
fn thousands_of_points_are_proved_optimal() {
    let mut rng = FlowRng::seed_from(5);
    let n = 1000;
    for cost in [Cost::Euclidean, Cost::Squared] {
        let (a, b) = (sphere(n, &mut rng), ball(n, &mut rng));
        certify(&assign_points(&a, &b, cost).unwrap(), &matrix(&a, &b, cost), n);
    }
}

#[test]
fn a_set_and_its_permutation_cost_nothing() {
    let mut rng = FlowRng::seed_from(6);
    let a = sphere(400, &mut rng);
    let order = rng.permutation(a.len());
    let b: Vec<_> = order.iter().map(|&i| a[i]).collect();
    for cost in [Cost::Euclidean, Cost::Squared] {
        let best = assign_points(&a, &b, cost).unwrap();
        assert_eq!(best.cost, 0.0);
        assert!(best.columns.iter().enumerate().all(|(i, &j)| order[j as usize] == i));
    }
}

#[test]
fn coincident_points_are_solved() {
    let mut rng = FlowRng::seed_from(7);
    let n = 300;
    let a: Vec<[f32; 3]> = (0..n).map(|i| [(i % 3) as f32, 0.0, 0.0]).collect();
    let b: Vec<[f32; 3]> = (0..n).map(|_| [rng.below(2) as f32, 1.0, 0.0]).collect();
    let costs = matrix(&a, &b, Cost::Euclidean);
    let best = assign_points(&a, &b, Cost::Euclidean).unwrap();
    certify(&best, &costs, n);
    assert!((best.cost - hungarian(&costs, n)).abs() < 1e-9 * best.cost);
}

#[test]
fn squared_cost_on_a_line_is_the_sorted_pairing() {
    let mut rng = FlowRng::seed_from(8);
    let mut a: Vec<f32> = (0..500).map(|_| rng.next_normal() as f32).collect();
    let mut b: Vec<f32> = (0..500).map(|_| rng.next_uniform() as f32).collect();
    let best = assign_vectors(&a, &b, 1, Cost::Squared).unwrap();
    a.sort_by(f32::total_cmp);
    b.sort_by(f32::total_cmp);
    let sorted: f64 = a.iter().zip(&b).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum();
    assert!((best.cost - sorted).abs() < 1e-10 * sorted);
}

#[test]
fn unusable_input_is_refused_by_name() {
    let message = |result: Result<Assignment>| result.unwrap_err().to_string();
    assert!(message(assign(&[1.0, 2.0, 3.0], 2)).contains("2 x 2"));
    assert!(message(assign(&[0.0, 1.0, f32::NAN, 2.0], 2)).contains("row 1 and column 0"));
    assert!(message(assign(&[0.0, f64::MAX, 1.0, 2.0], 2)).contains("row 0 and column 1"));
    let (a, b) = ([[0.0; 3]; 2], [[0.0, 0.0, 0.0], [0.0, f32::INFINITY, 0.0]]);
    assert!(message(assign_points(&a, &b, Cost::Squared)).contains("coordinate 1 of target point 1"));
    assert!(message(assign_points(&a, &b[..1], Cost::Squared)).contains("got 2 and 1"));
    assert!(message(assign_vectors(&[0.0; 6], &[0.0; 5], 3, Cost::Squared)).contains("length 3"));
    assert!(message(assign_vectors(&[], &[], 0, Cost::Squared)).contains("length 0"));
}

#[test]
fn a_limit_changes_nothing_below_it_and_refuses_above_it() {
    let mut rng = FlowRng::seed_from(11);
    for n in [1, 40, 96, 97, 300] {
        for cost in [Cost::Euclidean, Cost::Squared] {
            let (a, b) = (ball(n, &mut rng), sphere(n, &mut rng));
            let best = assign_points(&a, &b, cost).unwrap();
            let within = |limit| assign_points_within(&a, &b, cost, limit).unwrap();
            for limit in [f64::INFINITY, 2.0 * best.cost, best.cost] {
                assert_eq!(within(limit).unwrap(), best, "n {n}, limit {limit}");
            }
            for limit in [best.cost * (1.0 - 1e-12), 0.99 * best.cost, 0.5 * best.cost, 0.0, -1.0] {
                assert_eq!(within(limit), None, "n {n}, limit {limit} of {}", best.cost);
            }
        }
    }
    // The same points in another order: a bound that rounds to more than nothing refuses nothing.
    for n in [80, 200, 700] {
        let a = ball(n, &mut rng);
        let b: Vec<_> = rng.permutation(n).into_iter().map(|i| a[i]).collect();
        for cost in [Cost::Euclidean, Cost::Squared] {
            assert_eq!(assign_points_within(&a, &b, cost, 0.0).unwrap().unwrap().cost, 0.0);
        }
    }
    // Few places and many points at each: all duals may be nothing at first, and the value grows by paths alone.
    for round in 0..200 {
        let places = ball(5, &mut rng);
        let mut draw = |n: usize| -> Vec<[f32; 3]> { (0..n).map(|_| places[rng.below(5)]).collect() };
        let (a, b) = (draw(24 + round), draw(24 + round));
        let best = assign_points(&a, &b, Cost::Euclidean).unwrap();
        assert_eq!(assign_points_within(&a, &b, Cost::Euclidean, best.cost).unwrap().unwrap(), best, "round {round}");
    }
    let a = ball(5, &mut rng);
    assert!(assign_points_within(&a, &a[1..], Cost::Euclidean, 1.0).is_err());
}
