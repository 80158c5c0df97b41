//! Columns that single precision would spoil: far from zero, with outliers, in steps.

use candle_core::{DType, Device};
use flow_core::train::{FitOptions, fit};
use flow_core::{FlowRng, ParamStore};
use flow_density::data::{Data, Table};
use flow_density::io::csv;
use flow_density::metrics::{Report, evaluate, score};

/// Two columns of normals, the first of deviation a half about `centre`; four decimals as in a file.
fn rows(centre: f64) -> Vec<f64> {
    let mut rng = FlowRng::seed_from(4);
    let rounded = |v: f64| (v * 1e4).round() / 1e4;
    (0..4000)
        .flat_map(|_| [rounded(rng.next_normal() * 0.5) + centre, rounded(rng.next_normal())])
        .map(rounded)
        .collect()
}

fn fitted(centre: f64) -> (Data, Report) {
    let data = Data::from_table(&Table::new(2, rows(centre)).unwrap(), 3).unwrap();
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let flow = flow_density::nsf_coupling(2).transforms(2).hidden(&[16]).build(&store).unwrap();
    let x = data.standard().apply(data.train(), &Device::Cpu).unwrap();
    fit(&flow, &x, FitOptions::new(20)).unwrap();
    let report = evaluate(&flow, data.standard(), &data, 1000, 0).unwrap();
    (data, report)
}

/// Northings of a map: rounded to f32 before they are centred, a deviation of a half about five million leaves three or
/// four values, and a flow scores nats below the entropy on their spikes.
#[test]
fn a_far_column_scores_like_its_centred_twin() {
    let (near, scored) = fitted(0.0);
    let (far, moved) = fitted(5_155_487.512);
    assert!((scored.nll - moved.nll).abs() < 1e-4, "{scored}\n{moved}");
    // The entropy of the two normals: no density beats it but by chance.
    let entropy = (2.0 * std::f64::consts::PI * std::f64::consts::E).ln() + 0.5_f64.ln();
    assert!(moved.nll > entropy - 3.0 * moved.error && moved.nll < entropy + 0.2, "{moved}, entropy {entropy}");
    assert!(far.warnings().is_empty(), "{:?}", far.warnings());
    let seen = |data: &Data| data.standard().apply(data.train(), &Device::Cpu).unwrap();
    let largest = (seen(&near) - seen(&far)).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(largest < 1e-6, "{largest}");
    // And back: what is drawn has the digits of the data.
    let back = far.standard().undo(&seen(&far)).unwrap();
    assert!(back.iter().zip(far.train()).all(|(a, b)| (a - b).abs() < 1e-6 * (1.0 + (b - 5_155_487.5).abs().min(9.0))));
    let text = csv(&far.train()[..40], far.standard());
    let read = Table::parse("t.csv".as_ref(), text.as_bytes(), &Default::default()).unwrap();
    assert!(read.values().iter().zip(far.train()).all(|(a, b)| (a - b).abs() < 1e-7 * b.abs().min(1.0)), "{text}");
}

/// Numbers that differ in the file and not in what models see are counted.
#[test]
fn numbers_that_single_precision_joins_are_counted() {
    let mut values: Vec<f64> = (0..100).map(f64::from).collect();
    (0..10).for_each(|k| values[10 * k] = 1e12 * (k + 1) as f64);
    let data = Data::from_table(&Table::new(1, values).unwrap(), 0).unwrap();
    let warnings = data.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("of its 100 distinct values in single precision"),
        "{warnings:?}"
    );
}

/// Four values of a die with four sides and a column that is measured.
fn dice() -> Data {
    let mut rng = FlowRng::seed_from(6);
    let rows = (0..2000).flat_map(|_| [0.5 * rng.below(4) as f64 + 1.0, rng.next_normal()]).collect();
    Data::from_table(&Table::new(2, rows).unwrap(), 0).unwrap()
}

#[test]
fn columns_that_repeat_are_named_and_spread_on_demand() {
    let data = dice();
    let warnings = data.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("column 1 repeats its numbers: 4 distinct values in 2000 rows, in steps of 0.5"),
        "{warnings:?}"
    );
    assert!(data.clone().dequantized(&[1]).unwrap_err().to_string().contains("equal distances"));
    assert!(data.clone().dequantized(&[2]).is_err());
    let data = data.dequantized(&[]).unwrap();
    assert!(data.warnings().is_empty() && data.standard().is_dequantized());
    let mut rng = FlowRng::seed_from(1);
    let seen = data.standard().apply_spread(data.train(), &mut rng, &Device::Cpu).unwrap();
    // On the way back noise is taken off, and the other column is what it was.
    let back = data.standard().undo(&seen).unwrap();
    assert!(back.iter().zip(data.train()).all(|(a, b)| (a - b).abs() < 1e-5));
    let spread = seen.narrow(1, 0, 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let values = spread.iter().map(|&z| f64::from(z) * data.standard().std[0] + data.standard().mean[0]);
    let (low, high) = values.fold((9.0_f64, 0.0_f64), |(l, h), v| (l.min(v), h.max(v)));
    assert!((0.749_999..0.78).contains(&low) && (2.72..2.750_001).contains(&high), "{low}, {high}");
}

/// What is said of a dequantized column: the mean density over a cell times its width is the probability of the number in
/// it, so that all of them add up to one, and no model's bound is below the entropy of the die.
#[test]
fn probabilities_of_steps_add_up_to_one() {
    let mut rng = FlowRng::seed_from(6);
    let rows = (0..2000).map(|_| 0.5 * rng.below(4) as f64 + 1.0).collect();
    let data = Data::from_table(&Table::new(1, rows).unwrap(), 0).unwrap().dequantized(&[0]).unwrap();
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let flow = flow_density::nsf_autoregressive(1).transforms(2).hidden(&[8]).build(&store).unwrap();
    let x = data.standard().apply_spread(data.train(), &mut rng, &Device::Cpu).unwrap();
    fit(&flow, &x, FitOptions::new(60)).unwrap();
    let standard = data.standard();
    assert!((standard.log_steps() - 0.5_f64.ln()).abs() < 1e-12);
    let cells: Vec<f64> = (-20..30).map(|k| 0.5 * f64::from(k)).collect();
    let total = |seed: u64| -> f64 {
        score(&flow, standard, &cells, seed).unwrap().iter().map(|log| (log + standard.log_steps()).exp()).sum()
    };
    let mean = (0..40).map(total).sum::<f64>() / 40.0;
    assert!((mean - 1.0).abs() < 0.01, "{mean}");
    let report = evaluate(&flow, standard, &data, 1000, 0).unwrap();
    let bound = report.nll - report.log_steps.unwrap();
    assert!(bound > 4.0_f64.ln() - 3.0 * report.error - 0.01 && bound < 4.0_f64.ln() + 0.2, "{report}");
    assert!(report.to_string().contains("-ln P of the numbers themselves is at most"), "{report}");
}
