//! Which cores generate and which train, so that neither waits for the other's.

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How a run's threads are shared out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// Threads of the engine.
    pub(super) engine_threads: usize,
    /// Threads of the trainer.
    pub(super) trainer_threads: usize,
    /// Where there are cores enough for both at once.
    cores: Option<Cores>,
}

/// The cores of each side.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cores {
    engine: Vec<usize>,
    trainer: Vec<usize>,
}

impl Placement {
    /// Lets engine and trainer take turns on all threads.
    pub(super) fn in_turns(threads: usize, engine_threads: usize) -> Self {
        let all = |wanted| if wanted == 0 { available().len().max(1) } else { wanted };
        let cores = None;
        Self { engine_threads: all(engine_threads), trainer_threads: all(threads), cores }
    }

    /// Shares `threads` out (0: one for each core): `engine_threads` of them (0: half) generate, the others train.
    pub(super) fn side_by_side(threads: usize, engine_threads: usize) -> Self {
        Self::among(&available(), threads, engine_threads)
    }

    fn among(cores: &[usize], threads: usize, engine_threads: usize) -> Self {
        let all = if threads == 0 { cores.len() } else { threads };
        let engine = if engine_threads == 0 { all.div_ceil(2).max(1) } else { engine_threads };
        let trainer = all.saturating_sub(engine).max(1);
        let split = (engine + trainer <= cores.len()).then(|| {
            let (first, rest) = cores.split_at(engine);
            Cores { engine: first.into(), trainer: rest[..trainer].into() }
        });
        Self { engine_threads: engine, trainer_threads: trainer, cores: split }
    }

    /// Puts this thread on the trainer's cores. Comes before anything is computed: the tensor library's threads start
    /// with the first operation, and inherit their place.
    ///
    /// # Errors
    /// When the system refuses the place.
    pub(super) fn settle_trainer(&self) -> Result<()> {
        self.cores.as_ref().map_or(Ok(()), |cores| settle_on(&cores.trainer))
    }

    /// Puts what `start` spawns on the engine's cores, and leaves this thread on the trainer's.
    ///
    /// # Errors
    /// Those of `start`, and when the system refuses the place.
    pub(super) fn beside_trainer<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(cores) = &self.cores else { return start() };
        settle_on(&cores.engine)?;
        let started = start();
        settle_on(&cores.trainer)?;
        started
    }

    /// Says in a line where the threads are.
    pub(super) fn describe(&self) -> String {
        let Self { engine_threads, trainer_threads, cores } = self;
        match cores {
            Some(Cores { engine, trainer }) => {
                format!("cores {} generate, {} train", list(engine), list(trainer))
            }
            None => format!(
                "{engine_threads} threads generate and {trainer_threads} train on the same cores"
            ),
        }
    }
}

/// Puts this thread, and every thread and program that it starts from now on, on so many of the cores it may run on (0:
/// all of them), each a physical core of its own as far as there are enough. Returns them.
///
/// # Errors
/// When there are not as many, or the system refuses the place.
pub(super) fn pin(threads: usize) -> Result<Vec<usize>> {
    let mut cores = available();
    ensure!(
        threads <= cores.len(),
        "--threads must be at most {}, the cores this process may run on, got {threads}",
        cores.len()
    );
    cores.sort_by_key(|&core| core != first_sibling(core));
    cores.truncate(if threads == 0 { cores.len() } else { threads });
    settle_on(&cores)?;
    Ok(cores)
}

/// Returns the cores this thread may run on, those that share a physical core next to each other.
fn available() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    let mut cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect();
    cores.sort_by_key(|&core| (first_sibling(core), core));
    cores
}

/// Returns the first hardware thread of a core's physical core; the core itself where the system does not say.
fn first_sibling(core: usize) -> usize {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(core)
}

fn settle_on(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on cores {}", list(cores)))
}

fn list(cores: &[usize]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_and_trainer_share_the_cores_out_where_there_are_enough() {
        let split = |threads, engine| {
            let placement = Placement::among(&[0, 4, 1, 5], threads, engine);
            placement.cores.map(|cores| (cores.engine, cores.trainer))
        };
        assert_eq!(split(0, 0), Some((vec![0, 4], vec![1, 5])));
        assert_eq!(split(0, 1), Some((vec![0], vec![4, 1, 5])));
        assert_eq!(split(3, 0), Some((vec![0, 4], vec![1])));
        assert_eq!(split(2, 1), Some((vec![0], vec![4])));
        // One core for both, or more threads than cores: the system decides.
        assert_eq!((split(6, 3), split(0, 4)), (None, None));
        let alone = Placement::among(&[0], 0, 0);
        assert_eq!((alone.engine_threads, alone.trainer_threads, alone.cores), (1, 1, None));
        // Nor is anything asked of a system that does not say which cores there are.
        let unknown = Placement::among(&[], 0, 0);
        assert_eq!((unknown.engine_threads, unknown.trainer_threads, unknown.cores), (1, 1, None));
    }

    #[test]
    fn what_is_measured_stays_on_its_cores() {
        let pinned = std::thread::spawn(|| {
            let all = available().len();
            let one = pin(1).expect("the core is our own");
            (all, one, available(), pin(2).unwrap_err().to_string())
        });
        let (all, one, after, error) = pinned.join().expect("does not panic");
        assert!(all >= 1 && one.len() == 1 && after == one, "{one:?} {after:?}");
        assert!(
            error.contains("--threads must be at most 1") && error.contains("got 2"),
            "{error}"
        );
    }

    #[test]
    fn what_is_started_inherits_its_place() {
        // On a thread of its own, whose place ends with it.
        let look = || Ok(std::thread::spawn(available).join().expect("does not panic"));
        let here = std::thread::spawn(move || {
            let cores = available();
            let placement = Placement::among(&cores, 2, 1);
            placement.settle_trainer().expect("the cores are our own");
            let engine = placement.beside_trainer(look).expect("the cores are our own");
            let failed = placement.beside_trainer(|| anyhow::bail!("no engine") as Result<()>);
            assert!(failed.is_err());
            (cores, engine, look().expect("looking does not fail"))
        });
        let (cores, engine, trainer) = here.join().expect("does not panic");
        if cores.len() > 1 {
            assert_eq!((engine, trainer), (vec![cores[0]], vec![cores[1]]));
        }
    }
}
