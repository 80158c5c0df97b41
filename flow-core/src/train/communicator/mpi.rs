//! Ranks that MPI connects: processes on one machine or many, started by `mpirun` or `srun`.
//!
//! ```no_run
//! # fn task() -> flow_core::Result<()> {
//! use flow_core::train::mpi::Mpi;
//!
//! let world = Mpi::start()?;
//! // Trainer::new(config, out, task)?.with_communicator(world.clone()).run(&mut progress)?;
//! world.finish();
//! # Ok(())
//! # }
//! ```

use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives, Equivalence, Root};

use super::launch::{PANICKED, heard_nothing, patience};
use super::{Communicator, Summands};
use crate::{Error, Result};

/// Elements of one message at most: MPI counts in C's `int`.
const LARGEST: usize = i32::MAX as usize;
/// With what a job ends that one rank gave up.
const EXIT_CODE: i32 = 2;
/// So long the other ranks leave the word to the first: what went wrong on all of them is said once. A launcher that is told
/// to end the job by then does so within about a second.
const FIRST_SPEAKS: Duration = Duration::from_secs(3);

/// How long a thread sleeps between two looks at what has come of a sum.
const LOOK: Duration = Duration::from_micros(100);

/// MPI, from start to finish.
static UNIVERSE: Mutex<Option<Universe>> = Mutex::new(None);
/// The standard error of a rank that was told to be quiet.
static LAST_WORDS: OnceLock<File> = OnceLock::new();
/// What the last panic said.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

fn locked<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All processes that were started together.
#[derive(Debug, Clone)]
pub struct Mpi {
    rank: usize,
    ranks: usize,
    largest: usize,
    watch: Arc<Watch>,
    /// None for the channel of all that MPI itself opens.
    group: Option<Arc<Group>>,
}

/// A second communicator of all processes.
struct Group(ManuallyDrop<SimpleCommunicator>);

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("second channel")
    }
}

// SAFETY: MPI was started for calls from several threads at once, or there is no second channel.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

impl Mpi {
    /// Joins the others. Once in a process; without a launcher the process is alone in its world.
    ///
    /// # Errors
    /// [`Error::Config`] when MPI was started before in this process.
    pub fn start() -> Result<Self> {
        let (universe, _) = mpi::initialize_with_threading(Threading::Multiple)
            .ok_or_else(|| Error::config("MPI", "was started before in this process"))?;
        *locked(&UNIVERSE) = Some(universe);
        let world = SimpleCommunicator::world();
        // MPI has no negative ranks and sizes.
        let number = |n: i32| usize::try_from(n).unwrap_or_default();
        let (rank, ranks) = (number(world.rank()), number(world.size()));
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            *locked(&PANIC) = Some(panic.to_string());
            before(panic);
        }));
        let mpi = Mpi { rank, ranks, largest: LARGEST, watch: Arc::default(), group: None };
        if ranks > 1 {
            mpi.clone().keep_watch();
        }
        Ok(mpi)
    }

    /// Leaves the others; all ranks call it. What follows, each does alone. Does nothing the second time.
    pub fn finish(&self) {
        drop(locked(&UNIVERSE).take());
    }

    /// Lets only the first rank speak: standard output and error of the others are closed, but for the line with which a
    /// rank ends the job.
    ///
    /// # Errors
    /// [`Error::Io`] where the system does not allow it.
    pub fn hush(&self) -> Result<()> {
        if self.rank == 0 {
            return Ok(());
        }
        let nowhere = "/dev/null";
        let failed = |e: rustix::io::Errno| Error::io(nowhere)(e.into());
        let own = rustix::io::dup(std::io::stderr()).map_err(failed)?;
        let null = File::options().write(true).open(nowhere).map_err(Error::io(nowhere))?;
        // A second call finds standard error closed already.
        LAST_WORDS.get_or_init(|| File::from(own));
        rustix::stdio::dup2_stdout(&null).map_err(failed)?;
        rustix::stdio::dup2_stderr(&null).map_err(failed)
    }

    /// The same ranks with shorter messages, of at most `elements` elements: for tests of the cutting.
    #[must_use]
    pub fn cut_at(self, elements: usize) -> Self {
        Mpi { largest: elements.clamp(1, LARGEST), ..self }
    }

    fn sum<T: Equivalence + Clone>(&self, values: &mut [T]) {
        let _waiting = self.watch.begin();
        for piece in values.chunks_mut(self.largest) {
            let own = piece.to_vec();
            self.on(|group| patiently(group, &own, piece));
        }
    }

    fn on<R>(&self, ask: impl FnOnce(&SimpleCommunicator) -> R) -> R {
        match &self.group {
            None => ask(&SimpleCommunicator::world()),
            Some(group) => ask(&group.0),
        }
    }

    /// Ends the job when an exchange has taken too long: a machine may be gone without a word.
    fn keep_watch(self) {
        let patience = patience();
        std::thread::spawn(move || {
            while !self.watch.is_longer_than(patience) {
                std::thread::sleep(Duration::from_millis(500));
                // Nobody is left who could wait.
                if Arc::strong_count(&self.watch) == 1 {
                    return;
                }
            }
            self.abort(&heard_nothing(patience));
        });
    }
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.ranks
    }

    fn all_reduce_sum(&self, values: Summands<'_>) -> Result<()> {
        match values {
            Summands::F32(values) => self.sum(values),
            Summands::F64(values) => self.sum(values),
        }
        Ok(())
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let _waiting = self.watch.begin();
        let mut lengths = vec![0_u64; self.ranks];
        self.on(|world| world.all_gather_into(&(own.len() as u64), lengths.as_mut_slice()));
        let total: u64 = lengths.iter().sum();
        if total > LARGEST as u64 {
            return Err(Error::config("ranks", format!("{total} bytes are too many for one exchange")));
        }
        // Both fit, since their sum does.
        let counts: Vec<i32> = lengths.iter().map(|&length| length as i32).collect();
        let starts: Vec<i32> =
            counts.iter().scan(0, |end, &count| Some(std::mem::replace(end, *end + count))).collect();
        let mut all = vec![0_u8; total as usize];
        let mut parts = PartitionMut::new(all.as_mut_slice(), counts, starts);
        self.on(|world| world.all_gather_varcount_into(own, &mut parts));
        let mut rest = all.as_slice();
        let cut = |&length: &u64| {
            let (said, others) = rest.split_at(length as usize);
            rest = others;
            said.to_vec()
        };
        Ok(lengths.iter().map(cut).collect())
    }

    fn broadcast(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        let _waiting = self.watch.begin();
        self.on(|world| {
            let first = world.process_at_rank(0);
            let mut length = bytes.len() as u64;
            first.broadcast_into(&mut length);
            bytes.resize(length as usize, 0);
            for piece in bytes.chunks_mut(self.largest) {
                first.broadcast_into(piece);
            }
        });
        Ok(bytes)
    }

    fn barrier(&self) -> Result<()> {
        let _waiting = self.watch.begin();
        self.on(|world| world.barrier());
        Ok(())
    }

    fn second(&self) -> Result<Option<Arc<dyn Communicator>>> {
        // An MPI may give less than it was asked for, on one machine and not on another.
        let able = u8::from(mpi::environment::threading_support() == Threading::Multiple);
        if self.all_gather(&[able])?.concat().contains(&0) {
            return Ok(None);
        }
        // It lives as long as MPI, which may end before the last owner of this.
        let group = Group(ManuallyDrop::new(self.on(|world| world.duplicate())));
        let second = Mpi { watch: Arc::default(), group: Some(Arc::new(group)), ..self.clone() };
        second.clone().keep_watch();
        Ok(Some(Arc::new(second)))
    }

    /// Says which rank and why in one line on standard error, and ends all processes of the job.
    fn abort(&self, reason: &str) {
        if self.ranks == 1 || locked(&UNIVERSE).is_none() {
            return;
        }
        if self.rank != 0 {
            std::thread::sleep(FIRST_SPEAKS);
        }
        let said = match locked(&PANIC).take().filter(|_| reason == PANICKED) {
            Some(panic) => format!("{reason}: {panic}"),
            None => reason.to_string(),
        };
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = format!("error: rank {} of {}: {words}\n", self.rank, self.ranks);
        // Nobody is left to be told of a failure to write.
        let _ = match LAST_WORDS.get() {
            Some(mut own) => own.write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
        SimpleCommunicator::world().abort(EXIT_CODE);
    }
}

/// The sums of all ranks, without keeping a processor from the threads that compute. On both channels, so that the order of additions is
/// the same.
fn patiently<T: Equivalence>(group: &SimpleCommunicator, own: &[T], sums: &mut [T]) {
    mpi::request::scope(|scope| {
        let mut request = group.immediate_all_reduce_into(scope, own, sums, SystemOperation::sum());
        while let Err(waiting) = request.test() {
            request = waiting;
            std::thread::sleep(LOOK);
        }
    });
}

/// Since when a rank waits for the others.
#[derive(Debug)]
struct Watch {
    begun: Instant,
    /// Milliseconds from `begun` to the exchange at hand, plus one; zero between exchanges.
    waiting: AtomicU64,
}

impl Default for Watch {
    fn default() -> Self {
        Watch { begun: Instant::now(), waiting: AtomicU64::new(0) }
    }
}

impl Watch {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64 + 1
    }

    fn begin(&self) -> Waiting<'_> {
        self.waiting.store(self.now(), Ordering::Relaxed);
        Waiting(self)
    }

    fn is_longer_than(&self, patience: Duration) -> bool {
        match self.waiting.load(Ordering::Relaxed) {
            0 => false,
            since => Duration::from_millis(self.now().saturating_sub(since)) > patience,
        }
    }
}

/// An exchange in progress.
struct Waiting<'a>(&'a Watch);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.store(0, Ordering::Relaxed);
    }
}
