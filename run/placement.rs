//! Which cores generate and which train, so that neither waits for the other's.

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How a run's threads are shared out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// Threads of the engine.
    pub(super) engine_threads: usize,
    /// Threads of the trainer.
    pub(super) trainer_threads: usize,
    /// The cores of each, where there are enough for both at once.
    cores: Option<(Vec<usize>, Vec<usize>)>,
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
        let engine = if engine_threads == 0 { all.div_ceil(2) } else { engine_threads };
        let trainer = all.saturating_sub(engine).max(1);
        let split = (engine + trainer <= cores.len()).then(|| {
            let (first, rest) = cores.split_at(engine);
            (first.to_vec(), rest[..trainer].to_vec())
        });
        Self { engine_threads: engine, trainer_threads: trainer, cores: split }
    }

    /// Puts this thread on the trainer's cores, and on the engine's what `start` spawns: threads inherit their place.
    ///
    /// # Errors
    /// Those of `start`, and when the system refuses the place.
    pub(super) fn start_engine<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some((engine, trainer)) = &self.cores else { return start() };
        settle_on(engine)?;
        let started = start();
        settle_on(trainer)?;
        started
    }

    /// Says in a line where the threads are.
    pub(super) fn describe(&self) -> String {
        let Self { engine_threads, trainer_threads, cores } = self;
        match cores {
            Some((engine, trainer)) => {
                format!("cores {} generate, {} train", list(engine), list(trainer))
            }
            None => format!(
                "{engine_threads} threads generate and {trainer_threads} train on the same cores"
            ),
        }
    }
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
        let cores = [0, 4, 1, 5];
        let split = |threads, engine| Placement::among(&cores, threads, engine).cores;
        assert_eq!(split(0, 0), Some((vec![0, 4], vec![1, 5])));
        assert_eq!(split(0, 1), Some((vec![0], vec![4, 1, 5])));
        assert_eq!(split(3, 0), Some((vec![0, 4], vec![1])));
        assert_eq!(split(2, 1), Some((vec![0], vec![4])));
        // One core for both, or more threads than cores: the system decides.
        assert_eq!((split(6, 3), split(0, 4)), (None, None));
        let alone = Placement::among(&[0], 0, 0);
        assert_eq!((alone.engine_threads, alone.trainer_threads, alone.cores), (1, 1, None));
    }

    #[test]
    fn what_is_started_inherits_its_place() {
        let here = std::thread::spawn(|| {
            let cores = available();
            let placement = Placement::among(&cores, 2, 1);
            let there = placement
                .start_engine(|| Ok(std::thread::spawn(available).join().expect("does not panic")))
                .expect("the cores are our own");
            (cores, there, available())
        });
        let (cores, engine, trainer) = here.join().expect("does not panic");
        if cores.len() > 1 {
            assert_eq!((engine, trainer), (vec![cores[0]], vec![cores[1]]));
        }
    }
}
