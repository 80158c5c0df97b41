//! Data parallelism from outside: two ranks in one process.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};

use flow_core::Result;
use flow_core::train::{
    Checkpoints, Communicator, OptimizerConfig, ScheduleConfig, StopFlag, Task, TrainConfig, Trainer,
};

use crate::toy::{Bend, Toy, config, weights};
use crate::training::{final_checkpoint, folder, run};

/// Two ranks in one process: slots that are summed in rank order between two barriers.
#[derive(Clone)]
struct Pair {
    rank: usize,
    slots: Arc<Mutex<Vec<Vec<f32>>>>,
    gate: Arc<Barrier>,
}

impl Pair {
    fn both() -> [Pair; 2] {
        let (slots, gate) = (Arc::new(Mutex::new(vec![Vec::new(); 2])), Arc::new(Barrier::new(2)));
        [0, 1].map(|rank| Pair { rank, slots: slots.clone(), gate: gate.clone() })
    }

    fn exchange(&self, values: &mut [f32], combine: impl Fn(&[Vec<f32>], usize) -> f32) {
        self.slots.lock().unwrap()[self.rank] = values.to_vec();
        self.gate.wait();
        {
            let slots = self.slots.lock().unwrap();
            values.iter_mut().enumerate().for_each(|(i, value)| *value = combine(&slots, i));
        }
        self.gate.wait();
    }
}

impl Communicator for Pair {
    fn rank(&self) -> usize {
        self.rank
    }
    fn world_size(&self) -> usize {
        2
    }
    fn all_reduce_sum(&self, values: &mut [f32]) -> Result<()> {
        self.exchange(values, |slots, i| slots[0][i] + slots[1][i]);
        Ok(())
    }
    fn broadcast(&self, values: &mut [f32], root: usize) -> Result<()> {
        self.exchange(values, |slots, i| slots[root][i]);
        Ok(())
    }
    fn barrier(&self) -> Result<()> {
        self.gate.wait();
        Ok(())
    }
}

/// Weights of both ranks after training together, each on its half of every batch.
fn train_pair(config: &TrainConfig, out: &Path, bend: impl Fn(usize) -> (Bend, StopFlag) + Sync) -> [Vec<f32>; 2] {
    std::thread::scope(|scope| {
        let ranks = Pair::both().map(|pair| {
            let bend = &bend;
            scope.spawn(move || {
                let rank = pair.rank;
                let (bend, stop) = bend(rank);
                let toy = Toy::new(8, Bend { share: Some((rank, 2)), ..bend });
                let trainer = Trainer::resume_or_start(config.clone(), out, toy).unwrap();
                let mut trainer = trainer.with_communicator(pair).with_stop(stop);
                trainer.run(&mut ()).unwrap();
                trainer.into_task().weights()
            })
        });
        ranks.map(|rank| rank.join().unwrap())
    })
}

#[test]
fn two_ranks_with_half_batches_equal_one_with_whole_batches() {
    // A large epsilon: Adam would blow up round-off where a gradient vanishes.
    let optimizer = OptimizerConfig { epsilon: 1e-2, ..OptimizerConfig::adam(0.01) };
    let config = TrainConfig { optimizer, schedule: ScheduleConfig::constant(4), ..config(16) };
    let (out, solo) = (folder(), folder());
    let [a, b] = train_pair(&config, out.path(), |_| (Bend::default(), StopFlag::new()));
    assert_eq!(a, b, "ranks stay together to the bit, though each initialised from its own data");
    let (_, toy) = run(config.clone(), solo.path(), Toy::new(8, Bend { share: Some((0, 1)), ..Bend::default() }));
    let worst = a.iter().zip(toy.weights()).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(worst < 2e-5, "{worst}");
    assert_ne!(a, weights(Toy::plain().store()));
    // One rank is asked to stop: both stop, and go on together to the same bits.
    let parts = folder();
    train_pair(&config, parts.path(), |rank| {
        let stop = StopFlag::new();
        let stop_at = (rank == 1).then(|| (6, stop.clone()));
        (Bend { stop_at, ..Bend::default() }, stop)
    });
    assert_eq!(Checkpoints::new(parts.path()).steps().unwrap().last(), Some(&7));
    let [c, d] = train_pair(&config, parts.path(), |_| (Bend::default(), StopFlag::new()));
    assert!(a == c && a == d);
}

#[test]
fn one_bad_rank_makes_both_skip() {
    let config = TrainConfig { schedule: ScheduleConfig::default(), ..config(6) };
    let bad = |rank: usize| {
        let bend = if rank == 1 {
            Bend { fail_at: [2].into(), nan_at: [4].into(), ..Bend::default() }
        } else {
            Bend::default()
        };
        (bend, StopFlag::new())
    };
    let out = folder();
    let [a, b] = train_pair(&config, out.path(), bad);
    assert_eq!(a, b);
    assert!(a.iter().all(|w| w.is_finite()));
    let state = fs::read_to_string(final_checkpoint(out.path(), 6).join("state.json")).unwrap();
    assert!(state.contains("\"total\": 2"), "{state}");
}
