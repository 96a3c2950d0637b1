//! The one thread that owns TensorRT-LLM's objects, and how long others wait for it.

use std::{sync::Arc, time::Duration};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use parking_lot::Mutex;

use crate::{
    engine::Error,
    ffi::tensorrt_llm::{self as ffi, Bindable, Executor, Plan},
};

/// Longest time a dropped driver waits for its thread. What is stuck then is leaked: nothing ends a call from outside.
const FAREWELL: Duration = Duration::from_secs(30);

/// What the thread owns, and a job of it works on.
#[derive(Default)]
pub(super) struct Seat {
    /// The running engine.
    pub(super) executor: Option<Executor>,
    /// A plan on its way to become the next executor.
    pub(super) plan: Option<Plan>,
    doing: Doing,
}

/// Which call the thread is in, for whoever waits in vain.
type Doing = Arc<Mutex<&'static str>>;

type Job = Box<dyn FnOnce(&mut Seat) + Send>;

impl Seat {
    /// Says which call comes now.
    pub(super) fn enter(&self, call: &'static str) {
        *self.doing.lock() = call;
    }

    /// Returns the running engine.
    ///
    /// # Errors
    /// When there is none, after a rebuild that failed.
    pub(super) fn executor(&mut self) -> Result<&mut Executor, ffi::Error> {
        self.executor.as_mut().ok_or_else(|| missing("there is no running engine"))
    }

    /// Returns what takes weights: the running engine, or a plan that is being made ready.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn target(&mut self, target: Target) -> Result<&mut dyn Bindable, ffi::Error> {
        match target {
            Target::Executor => Ok(self.executor()?),
            Target::Plan => {
                let plan = self.plan.as_mut().ok_or_else(|| missing("there is no plan"))?;
                Ok(plan)
            }
        }
    }
}

/// Which of a driver's objects takes weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The running engine.
    Executor,
    /// The plan that is being made ready.
    Plan,
}

fn missing(message: &str) -> ffi::Error {
    ffi::Error { call: "backend", status: ffi::Status::InvalidState, message: message.to_owned() }
}

/// Why a job gave no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The library said no.
    Call(ffi::Error),
    /// The thread is stuck or gone; so it stays.
    Lost(Error),
}

impl Failure {
    /// Returns the engine's error, the library being called so.
    pub(super) fn named(self, library: &str) -> Error {
        match self {
            Self::Call(error) => library_error(library, error),
            Self::Lost(error) => error,
        }
    }
}

/// Returns a library's refusal as an error of the engine.
pub(super) fn library_error(library: &str, error: ffi::Error) -> Error {
    let ffi::Error { call, message: reason, .. } = error;
    Error::Library { library: library.to_owned(), call: call.to_owned(), reason }
}

/// Hands jobs to the thread and waits for the answers, never longer than the deadline.
///
/// # Drop
/// Waits for the thread, but not longer than half a minute: a library that is stuck in a call is leaked.
pub(super) struct Driver {
    jobs: Option<Sender<Job>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    doing: Doing,
    deadline: Duration,
    /// Why no job is taken any more.
    lost: Option<Error>,
}

impl Driver {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(deadline: Duration) -> Result<Self, Error> {
        let (jobs, inbox) = unbounded::<Job>();
        let (end, ended) = bounded::<()>(0);
        let seat = Seat::default();
        let doing = seat.doing.clone();
        std::thread::Builder::new()
            .name("tensorrt-llm".into())
            .spawn(move || work(seat, &inbox, end))
            .map_err(|error| Error::Stopped(format!("its thread cannot start: {error}")))?;
        Ok(Self { jobs: Some(jobs), ended, doing, deadline, lost: None })
    }

    /// Returns why no job is taken any more, if so.
    pub(super) fn lost(&self) -> Option<&Error> {
        self.lost.as_ref()
    }

    /// Has a job done.
    ///
    /// # Errors
    /// [`Failure::Lost`] when it is not done within the deadline and the `extra` time that it waits by itself: then, and
    /// from then on.
    pub(super) fn call<T: Send + 'static>(
        &mut self,
        extra: Duration,
        job: impl FnOnce(&mut Seat) -> Result<T, ffi::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        if let Some(error) = &self.lost {
            return Err(Failure::Lost(Error::Stopped(error.to_string())));
        }
        let (answer, answered) = bounded(1);
        let job: Job = Box::new(move |seat| {
            // Nobody listens any more: the caller has given up on this thread.
            drop(answer.send(job(seat)));
        });
        if let Some(jobs) = &self.jobs {
            // A thread that is gone drops the job, and with it the channel that is listened to below.
            drop(jobs.send(job));
        }
        let patience = self.deadline + extra;
        let error = match answered.recv_timeout(patience) {
            Ok(result) => return result.map_err(Failure::Call),
            Err(RecvTimeoutError::Timeout) => self.timeout(patience),
            Err(RecvTimeoutError::Disconnected) => {
                let call = *self.doing.lock();
                Error::Stopped(format!("the thread of TensorRT-LLM panicked in {call}"))
            }
        };
        self.lost = Some(error.clone());
        Err(Failure::Lost(error))
    }

    fn timeout(&self, patience: Duration) -> Error {
        Error::Deadline {
            waiter: "the engine".into(),
            awaited: format!("TensorRT-LLM to end {}", self.doing.lock()),
            seconds: patience.as_secs_f64(),
            state: "it is given up: start the engine anew".into(),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.jobs = None;
        let patience = if self.lost.is_some() { Duration::ZERO } else { self.deadline };
        // Nothing is ever sent: either the thread ends, or it is stuck and stays behind with all it owns.
        let _ = self.ended.recv_timeout(patience.min(FAREWELL));
    }
}

/// Does jobs until the driver is dropped, then frees what the seat holds.
fn work(mut seat: Seat, inbox: &Receiver<Job>, end: Sender<()>) {
    for job in inbox {
        job(&mut seat);
    }
    seat.enter("its end");
    drop(seat);
    drop(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_hangs_is_given_up_and_named() {
        let mut driver = Driver::start(Duration::from_millis(20)).unwrap();
        let (release, wait) = bounded::<()>(0);
        let hang = move |seat: &mut Seat| {
            seat.enter("a commit");
            let _ = wait.recv();
            Ok(())
        };
        let Err(Failure::Lost(error)) = driver.call(Duration::ZERO, hang) else { panic!() };
        assert!(
            error.to_string().contains("waited 0.0 s for TensorRT-LLM to end a commit"),
            "{error}"
        );
        let again = driver.call(Duration::ZERO, |_| Ok(()));
        assert!(matches!(again, Err(Failure::Lost(Error::Stopped(_)))));
        drop(driver);
        drop(release);
    }

    #[test]
    fn a_panic_is_an_error_and_an_answer_is_an_answer() {
        let mut driver = Driver::start(Duration::from_secs(60)).unwrap();
        assert_eq!(driver.call(Duration::ZERO, |_| Ok(7)).unwrap(), 7);
        let refused = driver.call(Duration::ZERO, |seat| seat.executor().map(drop));
        assert!(matches!(refused, Err(Failure::Call(_))));
        let panicked = driver.call::<()>(Duration::ZERO, |_| panic!("as planned"));
        assert!(matches!(panicked, Err(Failure::Lost(Error::Stopped(_)))));
    }
}
