//! Programs as several processes.
//!
//! The tests that need `mpirun` are behind the feature `mpi`, and skip loudly where it is missing.

use std::path::Path;
use std::process::{Command, Output};

fn binary(name: &str) -> &'static str {
    match name {
        "glow" => env!("CARGO_BIN_EXE_glow"),
        "graphaf" => env!("CARGO_BIN_EXE_graphaf"),
        "pointflow" => env!("CARGO_BIN_EXE_pointflow"),
        "density" => env!("CARGO_BIN_EXE_density"),
        "videoflow" => env!("CARGO_BIN_EXE_videoflow"),
        "waveflow" => env!("CARGO_BIN_EXE_waveflow"),
        _ => env!("CARGO_BIN_EXE_dlgm"),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).to_string() + &String::from_utf8_lossy(&output.stderr)
}

/// What a launcher tells the first of four processes.
fn as_first_of_four(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(binary(name));
    command.current_dir(folder).env("OMPI_COMM_WORLD_RANK", "0").env("OMPI_COMM_WORLD_SIZE", "4");
    command
}

#[cfg(not(feature = "mpi"))]
#[test]
fn copies_that_know_nothing_of_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = as_first_of_four("density", folder.path());
    command.args(["train", "--steps", "3", "--out", "run"]);
    let message = crate::shared::refused(command, folder.path());
    assert!(message.contains("4 processes were started together") && message.contains("--features mpi"), "{message}");
}

#[test]
fn verbs_that_would_do_the_same_work_four_times_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = as_first_of_four("density", folder.path());
    command.args(["sample", "--count", "3"]);
    let message = crate::shared::refused(command, folder.path());
    assert!(message.contains("start `sample` without mpirun"), "{message}");
    let mut command = as_first_of_four("density", folder.path());
    assert!(said(&command.arg("--help").output().unwrap()).contains("Usage"));
}

#[test]
fn whether_sums_overlap_is_zero_or_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary("glow"));
    command.current_dir(folder.path()).args(["train", "--out", "run"]).env("FLOW_RANKS_OVERLAP", "off");
    let message = crate::shared::refused(command, folder.path());
    assert!(message.contains("FLOW_RANKS_OVERLAP is 'off', must be 0 or 1"), "{message}");
}

#[cfg(feature = "mpi")]
mod together {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use flow_core::candle_core::{DType, Device, Tensor, safetensors};
    use flow_core::train::{Checkpoints, RecordKind, read_log};

    use super::*;

    /// A program as so many processes; as itself for one.
    fn ranks(count: usize, name: &str, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = match count {
            1 => Command::new(binary(name)),
            _ => {
                let mut command = Command::new("mpirun");
                command.args(["--allow-run-as-root", "--oversubscribe", "-n", &count.to_string(), binary(name)]);
                command
            }
        };
        // Sessions of several `mpirun` in one folder get into each other's way when one of them tidies up.
        command.env("OMPI_MCA_orte_tmpdir_base", folder);
        command.current_dir(folder).args(arguments).env("RAYON_NUM_THREADS", "1");
        command
    }

    fn is_missing() -> bool {
        let missing = Command::new("mpirun").arg("--version").output().is_err();
        if missing {
            eprintln!("SKIPPED: mpirun is missing; apt-get install openmpi-bin");
        }
        missing
    }

    fn run(count: usize, name: &str, folder: &Path, arguments: &[&str]) -> String {
        let output = ranks(count, name, folder, arguments).output().unwrap();
        let said = said(&output);
        assert!(output.status.success(), "{name} {arguments:?} as {count}: {said}");
        said
    }

    fn weights(out: &Path) -> BTreeMap<String, Tensor> {
        let latest = Checkpoints::new(out).latest().unwrap().unwrap();
        safetensors::load(latest.join("model.safetensors"), &Device::Cpu).unwrap().into_iter().collect()
    }

    /// `‖a - b‖ / ‖a‖` over all weights. Single ones say nothing: where a gradient is round-off, Adam takes a whole step in
    /// its direction.
    fn distance(a: &Path, b: &Path) -> f64 {
        let (a, b) = (weights(a), weights(b));
        assert!(a.keys().eq(b.keys()));
        let square = |t: Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
        let apart: f64 = a.values().zip(b.values()).map(|(a, b)| square((wide(a) - wide(b)).unwrap())).sum();
        (apart / a.values().map(|a| square(wide(a))).sum::<f64>()).sqrt()
    }

    /// The largest relative difference of what two runs logged of losses.
    fn log_distance(a: &Path, b: &Path, names: &[&str]) -> f64 {
        let values = |out: &Path| -> Vec<f64> {
            let log = read_log(&out.join("log.jsonl")).unwrap();
            log.iter().flat_map(|record| names.iter().filter_map(|name| record.get(name))).collect()
        };
        let (a, b) = (values(a), values(b));
        assert!(a.len() == b.len() && !a.is_empty(), "{} and {} values", a.len(), b.len());
        a.iter().zip(&b).map(|(x, y)| (x - y).abs() / (1e-2 + x.abs())).fold(0.0, f64::max)
    }

    const VIDEO: &str =
        r#"{"levels": 2, "steps": 1, "width": 4, "prior": {"blocks": 1, "width": 4, "dilations": false}}"#;
    const AUDIO: &str = r#"{"height": 8, "channels": 4, "flows": 2, "layers": 2, "mels": 64, "upsample": [16, 8]}"#;

    /// Trains as one process and as many; all end with the same model but for round-off in single precision.
    fn any_number_trains_the_same(name: &str, arguments: &str, metrics: &[&str]) {
        numbers_train_the_same(&[3], name, arguments, metrics);
    }

    fn numbers_train_the_same(counts: &[usize], name: &str, arguments: &str, metrics: &[&str]) {
        if is_missing() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::write(folder.join("video.json"), VIDEO).unwrap();
        std::fs::write(folder.join("audio.json"), AUDIO).unwrap();
        for &count in [1].iter().chain(counts) {
            let out = format!("as-{count}");
            let common = ["--steps", "6", "--validate-every", "3", "--log-every", "1", "--clip", "1", "--out", &out];
            let given: Vec<&str> = arguments.split_whitespace().chain(common).collect();
            run(count, name, folder, &given);
        }
        let alone = folder.join("as-1");
        for count in counts {
            let together = folder.join(format!("as-{count}"));
            let (weights, log) = (distance(&alone, &together), log_distance(&alone, &together, metrics));
            println!("{name} as {count}: weights {weights:.1e}, log {log:.1e}");
            assert!(weights < 1e-4 && log < 1e-5, "{name} as {count}: weights {weights:.1e}, log {log:.1e}");
        }
    }

    #[test]
    fn glow() {
        let arguments = "train --levels 1 --steps-per-level 1 --width 8 --batch-size 30 --test-images 20 --shift 0.1";
        numbers_train_the_same(&[2, 4], "glow", arguments, &["bits_per_dim"]);
    }

    #[test]
    fn codec() {
        let arguments = "train --model idf-digits --batch-size 6 --test-images 5 --shift 0.1";
        any_number_trains_the_same("glow", arguments, &["bits_per_value"]);
    }

    #[test]
    fn graphaf() {
        let tail = "--width 8 --layers 2 --batch-size 15 --samples 5";
        let metrics = ["bits_per_atom", "nats_per_molecule"];
        any_number_trains_the_same("graphaf", &format!("train --hidden 16 {tail}"), &metrics);
        // A Gaussian head draws noise for every decision.
        any_number_trains_the_same("graphaf", &format!("train --model paper {tail}"), &metrics);
    }

    #[test]
    fn pointflow() {
        let tail = "--shapes 24 --points-per-shape 256 --points 64 --batch-size 7 --width 16 --latent 8 --samples 2";
        let metrics = ["matching_loss", "point_error", "prior_error", "kl_nats"];
        any_number_trains_the_same("pointflow", &format!("train {tail} --rotate --warp 0.2"), &metrics);
    }

    #[test]
    fn density() {
        let tail = "--batch-size 30 --pixels 20 --test-points 50";
        for model in ["maf --layers 2 --hidden 8", "matching --hidden 8", "ffjord --hidden 8"] {
            let arguments = format!("train --data moons --model {model} {tail}");
            any_number_trains_the_same("density", &arguments, &["nll_nats", "matching_loss"]);
        }
    }

    #[test]
    fn variational() {
        let arguments = "fit --energy u1 --batch-size 30 --divergence forward";
        any_number_trains_the_same("density", arguments, &["loss_nats", "elbo_nats"]);
    }

    #[test]
    fn dlgm() {
        let arguments = "train --model planar-2 --latents 3 --hidden 8 --batch-size 22 --anneal 10";
        any_number_trains_the_same("dlgm", arguments, &["free_energy_nats", "kl_nats"]);
    }

    #[test]
    fn videoflow() {
        let arguments = "train --learned-noise 4 --config video.json --clips 8 --batch-size 3 --targets 1 --horizon 2";
        any_number_trains_the_same("videoflow", arguments, &["bits_per_dim"]);
    }

    #[test]
    fn waveflow() {
        let arguments = "train --config audio.json --segment 1024 --batch-size 5";
        any_number_trains_the_same("waveflow", arguments, &["nll_nats_per_sample"]);
    }

    const TINY: &str = "--levels 1 --steps-per-level 1 --width 8 --batch-size 30 --test-images 20";

    fn words<'a>(lists: &[&'a str]) -> Vec<&'a str> {
        lists.iter().flat_map(|list| list.split_whitespace()).collect()
    }

    #[test]
    fn a_run_goes_on_with_another_number_of_ranks_and_no_flags() {
        if is_missing() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let end = |out: &'static str, steps: &'static str| {
            words(&["train", TINY, "--schedule constant --warmup 1 --out", out, "--steps", steps])
        };
        run(1, "glow", folder, &end("whole", "9"));
        run(2, "glow", folder, &end("parts", "4"));
        let said = run(4, "glow", folder, &words(&["train --resume --out parts --steps 9"]));
        assert!(said.contains("with the settings of the run"), "{said}");
        let apart = distance(&folder.join("whole"), &folder.join("parts"));
        assert!(apart < 1e-4, "{apart:.1e}");
    }

    #[test]
    fn one_speaks_and_what_differs_is_named() {
        if is_missing() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let said = run(3, "glow", folder, &words(&["train", TINY, "--steps 4 --out a"]));
        for line in ["data: built-in", "batch 30, 4 steps", "bits/dim over"] {
            assert_eq!(said.matches(line).count(), 1, "{line}: {said}");
        }
        // What all refuse is said once.
        let output = ranks(3, "glow", folder, &words(&["train", TINY, "--steps 4 --out a"])).output().unwrap();
        let message = super::said(&output);
        assert!(!output.status.success() && message.matches("error: ").count() == 1, "{message}");
        // The second rank is given another rate.
        let mut command = Command::new("mpirun");
        command.current_dir(folder).env("OMPI_MCA_orte_tmpdir_base", folder);
        command.args(["--allow-run-as-root", "--oversubscribe"]);
        for rate in ["0.01", "0.02"] {
            let part = words(&["train", TINY, "--steps 4 --out b --learning-rate", rate]);
            command
                .args(if rate == "0.01" { &["-n", "1"][..] } else { &[":", "-n", "1"] })
                .arg(binary("glow"))
                .args(part);
        }
        let begun = Instant::now();
        let output = command.output().unwrap();
        let message = super::said(&output);
        assert!(begun.elapsed() < Duration::from_secs(20) && !output.status.success(), "{message}");
        assert!(message.contains("engine.optimizer.learning_rate: rank 0 0.01, rank 1 0.02"), "{message}");
    }

    /// Trains as one process and as three, and compares the losses of training alone. Biases before a batch normalization have
    /// no gradient but round-off, in whose direction Adam takes whole steps: they part, which changes nothing but running averages.
    fn losses_are_the_same(name: &str, arguments: &str, metrics: &[&str], tolerance: f64) {
        if is_missing() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::write(folder.join("points.json"), POINTS).unwrap();
        for count in [1, 3] {
            let out = format!("as-{count}");
            let common = ["--steps", "5", "--validate-every", "9", "--log-every", "1", "--clip", "1", "--out", &out];
            run(count, name, folder, &arguments.split_whitespace().chain(common).collect::<Vec<_>>());
        }
        let losses = |count: usize| -> Vec<f64> {
            let log = read_log(&folder.join(format!("as-{count}/log.jsonl"))).unwrap();
            let training = log.iter().filter(|record| record.kind == RecordKind::Train);
            training.flat_map(|record| metrics.iter().filter_map(|name| record.get(name))).collect()
        };
        let (alone, together) = (losses(1), losses(3));
        assert_eq!((alone.len(), together.len()), (5 * metrics.len(), 5 * metrics.len()));
        let gap = alone.iter().zip(&together).map(|(a, b)| (a - b).abs() / a.abs()).fold(0.0, f64::max);
        println!("{name}: {gap:.1e}");
        assert!(gap < tolerance, "{name}: {alone:?} {together:?}");
    }

    const POINTS: &str = r#"{"latent": 4, "encoder": {"point": [6, 8], "head": [6]},
        "point": {"hidden": [8], "activation": "tanh", "gate": "sigmoid", "input_gain": 1.0},
        "prior": {"hidden": [8], "activation": "tanh", "gate": "sigmoid", "input_gain": 1.0},
        "objective": {"likelihood": {
            "solver": {"method": "rk4", "stepping": {"fixed": {"steps": 4}}, "step_times": [], "jump_times": []},
            "point_divergence": {"hutchinson": "gaussian"}, "prior_divergence": {"hutchinson": "gaussian"}, "gradient": "direct",
            "end_time": {"learned": {"initial": 0.5}}, "regularization": {"kinetic": 0.0, "jacobian": 0.0},
            "statistics": "per-axis"}}}"#;

    /// Batch statistics of flow layers and of networks. Some of these begin at the kink of a rectifier, on a side that round-off
    /// decides; in double precision and away from it flow-image has the same test.
    #[test]
    fn realnvp() {
        let arguments = "train --model realnvp-small --batch-size 7 --test-images 12";
        losses_are_the_same("glow", arguments, &["bits_per_dim"], 1e-3);
    }

    /// Those of an encoder, and running ones between continuous flows.
    #[test]
    fn pointflow_by_likelihood() {
        let arguments = "train --model paper --config points.json --shapes 12 --points-per-shape 128 --points 32 \
                         --batch-size 5 --samples 2";
        losses_are_the_same("pointflow", arguments, &["nats_per_cloud", "point_nats", "prior_nats"], 1e-5);
    }

    #[test]
    fn a_rank_without_a_sample_is_refused_where_statistics_are_of_all() {
        if is_missing() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let arguments = words(&["train --model realnvp-small --batch-size 1 --test-images 12 --steps 2 --out run"]);
        let output = ranks(2, "glow", folder, &arguments).output().unwrap();
        let message = super::said(&output);
        assert!(!output.status.success() && message.contains("every rank needs one"), "{message}");
    }

    #[test]
    fn a_signal_to_mpirun_stops_all_at_the_same_step() {
        if is_missing() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // The only checkpoint is that of the stop.
        let arguments =
            words(&["train", TINY, "--steps 1000000 --warmup 1 --checkpoint-every 1000000 --log-every 1 --out run"]);
        let mut child = ranks(2, "glow", folder, &arguments)
            // Open MPI waits so long before it passes the signal on, and again before it kills.
            .env("OMPI_MCA_odls_base_sigkill_timeout", "4")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let out = folder.join("run");
        while std::fs::read_to_string(out.join("log.jsonl")).unwrap_or_default().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        let asked = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(asked.elapsed() < Duration::from_secs(30), "did not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
        let steps = Checkpoints::new(&out).steps().unwrap();
        let &[stopped] = &steps[..] else { panic!("{steps:?}") };
        run(1, "glow", folder, &words(&["train --resume --out run --steps", &(stopped + 2).to_string()]));
    }
}
