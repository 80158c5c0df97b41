//! Whether this process was started as one of several, and how many threads are its own.
//!
//! Launchers tell each process its place in the environment. To look there needs no MPI, so that a program without it can
//! refuse to run as one of several copies that know nothing of each other.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// The reason to end all ranks that stands for the message of a panic.
pub const PANICKED: &str = "panicked";

/// So long a rank waits for the others in one exchange, in seconds, unless `FLOW_RANKS_TIMEOUT` says otherwise. The first
/// rank may write a checkpoint or draw previews meanwhile.
const PATIENCE: u64 = 1800;

/// How long a rank waits for the others in one exchange before it ends the job.
pub fn patience() -> Duration {
    let set = std::env::var("FLOW_RANKS_TIMEOUT").ok().and_then(|seconds| seconds.trim().parse().ok());
    Duration::from_secs(set.unwrap_or(PATIENCE))
}

/// The reason to end the job after that.
#[cfg(any(feature = "mpi", feature = "nccl"))]
pub(super) fn heard_nothing(patience: Duration) -> String {
    format!("heard nothing of the other ranks for {} s", patience.as_secs())
}

/// The place of this process among those that a launcher (`mpirun`, `srun`) started together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// This process.
    pub rank: usize,
    /// All of them, at least two.
    pub ranks: usize,
    /// Those on this machine, where the launcher says so.
    pub on_host: Option<usize>,
    /// This process among those on this machine, where the launcher says so: the number of its GPU.
    pub local: Option<usize>,
}

/// Names of the variables for rank, ranks, ranks on this machine and the rank among these: Open MPI, MPICH and Intel MPI,
/// MVAPICH, Slurm.
const LAUNCHERS: [[&str; 4]; 4] = [
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"],
    ["PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"],
    ["MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"],
    ["PMIX_RANK", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_ON_NODE", "SLURM_LOCALID"],
];

impl Launch {
    /// The place of this process; `None` for one that is alone.
    pub fn of_this_process() -> Option<Self> {
        Self::of(|name| std::env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
        LAUNCHERS.iter().find_map(|[rank, ranks, on_host, local]| {
            let ranks = number(ranks).filter(|&ranks| ranks > 1)?;
            let on_host = number(on_host).filter(|&count| count > 0);
            Some(Launch { rank: number(rank)?, ranks, on_host, local: number(local) })
        })
    }

    /// The threads for this process: its part of the machine's. A process that the launcher has bound to some processors
    /// has these.
    pub fn threads(self) -> usize {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let bound = match (processors("self"), parent().and_then(|parent| processors(&parent))) {
            (Some(own), Some(parents)) if own.is_subset(&parents) && own.len() < parents.len() => Some(own.len()),
            _ => None,
        };
        bound.unwrap_or(all / self.on_host.unwrap_or(self.ranks)).clamp(1, all)
    }
}

/// The processors that a process may run on, where the system has a file that says so.
fn processors(process: &str) -> Option<BTreeSet<usize>> {
    let status = std::fs::read_to_string(Path::new("/proc").join(process).join("status")).ok()?;
    list(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)
}

/// The process that started this one.
fn parent() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")).map(|id| id.trim().to_string())
}

/// The numbers of a list like `0-3,8`.
fn list(text: &str) -> Option<BTreeSet<usize>> {
    let mut numbers = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_launcher_is_known_and_one_process_is_alone() {
        let of = |pairs: &'static [(&'static str, &'static str)]| {
            Launch::of(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string()))
        };
        let open_mpi = of(&[
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
        ]);
        assert_eq!(open_mpi, Some(Launch { rank: 3, ranks: 4, on_host: Some(2), local: Some(1) }));
        let hydra = Launch { rank: 0, ranks: 2, on_host: None, local: None };
        assert_eq!(of(&[("PMI_RANK", "0"), ("PMI_SIZE", "2")]), Some(hydra));
        assert_eq!(of(&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")]), None);
        assert_eq!(of(&[("SLURM_STEP_NUM_TASKS", "2")]), None, "a batch script is no rank");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_rank_has_its_part_of_the_threads_and_at_least_one() {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = |on_host| Launch { rank: 0, ranks: 64, on_host: Some(on_host), local: None }.threads();
        assert_eq!((threads(1), threads(2 * all)), (all, 1));
    }

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(list(" 0-2,5\n").unwrap().into_iter().collect::<Vec<_>>(), [0, 1, 2, 5]);
        assert_eq!(list("x"), None);
    }
}
