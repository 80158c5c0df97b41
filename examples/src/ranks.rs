//! Several processes that train one model: `mpirun -n 4 glow train …`.
//!
//! Every process runs the whole program up to the end of the training; then the first one goes on alone, to its report. Only
//! the first one speaks, and only it reads and writes the folder of the run. Without a launcher all of this does nothing.

use std::time::Duration;

use anyhow::{Result, bail};
use flow_core::train::launch::Launch;
use flow_core::train::{Task, Trainer};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The verbs that several processes can share; any other would do the same work several times over.
const SHARED: [&str; 5] = ["train", "optimize", "straighten", "fit", "posterior"];

/// Says, with 0, that gradients are summed over the processes at the end of each step and not while others are still being made.
const OVERLAP: &str = "FLOW_RANKS_OVERLAP";

/// So long the other ranks leave the word to the first: what went wrong on all of them is said once.
const FIRST_SPEAKS: Duration = Duration::from_secs(3);

/// Gives this process its part of the machine's threads, if it was started with others. To be called before anything else.
pub fn share_threads() {
    let Some(launch) = Launch::of_this_process().filter(|_| cfg!(feature = "mpi")) else { return };
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        let threads = launch.threads().to_string();
        // Rayon, and Candle beside it, ask for these when they are first used.
        for name in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
            // SAFETY: the program has just begun and has one thread, so that nothing reads the environment meanwhile.
            unsafe { std::env::set_var(name, &threads) };
        }
    }
}

/// Joins the other processes, if this one was started with others, on the thread that will also leave them.
///
/// # Errors
/// A program that was built without MPI or a verb that cannot be shared, with the remedy.
pub fn begin() -> Result<()> {
    let Some(launch) = Launch::of_this_process() else { return Ok(()) };
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let verb = arguments.first().map(String::as_str).unwrap_or_default();
    let asks = arguments.iter().any(|word| ["-h", "--help", "-V", "--version", "help"].contains(&word.as_str()));
    if launch.rank > 0 && asks {
        std::process::exit(0);
    }
    if asks {
        return Ok(());
    }
    if !SHARED.contains(&verb) {
        let_first_speak();
        bail!(
            "{} processes were started together, which can share {}; start `{verb}` without mpirun",
            launch.ranks,
            SHARED.join(", ")
        );
    }
    connected::begin()
}

/// Whether gradients are summed over the processes while others are still being made.
///
/// # Errors
/// A value of the variable that says so which is neither 0 nor 1.
pub fn overlap() -> Result<bool> {
    match std::env::var(OVERLAP).as_deref() {
        Err(_) | Ok("1") => Ok(true),
        Ok("0") => Ok(false),
        Ok(other) => bail!("{OVERLAP} is '{other}', must be 0 or 1"),
    }
}

/// Waits a moment on any rank but the first, before what is said on all of them.
pub fn let_first_speak() {
    if Launch::of_this_process().is_some_and(|launch| launch.rank > 0) {
        std::thread::sleep(FIRST_SPEAKS);
    }
}

/// Whether this process is the only one or the first, which has the folder of the run.
pub fn is_first() -> bool {
    connected::rank() == 0
}

/// Whether this process was started with others.
pub fn are_several() -> bool {
    Launch::of_this_process().is_some()
}

/// What `make` returns on the first rank. All ranks call it.
///
/// # Errors
/// That of `make`, which ends the other ranks too.
pub fn from_first<T: Serialize + DeserializeOwned>(make: impl FnOnce() -> Result<T>) -> Result<T> {
    connected::from_first(make)
}

/// The training of this process as one of all. All ranks call it.
///
/// # Errors
/// GPUs that cannot be brought together.
pub fn join<T: Task>(trainer: Trainer<T>) -> Result<Trainer<T>> {
    connected::join(trainer)
}

/// Leaves the other processes: the first goes on alone, the others end here. All ranks call it; the second time, and alone,
/// it does nothing.
pub fn finish() {
    connected::finish();
}

/// Ends all processes since this one cannot go on; returns if there is no other.
pub fn give_up(reason: &str) {
    connected::give_up(reason);
}

#[cfg(feature = "mpi")]
mod connected {
    use std::sync::OnceLock;

    use flow_core::train::Communicator;
    use flow_core::train::mpi::Mpi;

    use super::*;

    static WORLD: OnceLock<Mpi> = OnceLock::new();

    pub(super) fn begin() -> Result<()> {
        let world = Mpi::start()?;
        world.hush()?;
        // Set once: `begin` is called once, or MPI had refused to start.
        WORLD.get_or_init(|| world);
        Ok(())
    }

    pub(super) fn rank() -> usize {
        WORLD.get().map_or(0, Communicator::rank)
    }

    pub(super) fn from_first<T: Serialize + DeserializeOwned>(make: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(world) = WORLD.get() else { return make() };
        let own = if world.rank() == 0 { serde_json::to_vec(&make()?)? } else { Vec::new() };
        Ok(serde_json::from_slice(&world.broadcast(own)?)?)
    }

    pub(super) fn join<T: Task>(trainer: Trainer<T>) -> Result<Trainer<T>> {
        let Some(world) = WORLD.get() else { return Ok(trainer) };
        #[cfg(feature = "nccl")]
        if trainer.task().store().device().is_cuda() {
            let devices = flow_core::train::nccl::Nccl::over(
                std::sync::Arc::new(world.clone()),
                trainer.task().store().device(),
            )?;
            return Ok(trainer.with_communicator(devices));
        }
        Ok(trainer.with_communicator(world.clone()))
    }

    pub(super) fn finish() {
        let Some(world) = WORLD.get() else { return };
        world.finish();
        if world.rank() != 0 {
            std::process::exit(0);
        }
    }

    pub(super) fn give_up(reason: &str) {
        if let Some(world) = WORLD.get() {
            world.abort(reason);
        }
    }
}

#[cfg(not(feature = "mpi"))]
mod connected {
    use super::*;

    pub(super) fn begin() -> Result<()> {
        let ranks = Launch::of_this_process().map_or(1, |launch| launch.ranks);
        let_first_speak();
        bail!(
            "{} processes were started together, but this program was built without MPI, and each would train by itself into \
             one folder; build it with --features mpi, or start it without mpirun",
            ranks
        )
    }

    pub(super) fn rank() -> usize {
        Launch::of_this_process().map_or(0, |launch| launch.rank)
    }

    pub(super) fn from_first<T>(make: impl FnOnce() -> Result<T>) -> Result<T> {
        make()
    }

    pub(super) fn join<T: Task>(trainer: Trainer<T>) -> Result<Trainer<T>> {
        Ok(trainer)
    }

    pub(super) fn finish() {}

    pub(super) fn give_up(_reason: &str) {}
}
