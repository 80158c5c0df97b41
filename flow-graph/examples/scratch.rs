//! Scratch.
use candle_core::Device;
use flow_core::FlowRng;
use flow_core::train::*;
use flow_graph::model::*;
use flow_graph::trainer::*;
use std::io::{BufRead, Write};
use std::time::Instant;

fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (path, kind, steps, batch, out) =
        (&a[1], a[2].as_str(), a[3].parse::<u64>().unwrap(), a[4].parse::<usize>().unwrap(), &a[5]);
    let t = Instant::now();
    let file = std::fs::File::open(path).unwrap();
    let reader = std::io::BufReader::new(flate2::read::MultiGzDecoder::new(file));
    let mut molecules = Vec::new();
    for line in reader.lines() {
        let line = line.unwrap();
        match flow_graph::smiles::parse(line.trim()) {
            Ok(m) => molecules.push(m),
            Err(e) => eprintln!("{e}"),
        }
    }
    eprintln!("{} molecules in {:.1} s", molecules.len(), t.elapsed().as_secs_f64());
    let vocabulary = if kind == "paper" { Vocabulary::paper() } else { Vocabulary::of(&molecules).unwrap() };
    eprintln!("{:?}", vocabulary.types().iter().map(|t| t.to_string()).collect::<Vec<_>>());
    let sequences: Vec<Sequence> = molecules.iter().map(|m| Sequence::new(m, &vocabulary).unwrap()).collect();
    drop(molecules);
    let max = sequences.iter().map(|s| s.len()).max().unwrap();
    let mut model =
        if kind == "paper" { GraphAfConfig::paper(vocabulary, max) } else { GraphAfConfig::spline(vocabulary, max) };
    for pair in a[6..].iter() {
        let (k, v) = pair.split_once('=').unwrap();
        match k {
            "layers" => model.layers = v.parse().unwrap(),
            "width" => model.width = v.parse().unwrap(),
            "hidden" => model.head = Head::Spline { hidden: v.split(',').map(|x| x.parse().unwrap()).collect() },
            _ => {}
        }
    }
    let lr = a.iter().find_map(|p| p.strip_prefix("lr=")).map_or(1e-3, |v| v.parse().unwrap());
    let validation = sequences[..2000].to_vec();
    let train = sequences[2000..].to_vec();
    let run = GraphRun { model, source: path.clone(), batch, seed: 0, validation_molecules: 2000 };
    let task = GraphTask::new(run, train, validation, &Device::Cpu).unwrap();
    eprintln!("{} parameters", task.model().store().parameter_count());
    let mut config = train_config(steps, 0);
    config.optimizer.learning_rate = lr;
    config.validate_every = Some((steps / 4).max(1));
    config.checkpoint_every = Some((steps / 4).max(1));
    let mut trainer = Trainer::new(config, out, task).unwrap();
    let s = trainer.run(&mut Bar::new()).unwrap();
    println!("{:?} {:.1} mol/s", s, (steps as usize * batch) as f64 / s.seconds);
    drop(trainer);
    let (run, model) = load(std::path::Path::new(out), &Device::Cpu, true).unwrap();
    for (valid, name) in [(true, "valid"), (false, "free")] {
        let t = Instant::now();
        let n = 2000;
        let drawn =
            model.sample(n, &SampleOptions { valid, ..Default::default() }, &mut FlowRng::seed_from(1)).unwrap();
        let dt = t.elapsed().as_secs_f64();
        let mut f = std::fs::File::create(format!("{out}/{name}.smi")).unwrap();
        let mut ok = 0;
        for g in &drawn {
            let m = g.sequence.molecule(&run.model.vocabulary).unwrap();
            if m.check_valences().is_ok() {
                ok += 1;
                writeln!(f, "{}", flow_graph::smiles::write(&m)).unwrap();
            }
        }
        let unconnected = drawn.iter().filter(|g| g.end == End::Unconnected).count();
        println!(
            "{name}: {:.0} mol/s, valid {:.4}, no redraw {:.4}, unconnected {unconnected}",
            n as f64 / dt,
            ok as f64 / n as f64,
            drawn.iter().filter(|g| g.redrawn == 0).count() as f64 / n as f64
        );
    }
}
