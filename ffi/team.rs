//! A small team of threads for work measured in microseconds: workers spin for a moment before they sleep.
//!
//! A step of a small transformer is some twenty parallel regions of 5 to 50 µs each. A general pool spends as long
//! waking its workers as they then work; here a region costs about a microsecond while the team is warm, and a worker
//! that is asleep, or that the system has put aside, never holds a region up: who has not entered when the tasks are
//! done is shut out.

use std::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
};

/// How often a worker looks for the next region before it sleeps: some 50 µs.
const SPINS_BEFORE_SLEEP: u32 = 4_000;
/// How often the caller looks for the last worker before it gives its time slice away.
const SPINS_BEFORE_YIELD: u32 = 2_000;

const CLOSED: u64 = 1 << 31;
const INSIDE: u64 = CLOSED - 1;

type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Threads that share the tasks of one region after the other. The caller is one of them.
///
/// Dropping the team ends its threads.
#[derive(Debug)]
pub struct Team {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    threads: Vec<Thread>,
}

struct Job {
    task: *const Task<'static>,
    tasks: usize,
}

struct Shared {
    /// Region number (high 32 bits), whether the region is closed, how many workers are inside (low 31 bits).
    state: AtomicU64,
    /// The next task nobody has taken.
    next: AtomicUsize,
    /// Written by the caller while the region is closed and empty, read by workers inside.
    job: UnsafeCell<Job>,
    panicked: AtomicBool,
    stop: AtomicBool,
    asleep: Vec<AtomicBool>,
}

// SAFETY: `job` is written only by `Team::run` (which has `&mut Team`) while no worker is inside, and read only by
// workers inside; `state` orders the two. The task it points to is `Sync` and outlives the region.
unsafe impl Sync for Shared {}
// SAFETY: as for Sync.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

fn region(state: u64) -> u64 {
    state >> 32
}

impl Team {
    /// Starts a team of `threads`, the caller included.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let workers = threads.max(1) - 1;
        let nothing: &'static Task<'static> = &|_, _| {};
        let shared = Arc::new(Shared {
            state: AtomicU64::new(CLOSED),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(Job { task: nothing, tasks: 0 }),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            asleep: (0..workers).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut team = Self { shared, handles: Vec::new(), threads: Vec::new() };
        for worker in 0..workers {
            let shared = team.shared.clone();
            let handle = thread::Builder::new()
                .name(format!("engine-{}", worker + 1))
                .spawn(move || shared.work(worker))?;
            team.threads.push(handle.thread().clone());
            team.handles.push(handle);
        }
        Ok(team)
    }

    /// Returns the number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.handles.len() + 1
    }

    /// Calls `task(thread, index)` once for each index below `tasks`, on any thread and in any order. `thread` is
    /// below [`Team::threads`], and one thread does one task at a time.
    ///
    /// # Panics
    /// If a task panics.
    pub fn run(&mut self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if tasks <= 1 || self.handles.is_empty() {
            (0..tasks).for_each(|index| task(0, index));
            return;
        }
        let region = self.open(Job { task: erase(task), tasks });
        // Closes the region also when a task of ours panics: workers must be out before `task` goes away.
        let closing = Closing(&self.shared);
        for worker in 0..self.handles.len().min(tasks - 1) {
            // SeqCst, as are the stores: either we see the worker asleep, or it sees the new region.
            if self.shared.asleep[worker].swap(false, Ordering::SeqCst) {
                self.threads[worker].unpark();
            }
        }
        self.shared.take_tasks(0, task, tasks);
        drop(closing);
        debug_assert_eq!(region, self::region(self.shared.state.load(Ordering::Relaxed)));
        assert!(
            !self.shared.panicked.swap(false, Ordering::Relaxed),
            "a task of the team panicked"
        );
    }

    /// Cuts `data` into pieces of `size` (the last may be shorter) and calls `task(thread, index, piece)` for each.
    ///
    /// # Panics
    /// If `size` is 0, or a task panics.
    pub fn pieces<T: Send>(
        &mut self,
        data: &mut [T],
        size: usize,
        task: impl Fn(usize, usize, &mut [T]) + Sync,
    ) {
        let (len, tasks) = (data.len(), data.len().div_ceil(size));
        let data = Disjoint::new(data);
        self.run(tasks, &|thread, index| {
            let range = index * size..((index + 1) * size).min(len);
            // SAFETY: each index comes once, and the ranges of different indices do not overlap.
            task(thread, index, unsafe { data.part(range) });
        });
    }

    fn open(&mut self, job: Job) -> u64 {
        // SAFETY: the last region is closed and empty (`Closing`), and a worker reads the job only inside a region.
        unsafe { *self.shared.job.get() = job };
        self.shared.next.store(0, Ordering::Relaxed);
        let next = (region(self.shared.state.load(Ordering::Relaxed)) + 1) & u64::from(u32::MAX);
        // Publishes job and next (release), and orders us against workers going to sleep (SeqCst).
        self.shared.state.store(next << 32, Ordering::SeqCst);
        next
    }
}

/// Forgets how long a task lives.
fn erase(task: &Task<'_>) -> *const Task<'static> {
    let task: *const Task<'_> = task;
    // SAFETY: only the lifetime changes, in a pointer that workers follow inside the region, which `run` outlives.
    unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // A new region, closed from the start, so that waiting workers look up.
        let next = (region(self.shared.state.load(Ordering::Relaxed)) + 1) & u64::from(u32::MAX);
        self.shared.state.store(next << 32 | CLOSED, Ordering::SeqCst);
        self.threads.iter().for_each(Thread::unpark);
        for handle in self.handles.drain(..) {
            // Workers catch the panics of tasks, so there is nothing to hear here.
            let _ = handle.join();
        }
    }
}

/// Shuts the region and waits until the last worker has left it.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        // Acquire pairs with the release in `leave`: what the workers wrote is seen by the caller.
        let mut state = self.0.state.fetch_or(CLOSED, Ordering::AcqRel);
        let mut spins = 0;
        while state & INSIDE != 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD {
                std::hint::spin_loop()
            } else {
                thread::yield_now()
            }
            state = self.0.state.load(Ordering::Acquire);
        }
    }
}

impl Shared {
    fn work(&self, worker: usize) {
        let mut seen = 0;
        loop {
            seen = self.next_region(worker, seen);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if self.enter(seen) {
                let job = self.job.get();
                // SAFETY: we are inside, so the caller does not write the job before we leave.
                let Job { task, tasks } = unsafe { &*job };
                // SAFETY: the task lives until the region is empty, and we are inside.
                let task = unsafe { &**task };
                let done = AssertUnwindSafe(|| self.take_tasks(worker + 1, task, *tasks));
                if catch_unwind(done).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
                // Release: the caller, who waits for us to leave, sees what we wrote.
                self.state.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Waits for a region other than the one seen last.
    fn next_region(&self, worker: usize, seen: u64) -> u64 {
        for _ in 0..SPINS_BEFORE_SLEEP {
            let now = region(self.state.load(Ordering::Acquire));
            if now != seen {
                return now;
            }
            std::hint::spin_loop();
        }
        loop {
            self.asleep[worker].store(true, Ordering::SeqCst);
            let now = region(self.state.load(Ordering::SeqCst));
            if now != seen {
                self.asleep[worker].store(false, Ordering::Relaxed);
                return now;
            }
            thread::park();
        }
    }

    /// Counts us in, unless the region is over.
    fn enter(&self, seen: u64) -> bool {
        let open = |state| (region(state) == seen && state & CLOSED == 0).then_some(state + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, open).is_ok()
    }

    fn take_tasks(&self, thread: usize, task: &Task<'_>, tasks: usize) {
        loop {
            // Relaxed: who takes which task carries no data.
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= tasks {
                return;
            }
            task(thread, index);
        }
    }
}

/// A slice whose parts are written by different tasks.
#[derive(Debug)]
pub struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are handed out under the promise of `part` that they do not overlap, so sharing the whole between
// threads is sending its parts to them.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: it stands for a `&mut [T]`, which is Send.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Takes the slice over, for as long as its parts are in use.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// Returns a part of the slice.
    ///
    /// # Panics
    /// If the range lies outside the slice.
    ///
    /// # Safety
    /// No other part that is in use at the same time overlaps the range.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the caller promises that parts do not overlap")]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a part within the slice");
        // SAFETY: the range lies within the slice, as just checked.
        let start = unsafe { self.start.add(range.start) };
        // SAFETY: the slice is borrowed mutably for 'a, and the caller promised that no part in use overlaps this one.
        unsafe { std::slice::from_raw_parts_mut(start, range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_exactly_once() {
        for threads in [1, 2, 4] {
            let mut team = Team::new(threads).unwrap();
            for tasks in [0, 1, 2, 3, 17, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                team.run(tasks, &|thread, index| {
                    assert!(thread < threads);
                    counts[index].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn what_tasks_write_is_seen_after_the_region_however_often_it_is_repeated() {
        let mut team = Team::new(3).unwrap();
        let mut data = vec![0u64; 64];
        for round in 1..2_000 {
            team.pieces(&mut data, 5, |_, _, piece| piece.iter_mut().for_each(|x| *x += 1));
            assert!(data.iter().all(|&x| x == round));
            if round % 500 == 0 {
                // Long enough for the workers to fall asleep.
                thread::sleep(std::time::Duration::from_millis(2));
            }
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_team_goes_on() {
        let mut team = Team::new(2).unwrap();
        let run = |team: &mut Team, bad: usize| {
            catch_unwind(AssertUnwindSafe(|| team.run(8, &|_, index| assert_ne!(index, bad))))
        };
        assert!(run(&mut team, 3).is_err());
        assert!(run(&mut team, 99).is_ok());
    }
}
