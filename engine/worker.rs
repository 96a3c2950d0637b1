//! The engine thread: commands in, `Backend::poll`, events out. No async runtime in here.
//!
//! Whatever happens to the backend, every caller hears of it: a failed step fails the requests in it; a panic, or
//! [`Error::Stopped`], ends the thread after the reason is left in [`Pulse`].

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, TryRecvError};
use parking_lot::Mutex;

use super::{
    Backend, Error, Event, RefitInFlight, RefitMode, RefitReport, Request, RequestId, Stats,
    StreamEvent, Verdict, assembly::Assembly, busy::BusyTimes,
};
use crate::rollout::Weights;

/// Names a call, from before the backend knows of it.
pub(super) type Ticket = u64;

/// Where the events of a request go. Dropped after the last one.
pub(super) type Sink = Box<dyn FnMut(Result<StreamEvent, Error>) + Send>;

/// A refit that was asked for.
pub(super) struct Refit {
    /// The new weights.
    pub(super) weights: Weights,
    /// How they get in.
    pub(super) mode: RefitMode,
    /// Whether to report a checksum.
    pub(super) checksum: bool,
    /// Where the answer goes.
    pub(super) reply: Box<dyn FnOnce(Result<RefitReport, Error>) + Send>,
}

/// A verdict on the latest refit, and where the answer goes.
pub(super) struct Conclusion {
    /// What came of the verification.
    pub(super) verdict: Verdict,
    /// Where the answer goes.
    pub(super) reply: Box<dyn FnOnce(Result<(), Error>) + Send>,
}

/// What a handle asks of the engine thread.
pub(super) enum Command {
    /// Answer a request.
    Submit(Ticket, Request, Sink),
    /// Forget a call; unknown ones are ignored.
    Cancel(Ticket),
    /// Put new weights in place.
    Refit(Refit),
    /// End the verification of a refit.
    Conclude(Conclusion),
}

/// Signs of life of the engine thread, for handles to look at.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    stats: Mutex<Stats>,
    notes: Mutex<Vec<String>>,
    busy: Mutex<BusyTimes>,
    /// Counts what the thread did: a caller that waits in vain sees whether anything moved.
    beats: AtomicU64,
    /// Why the thread ended.
    stopped: OnceLock<String>,
}

impl Pulse {
    /// Returns how busy the engine was after its latest step.
    pub(super) fn stats(&self) -> Stats {
        *self.stats.lock()
    }

    /// Takes what the backend said since this was last asked.
    pub(super) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock())
    }

    /// Takes when the backend was at work since this was last asked.
    pub(super) fn take_busy(&self) -> Vec<Range<Instant>> {
        self.busy.lock().take(Instant::now())
    }

    /// Returns a number that grows with everything the thread does.
    pub(super) fn beats(&self) -> u64 {
        // Relaxed: the number stands for itself, no other memory is read on its word.
        self.beats.load(Ordering::Relaxed)
    }

    /// Returns the error of an engine whose thread has ended.
    pub(super) fn stopped(&self) -> Error {
        let reason = self.stopped.get().map_or("its thread has ended", String::as_str);
        Error::Stopped(reason.to_owned())
    }

    /// Shows that something moved.
    pub(super) fn beat(&self, stats: Stats, notes: Vec<String>) {
        *self.stats.lock() = stats;
        if !notes.is_empty() {
            self.notes.lock().extend(notes);
        }
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the engine thread owns.
pub(super) struct Worker {
    backend: Box<dyn Backend>,
    commands: Receiver<Command>,
    pulse: Arc<Pulse>,
    in_flight: RefitInFlight,
    deadline: Duration,
    /// Calls that are being answered, by the backend's name for them.
    calls: HashMap<RequestId, (Ticket, Assembly, Sink)>,
    tickets: HashMap<Ticket, RequestId>,
    /// Refits that wait for requests in flight, and since when.
    refits: VecDeque<(Refit, Instant)>,
    events: Vec<Event>,
}

impl Worker {
    /// Prepares the thread's work.
    pub(super) fn new(
        mut backend: Box<dyn Backend>,
        commands: Receiver<Command>,
        pulse: Arc<Pulse>,
        config: &super::EngineConfig,
    ) -> Self {
        pulse.beat(backend.stats(), backend.take_notes());
        Self {
            backend,
            commands,
            pulse,
            in_flight: config.refit_in_flight,
            deadline: config.deadline(),
            calls: HashMap::new(),
            tickets: HashMap::new(),
            refits: VecDeque::new(),
            events: Vec::new(),
        }
    }

    /// Works until every handle is gone, or the backend cannot go on.
    pub(super) fn run(mut self) {
        let pulse = self.pulse.clone();
        // A backend that panicked is never called again, only dropped.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            while self.turn()? {}
            Ok(())
        }));
        let error = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => Error::Stopped(format!("its backend panicked: {}", message(&*panic))),
        };
        let reason = match &error {
            Error::Stopped(reason) => reason.clone(),
            other => other.to_string(),
        };
        // Set before the sinks are dropped: a caller whose channel closes finds the reason.
        pulse.stopped.get_or_init(|| reason);
        self.fail_calls(&error);
        for (refit, _) in self.refits.drain(..) {
            (refit.reply)(Err(error.clone()));
        }
    }

    /// Does what there is to do; `false` once every handle is gone.
    fn turn(&mut self) -> Result<bool, Error> {
        if !self.take_commands() {
            return Ok(false);
        }
        self.observe_busy();
        self.refit_if_possible();
        if let Err(error) = self.backend.poll(&mut self.events) {
            self.events.clear();
            if matches!(error, Error::Stopped(_)) {
                return Err(error);
            }
            self.fail_calls(&error);
        }
        self.observe_busy();
        self.deliver();
        self.beat();
        Ok(true)
    }

    fn observe_busy(&self) {
        self.pulse.busy.lock().observe(self.backend.is_busy(), Instant::now());
    }

    /// Shows how the backend is, and that something moved.
    fn beat(&mut self) {
        self.pulse.beat(self.backend.stats(), self.backend.take_notes());
    }

    /// Takes every command there is, waiting for one when idle; `false` once every handle is gone.
    fn take_commands(&mut self) -> bool {
        if !self.backend.is_busy() && self.refits.is_empty() {
            match self.commands.recv() {
                Ok(command) => self.take(command),
                Err(_) => return false,
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(ticket, request, mut sink) => match self.submit(request) {
                Ok((id, assembly)) => {
                    self.tickets.insert(ticket, id);
                    self.calls.insert(id, (ticket, assembly, sink));
                }
                Err(error) => sink(Err(error)),
            },
            Command::Cancel(ticket) => {
                if let Some(id) = self.tickets.remove(&ticket) {
                    self.calls.remove(&id);
                    self.backend.cancel(id);
                }
            }
            Command::Refit(refit) => self.refits.push_back((refit, Instant::now())),
            Command::Conclude(Conclusion { verdict, reply }) => {
                let concluded = self.backend.conclude_refit(verdict);
                self.beat();
                reply(concluded);
            }
        }
    }

    fn submit(&mut self, request: Request) -> Result<(RequestId, Assembly), Error> {
        // Checked before memory is set aside for its samples.
        request.sampling.validate()?;
        let assembly = Assembly::new(&request);
        Ok((self.backend.submit(request)?, assembly))
    }

    /// Commits the refits that wait, once nothing stands in their way.
    fn refit_if_possible(&mut self) {
        let drains = self.in_flight == RefitInFlight::Drain;
        while !self.refits.is_empty() {
            self.backend.hold_admission(drains);
            let late = self.refits[0].1.elapsed() >= self.deadline;
            if drains && !self.backend.is_drained() && !late {
                return;
            }
            let (refit, since) = self.refits.pop_front().expect("checked above");
            let result = if drains && !self.backend.is_drained() {
                Err(self.drain_deadline(&refit, since))
            } else {
                self.backend.refit(&refit.weights, refit.mode, refit.checksum)
            };
            // First, so that who hears of the refit finds its version in the statistics, and what was said about it.
            self.beat();
            (refit.reply)(result);
        }
        self.backend.hold_admission(false);
    }

    fn drain_deadline(&self, refit: &Refit, since: Instant) -> Error {
        let stats = self.backend.stats();
        Error::Deadline {
            waiter: format!("refit to version {}", refit.weights.version()),
            awaited: "requests in flight to end".into(),
            seconds: since.elapsed().as_secs_f64(),
            state: format!(
                "{} sequences are running; version {} goes on serving",
                stats.running, stats.version
            ),
        }
    }

    fn deliver(&mut self) {
        for event in self.events.drain(..) {
            let (Event::PromptLogprobs { id, .. }
            | Event::Token { id, .. }
            | Event::Finished { id, .. }
            | Event::Failed { id, .. }) = event;
            let Some((_, assembly, sink)) = self.calls.get_mut(&id) else { continue };
            let failed = matches!(event, Event::Failed { .. });
            if let Some(heard) = assembly.take(event) {
                sink(heard);
            }
            if failed || assembly.is_complete() {
                let (ticket, ..) = self.calls.remove(&id).expect("found above");
                self.tickets.remove(&ticket);
            }
        }
    }

    /// Tells every caller that its request is lost.
    fn fail_calls(&mut self, error: &Error) {
        self.tickets.clear();
        for (_, (_, _, mut sink)) in self.calls.drain() {
            sink(Err(error.clone()));
        }
    }
}

/// Returns what a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        EngineConfig,
        native::testing::{native, params, request, weights},
    };

    #[test]
    fn a_refit_that_cannot_drain_in_time_gives_up_and_lets_the_others_in() {
        let config = EngineConfig { threads: 1, deadline_seconds: 1e-9, ..EngineConfig::default() };
        let (commands, inbox) = crossbeam::channel::unbounded();
        let pulse = Arc::new(Pulse::default());
        let mut worker = Worker::new(Box::new(native(64, &config)), inbox, pulse.clone(), &config);
        let (ended, ends) = std::sync::mpsc::channel();
        let submit = |ticket| {
            let ended = ended.clone();
            let sink: Sink = Box::new(move |event| {
                if let Ok(StreamEvent::Finished(_)) = event {
                    ended.send(ticket).unwrap();
                }
            });
            let asked = request(ticket, 3, &params(|s| s.min_new_tokens = 8));
            commands.send(Command::Submit(ticket, asked, sink)).unwrap();
        };
        submit(0);
        worker.turn().unwrap();
        let (answer, report) = std::sync::mpsc::channel();
        let reply = Box::new(move |result| answer.send(result).unwrap());
        let refit = Refit { weights: weights(1), mode: RefitMode::Copy, checksum: false, reply };
        commands.send(Command::Refit(refit)).unwrap();
        submit(1);
        worker.turn().unwrap();
        let text = report.recv().unwrap().unwrap_err().to_string();
        assert!(text.starts_with("refit to version 1 waited "), "{text}");
        assert!(text.contains(" s for requests in flight"), "{text}");
        assert!(text.ends_with("1 sequences are running; version 0 goes on serving"), "{text}");
        for _ in 0..10 {
            commands.send(Command::Cancel(99)).unwrap();
            worker.turn().unwrap();
        }
        assert_eq!(ends.try_iter().collect::<Vec<_>>(), [0, 1]);
    }
}
