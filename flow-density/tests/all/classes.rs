//! Densities given the class that a column names.

use candle_core::Device;
use flow_core::train::{Task as _, Trainer, load};
use flow_core::{FlowRng, Gradients};
use flow_density::data::{Columns, Data, Missing, Reading, Split, Table};
use flow_density::metrics::{evaluate, likeliest_classes, score_rows};
use flow_density::model::{Kind, ModelConfig};
use flow_density::trainer::{DensityRun, DensityTask, train_config};

/// Two kinds at -2 and 2, a third of the rows of the first, in an order that says nothing.
fn text() -> String {
    let mut rng = FlowRng::seed_from(3);
    let row = |i: u32| {
        let (kind, middle) = if i.is_multiple_of(3) { ("Adélie", -2.0) } else { ("Gentoo", 2.0) };
        format!("{:.4},{kind},{:.4}\n", middle + 0.5 * rng.next_normal(), rng.next_normal())
    };
    "bill,species,mass\n".to_string() + &(0..600).map(row).collect::<String>()
}

fn given(class: &str) -> Reading {
    Reading { class: Some(class.into()), ..Reading::default() }
}

fn parse(text: &str, reading: &Reading) -> flow_density::Result<Table> {
    Table::parse("t.csv".as_ref(), text.as_bytes(), reading)
}

fn refused(text: &str, reading: &Reading) -> String {
    parse(text, reading).unwrap_err().to_string()
}

#[test]
fn classes_are_found_by_name_and_by_number() {
    let table = parse(&text(), &given("species")).unwrap();
    assert_eq!((table.columns(), table.names()), (2, &["bill".to_string(), "mass".into()][..]));
    let classes = table.chosen().class.clone().unwrap();
    assert_eq!(classes.to_string(), "2 classes by column 2 ('species'): Adélie, Gentoo");
    assert_eq!((&classes.rows[..], &table.classes()[..4]), (&[200, 400][..], &[0, 1, 1, 0][..]));
    assert_eq!(parse(&text(), &given("2")).unwrap(), table);
    let data = Data::from_table(&table, 1).unwrap();
    // The count of a class is that of its training rows; every row keeps its class through the split.
    assert_eq!(data.classes().unwrap().rows.iter().sum::<usize>(), 480);
    let all = data.rows(Split::All);
    assert_eq!((all.values(), all.classes()), (table.values(), table.classes()));
    let picked = data.pick_classes(&[5, 2]);
    let first = data.pick(&[5, 2]).unwrap();
    assert!(picked.iter().zip(first.chunks(2)).all(|(&class, row)| (row[0] > 0.0) == (class == 1)));
    // Another class makes other data.
    let swapped = parse(&text().replacen("Gentoo", "Adélie", 1), &given("species")).unwrap();
    let other = Data::from_table(&swapped, 1).unwrap();
    assert!(other.fingerprint().unwrap().difference(&data.fingerprint().unwrap()).is_some());
}

#[test]
fn numbers_can_be_classes_and_sort_as_such() {
    let rows: String = [10, 9, 2, 2, 9, 10].iter().map(|c| format!("{c};{}.5\n", c % 7)).collect();
    let table = parse(&rows, &given("1")).unwrap();
    let classes = table.chosen().class.clone().unwrap();
    assert_eq!(
        (&classes.names[..], table.classes()),
        (&["2", "9", "10"].map(String::from)[..], &[2, 1, 0, 0, 1, 2][..])
    );
}

#[test]
fn what_makes_no_classes_is_refused_with_the_way_out() {
    let said = refused(&text(), &Reading::default());
    assert!(said.contains("or make classes of it with --class-column species"), "{said}");
    assert!(refused(&text(), &given("kind")).contains("no column 'kind'"));
    let both = Reading { columns: vec!["1-3".into()], ..given("species") };
    assert!(refused(&text(), &both).contains("column 2 ('species') read and for classes"));
    assert!(refused(&text(), &given("1-2")).contains("one column"));
    let names: String = (0..300).map(|i| format!("row {i},{i}.5\n")).collect();
    let said = refused(&names, &given("1"));
    assert!(said.contains("300 different values in 300 rows of column 1, expected at most 256 classes"), "{said}");
    // A row without a class lacks a value like any other.
    let holes = text().replacen("Adélie", "NA", 2).replacen("Gentoo", "", 1);
    let said = refused(&holes, &given("species"));
    assert!(said.contains("3 of 600 rows lack a value (column 2 ('species'): 3, first in line 2, 'NA')"), "{said}");
    let dropped = parse(&holes, &Reading { missing: Missing::Drop, ..given("species") }).unwrap();
    assert_eq!((dropped.rows(), dropped.classes().len(), dropped.row_number(0).unwrap()), (597, 597, 3));
    let one = parse(&text().replace("Adélie", "Gentoo"), &given("species")).unwrap();
    let said = Data::from_table(&one, 0).unwrap_err().to_string();
    assert!(said.contains("one class, Gentoo"), "{said}");
}

/// A file that is scored later: the class is found by its name wherever it stands, has the run's places, and what the run
/// does not know is named with its rows.
#[test]
fn other_tables_have_the_classes_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let columns: Columns = parse(&text(), &given("species")).unwrap().chosen().clone();
    let open = |text: &str, reading: &Reading| {
        let path = folder.path().join("new.csv");
        std::fs::write(&path, text).unwrap();
        Table::open_as(&path, &columns, reading).map_err(|error| error.to_string())
    };
    let other = open("note,species,mass,bill\n7,Gentoo,1.5,2\n8,Gentoo,2.5,3\n", &Reading::default()).unwrap();
    assert_eq!((other.values(), other.classes()), (&[2.0, 1.5, 3.0, 2.5][..], &[1, 1][..]));
    assert_eq!(other.chosen().class, columns.class);
    assert!(other.notes().iter().any(|note| note.ends_with("left out: column 1 ('note')")), "{:?}", other.notes());
    let said = open("species,mass,bill\nGentoo,1,2\nEmperor,1,2\nEmperor,1,2\n", &Reading::default()).unwrap_err();
    let expected = "classes that the run does not know: 'Emperor' (2 rows, first row 2), expected Adélie, Gentoo";
    assert!(said.contains(expected), "{said}");
    assert!(open("mass,bill\n1,2\n", &Reading::default()).unwrap_err().contains("--class-column"));
    assert_eq!(open("kind,mass,bill\nGentoo,1,2\n", &given("kind")).unwrap().classes(), &[1]);
    // Without names by their places.
    assert_eq!(open("1,Gentoo,2\n1,Adélie,2\n", &Reading::default()).unwrap().classes(), &[1, 0]);
}

/// A continuous flow that is trained by its likelihood is given the class as well.
#[test]
fn likelihoods_of_continuous_flows_are_given_the_class() {
    let data = Data::from_table(&parse(&text(), &given("species")).unwrap(), 1).unwrap();
    let model = ModelConfig { hidden: vec![8], tolerance: 1e-1, ..ModelConfig::preset(Kind::Ffjord) };
    let run = DensityRun::new("t.csv", &data, model, 16, 0);
    let mut task = DensityTask::new(run.clone(), data.clone(), &Device::Cpu).unwrap();
    let mut gradients = Gradients::new(task.model().store());
    task.step(0, &mut FlowRng::seed_from(1), &mut gradients).unwrap();
    let rows = data.rows(Split::Test).first(4);
    let score = |classes| score_rows(task.model().density(), &run.standard, &rows, classes, 0);
    assert!(score(run.classes()).unwrap().iter().all(|log| log.is_finite()));
    assert!(score(None).is_err(), "a class is needed");
}

/// Given the class the clusters are single Gaussians, whose entropy no density beats; the right class makes rows likelier
/// than the other one.
#[test]
fn families_learn_the_classes() {
    let data = Data::from_table(&parse(&text(), &given("species")).unwrap(), 1).unwrap();
    let entropy = 2.0 * 1.418_938_5 + 0.5_f64.ln();
    // One family of each builder; a continuous flow learns it by its likelihood as well, in minutes.
    for kind in [Kind::Realnvp, Kind::Maf, Kind::Planar, Kind::Matching] {
        let model = ModelConfig { layers: 2, hidden: vec![16], bins: 4, ..ModelConfig::preset(kind) };
        let mut model = ModelConfig { input_gain: 1.0, ..model };
        if kind == Kind::Matching {
            model.matching.coupling = flow_core::cnf::matching::Pairing::Independent;
        }
        let run = DensityRun::new("t.csv", &data, model, 128, 0);
        let out = tempfile::tempdir().unwrap();
        let task = DensityTask::new(run, data.clone(), &Device::Cpu).unwrap();
        // A field learns more slowly.
        let steps = if kind.is_continuous() { 600 } else { 150 };
        Trainer::new(train_config(kind, steps, 0), out.path(), task).unwrap().run(&mut ()).unwrap();
        let (run, model) = load::<DensityRun>(out.path(), &Device::Cpu, false).unwrap();
        let (density, standard) = (model.density(), &run.standard);
        let classes = run.classes().unwrap();
        // The class matters, and the right one makes the rows likelier.
        let rows = data.rows(Split::Test);
        let mean = |logs: Vec<f64>| logs.iter().sum::<f64>() / logs.len() as f64;
        let right = mean(score_rows(density, standard, &rows, Some(classes), 0).unwrap());
        let exchanged: Vec<u32> = rows.classes().iter().map(|class| 1 - class).collect();
        let context = classes.context(&exchanged, &Device::Cpu).unwrap();
        let wrong =
            mean(flow_density::metrics::score_given(density, standard, rows.values(), Some(&context), 0).unwrap());
        assert!(right > wrong + 0.2, "{kind}: {right} {wrong}");
        let report = evaluate(density, standard, &data, 1000, 0).unwrap();
        assert!((report.nll + right).abs() < 1e-9, "{kind}");
        assert!(report.nll > entropy - 4.0 * report.error, "{kind}: {report}, below the entropy {entropy}");
        assert!(report.to_string().starts_with("negative log-likelihood given the class: test "), "{report}");
        let likeliest = likeliest_classes(density, standard, &rows, classes, 0).unwrap();
        let hits = likeliest.iter().zip(rows.classes()).filter(|(a, b)| a == b).count();
        let least = if kind.is_continuous() { 6 } else { 9 };
        assert!(hits * 10 > rows.len() * least, "{kind}: {hits} of {}", rows.len());
        assert!(score_rows(density, standard, &rows, None, 0).is_err(), "{kind}: a class is needed");
    }
}
