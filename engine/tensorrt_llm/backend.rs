//! The backend: requests in, polls of the executor, events out.

use std::time::{Duration, Instant};

use super::{
    asked::{Asked, Rules},
    coverage::Expected,
    driver::{Driver, Failure, Seat, library_error},
    refit::Refitter,
    requests::{Job, Table},
    state::{Phase, State},
    statistics::Iteration,
};
use crate::{
    engine::{Backend, Error, Event, RefitMode, RefitReport, Request, RequestId, Stats, Verdict},
    ffi::tensorrt_llm::{self as ffi, Capabilities, ExecutorOptions, Library, Response},
    rollout::{WeightVersion, Weights},
};

/// Longest time a poll waits for responses. New requests and cancels wait as long.
const POLL: Duration = Duration::from_millis(5);

/// How often statistics are read while requests are in flight.
const STATS_EVERY: Duration = Duration::from_millis(200);

/// Without a new iteration for so long, an executor that has answered every request is idle, whatever its latest
/// statistics say: they may be those of the iteration that ended the last request.
const SETTLED: Duration = Duration::from_millis(500);

/// What a backend is made of, once everything was checked.
pub(super) struct Parts {
    /// Which implementation.
    pub(super) library: Library,
    /// What it is called in errors.
    pub(super) name: String,
    /// What it can do.
    pub(super) capabilities: Capabilities,
    /// What requests are checked against.
    pub(super) rules: Rules,
    /// What the engine's tensors must be.
    pub(super) expected: Expected,
    /// How executors are set up.
    pub(super) options: ExecutorOptions,
    /// The network's constants, by the engine's names.
    pub(super) fixed: Weights,
    /// Where the plan lies that refits start from.
    pub(super) plan: std::path::PathBuf,
    /// The engine directory.
    pub(super) engine_dir: std::path::PathBuf,
    /// The text of its config.json.
    pub(super) config_json: String,
    /// Whether an engine that takes no weights where it runs may be rebuilt instead.
    pub(super) may_rebuild: bool,
    /// Longest wait without a sign of life.
    pub(super) deadline: Duration,
}

/// A generation engine over TensorRT-LLM's executor, or over the contract double.
///
/// # Drop
/// Waits for the library to end, but not longer than half a minute.
pub struct TensorRtLlm {
    pub(super) parts: Parts,
    pub(super) driver: Driver,
    pub(super) table: Table,
    pub(super) state: State,
    pub(super) refitter: Refitter,
    pub(super) version: WeightVersion,
    pub(super) notes: Vec<String>,
    /// Events of a drain, for the next poll.
    pending: Vec<Event>,
    /// What ended requests during a drain, for the next poll.
    failed: Option<Error>,
    held: bool,
    next: u64,
    stats: Stats,
    iteration: Option<Iteration>,
    stats_read: Instant,
    /// When the executor last did something for a request of ours.
    heard: Instant,
    strays: u64,
    /// Whether it was said that the statistics cannot be had.
    stats_failed: bool,
}

/// What came of one exchange with the executor.
struct Exchange {
    enqueued: Vec<(Job, Result<u64, ffi::Error>)>,
    responses: Result<Vec<Response>, ffi::Error>,
    stats: Option<Result<Option<String>, ffi::Error>>,
}

impl TensorRtLlm {
    /// Puts the parts together, before there is an executor.
    pub(super) fn new(parts: Parts, driver: Driver, table: Table, refitter: Refitter) -> Self {
        Self {
            parts,
            driver,
            table,
            state: State::new(),
            refitter,
            version: WeightVersion::default(),
            notes: Vec::new(),
            pending: Vec::new(),
            failed: None,
            held: false,
            next: 0,
            stats: Stats::default(),
            iteration: None,
            stats_read: Instant::now(),
            heard: Instant::now(),
            strays: 0,
            stats_failed: false,
        }
    }

    /// Has the thread that owns the library do something.
    pub(super) fn call<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut Seat) -> Result<T, ffi::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        self.driver.call(Duration::ZERO, job)
    }

    /// Returns an error of the library's own words.
    pub(super) fn error(&self, call: &str, reason: impl ToString) -> Error {
        Error::Library {
            library: self.parts.name.clone(),
            call: call.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// Checks that the engine may generate.
    fn check_usable(&self) -> Result<(), Error> {
        if let Some(error) = self.driver.lost() {
            return Err(Error::Stopped(error.to_string()));
        }
        match self.state.poisoned() {
            None => Ok(()),
            Some(why) => Err(self.error("generate", format!("not before a refit succeeds: {why}"))),
        }
    }

    /// Sends what waits, and takes in what has come.
    fn turn(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        events.append(&mut self.pending);
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.is_busy() { self.pump(events) } else { Ok(()) }
    }

    /// Does one exchange with the executor.
    fn pump(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        self.check_usable()?;
        let jobs = self.admitted();
        if jobs.is_empty() && self.table.flights() == 0 {
            return Ok(());
        }
        if self.table.flights() == 0 {
            self.heard = Instant::now();
        }
        let exchange = self.exchange(jobs).map_err(|failure| failure.named(&self.parts.name))?;
        for (job, enqueued) in exchange.enqueued {
            match enqueued {
                Ok(engine_id) => {
                    if job.first == 0 {
                        let prompt = job.asked.request.prompt.tokens.ids().len();
                        self.stats.prompt_tokens += prompt as u64;
                    }
                    self.table.enqueued(engine_id, job, events);
                }
                Err(error) => {
                    let error = library_error(&self.parts.name, error);
                    self.table.fail(job.id, error, events);
                }
            }
        }
        let responses = exchange.responses.map_err(|e| library_error(&self.parts.name, e))?;
        self.take(&responses, events);
        if let Some(stats) = exchange.stats {
            self.take_stats(stats);
        }
        self.check_heard()
    }

    /// Takes as many jobs out of the queue as the executor has room for.
    fn admitted(&mut self) -> Vec<(Job, ffi::Request)> {
        let mut jobs = Vec::new();
        let mut sequences = 0;
        while !self.held
            && let Some(job) = self.table.admit(sequences)
        {
            sequences += job.count as usize;
            let request = job.asked.to_executor((job.first, job.count), self.version, self.salt());
            jobs.push((job, request));
        }
        jobs
    }

    /// Returns the salt that keeps KV blocks of other weights away. Never 0, which is none.
    fn salt(&self) -> u64 {
        if self.parts.options.block_reuse { self.version.0 + 1 } else { 0 }
    }

    fn exchange(&mut self, jobs: Vec<(Job, ffi::Request)>) -> Result<Exchange, Failure> {
        let cancels = self.table.take_cancels();
        let wants_stats = self.stats_read.elapsed() >= STATS_EVERY;
        self.driver.call(POLL, move |seat| {
            seat.enter("a cancel");
            for request in cancels {
                seat.executor()?.cancel(request)?;
            }
            seat.enter("an enqueue");
            let mut enqueued = Vec::with_capacity(jobs.len());
            for (job, request) in jobs {
                enqueued.push((job, seat.executor()?.enqueue(&request)));
            }
            seat.enter("a wait for responses");
            let responses = seat.executor()?.await_responses(POLL);
            seat.enter("a look at the statistics");
            let stats = if wants_stats { Some(seat.executor()?.stats()) } else { None };
            Ok(Exchange { enqueued, responses, stats })
        })
    }

    fn take(&mut self, responses: &[Response], events: &mut Vec<Event>) {
        let before = events.len();
        for response in responses {
            if self.table.take(response, self.version, events) {
                self.heard = Instant::now();
            }
        }
        let tokens = events[before..].iter().filter(|event| matches!(event, Event::Token { .. }));
        self.stats.generated_tokens += tokens.count() as u64;
        if self.strays == 0 && self.table.strays() > 0 {
            let stray =
                "a response came for a request that nobody made, or after its end: passed over";
            self.notes.push(format!("{}: {stray}, as will be others", self.parts.name));
        }
        self.strays = self.table.strays();
    }

    fn take_stats(&mut self, stats: Result<Option<String>, ffi::Error>) {
        self.stats_read = Instant::now();
        let failed = match stats.map(|json| json.map(|json| Iteration::parse(&json))) {
            Ok(None) => return,
            Ok(Some(Ok(iteration))) => {
                self.iteration = Some(iteration);
                return;
            }
            Ok(Some(Err(error))) => self.error("statistics", error),
            Err(error) => library_error(&self.parts.name, error),
        };
        if !std::mem::replace(&mut self.stats_failed, true) {
            self.notes.push(format!("{failed}: it is not said again"));
        }
    }

    /// Gives up on an executor that has requests and does nothing for them.
    fn check_heard(&mut self) -> Result<(), Error> {
        if self.table.flights() == 0 || self.heard.elapsed() < self.parts.deadline {
            return Ok(());
        }
        let error = Error::Deadline {
            waiter: "the engine".into(),
            awaited: format!("responses of TensorRT-LLM to {} requests", self.table.flights()),
            seconds: self.heard.elapsed().as_secs_f64(),
            state: format!("{} sequences wait; the engine needs a refit", self.table.waiting()),
        };
        self.state.poison(&error);
        self.table.abandon();
        Err(error)
    }

    /// Forgets requests of an executor that must not generate; the next poll says why.
    pub(super) fn fail_what_is_left(&mut self) {
        if let Err(error) = self.check_usable()
            && (self.table.flights() > 0 || self.table.waiting() > 0)
        {
            self.table.abandon();
            self.failed = Some(error);
        }
    }

    /// Brings what is in flight to its end and sees that the executor has nothing more to do. Events are kept for the next
    /// poll.
    ///
    /// # Errors
    /// When it takes longer than the deadline: the engine generates on as before.
    pub(super) fn quiesce(&mut self) -> Result<(), Error> {
        if matches!(self.state.phase(), Phase::Poisoned | Phase::Quiesced) {
            return Ok(());
        }
        let before = self.state.phase();
        self.state.step(Phase::Draining)?;
        let held = std::mem::replace(&mut self.held, true);
        let drained = self.drain().and_then(|()| self.settle());
        self.held = held;
        if self.state.phase() == Phase::Draining {
            self.state.step(if drained.is_ok() { Phase::Quiesced } else { before })?;
        }
        drained
    }

    fn drain(&mut self) -> Result<(), Error> {
        let since = Instant::now();
        while self.table.flights() > 0 {
            if since.elapsed() >= self.parts.deadline {
                return Err(Error::Deadline {
                    waiter: "a refit".into(),
                    awaited: "requests in flight to end".into(),
                    seconds: since.elapsed().as_secs_f64(),
                    state: format!("{} requests are in flight", self.table.flights()),
                });
            }
            let mut events = Vec::new();
            let pumped = self.pump(&mut events);
            self.pending.append(&mut events);
            if let Err(error) = pumped {
                self.table.clear();
                self.failed = Some(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits until the statistics say that nothing is active and nothing queued.
    fn settle(&mut self) -> Result<(), Error> {
        let (since, mut newest, mut changed) = (Instant::now(), None, Instant::now());
        loop {
            let stats = self.call(|seat| {
                seat.enter("a look at the statistics");
                seat.executor()?.stats()
            });
            let stats = stats.map_err(|failure| failure.named(&self.parts.name))?;
            self.take_stats(Ok(stats));
            let Some(iteration) = self.iteration else { return Ok(()) };
            if iteration.is_idle() {
                return Ok(());
            }
            if newest != Some(iteration.iter) {
                (newest, changed) = (Some(iteration.iter), Instant::now());
            }
            if changed.elapsed() >= SETTLED {
                return Ok(());
            }
            if since.elapsed() >= self.parts.deadline {
                return Err(Error::Deadline {
                    waiter: "a refit".into(),
                    awaited: "TensorRT-LLM to have nothing to do".into(),
                    seconds: since.elapsed().as_secs_f64(),
                    state: format!(
                        "iteration {} has {} active and {} queued requests",
                        iteration.iter,
                        iteration.num_active_requests,
                        iteration.num_queued_requests
                    ),
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Takes requests for the engine's own use, past the queue, and answers them. Only while nothing else is in flight.
    pub(super) fn answer(&mut self, requests: Vec<Request>) -> Result<Vec<Event>, Error> {
        debug_assert_eq!(self.table.flights(), 0, "the probe has the engine to itself");
        let mut jobs = Vec::new();
        for request in requests {
            let asked = std::sync::Arc::new(Asked::new(request, &self.parts.rules)?);
            let id = self.next_id();
            let salt = self.next;
            let salt = if self.parts.options.block_reuse { u64::MAX - salt } else { 0 };
            let request = asked.to_executor((0, 1), self.version, salt);
            jobs.push((Job { id, asked, first: 0, count: 1 }, request));
        }
        let mut events = Vec::new();
        self.heard = Instant::now();
        let exchange = self.exchange(jobs).map_err(|failure| failure.named(&self.parts.name))?;
        for (job, enqueued) in exchange.enqueued {
            let engine_id = enqueued.map_err(|e| library_error(&self.parts.name, e))?;
            self.table.enqueued(engine_id, job, &mut events);
        }
        let responses = exchange.responses.map_err(|e| library_error(&self.parts.name, e))?;
        self.take(&responses, &mut events);
        let held = std::mem::replace(&mut self.held, true);
        let mut done = Ok(());
        while self.table.flights() > 0 && done.is_ok() {
            done = self.pump(&mut events);
        }
        self.held = held;
        done.map(|()| events)
    }

    fn next_id(&mut self) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        id
    }
}

impl Backend for TensorRtLlm {
    fn submit(&mut self, request: Request) -> Result<RequestId, Error> {
        self.check_usable()?;
        let asked = Asked::new(request, &self.parts.rules)?;
        let id = self.next_id();
        self.table.push(id, asked);
        Ok(id)
    }

    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let started = Instant::now();
        let result = self.turn(events);
        if result.is_err() {
            self.table.clear();
            if self.check_usable().is_err() {
                self.table.abandon();
            }
        }
        self.stats.busy_seconds += started.elapsed().as_secs_f64();
        result
    }

    fn cancel(&mut self, id: RequestId) {
        self.table.cancel(id);
    }

    fn is_busy(&self) -> bool {
        let waits = !self.pending.is_empty() || self.failed.is_some();
        waits || self.table.flights() > 0 || self.table.waiting() > 0
    }

    fn is_drained(&self) -> bool {
        self.table.flights() == 0
    }

    fn hold_admission(&mut self, hold: bool) {
        self.held = hold;
    }

    fn refit(
        &mut self,
        weights: &Weights,
        mode: RefitMode,
        checksum: bool,
    ) -> Result<RefitReport, Error> {
        self.put_weights(weights, mode, checksum)
    }

    fn conclude_refit(&mut self, verdict: Verdict) -> Result<(), Error> {
        match verdict {
            Verdict::Agrees if self.state.phase() == Phase::Verifying => {
                self.state.step(Phase::Serving)
            }
            Verdict::Agrees => Ok(()),
            Verdict::Differs { reason, prompts, tokens } => {
                let stale = self.probe(&prompts, tokens);
                let error = Error::Canary { version: self.version, reason, stale };
                self.state.poison(&error);
                Err(error)
            }
        }
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn stats(&self) -> Stats {
        let kv = self.iteration.unwrap_or_default().kv_cache_stats;
        Stats {
            waiting: self.table.waiting(),
            running: self.table.in_executor(),
            kv_blocks_used: kv.used_num_blocks as usize,
            kv_blocks_total: kv.max_num_blocks as usize,
            engine_steps: self.iteration.map_or(0, |iteration| iteration.iter),
            version: self.version,
            ..self.stats
        }
    }
}
