//! New weights, in place or by a rebuild, and what to do when they get in half way.
//!
//! Tier A binds memory to the live engine's tensors, once, and commits. Tier C (the names are those of the design notes)
//! binds to a plan that nothing runs, commits, serialises it, and lets it take the engine's place: slow, twice the memory,
//! and the way back from a commit that failed half way.

use std::{collections::HashMap, time::Instant};

use super::{
    backend::TensorRtLlm,
    coverage::Covered,
    driver::{Failure, Seat, Target},
    staging::{Offer, Source, Sources, Staging, data_type},
    state::Phase,
};
use crate::{
    engine::{Error, RefitMode, RefitReport},
    ffi::{
        memory::{Lease, Reading},
        tensorrt_llm::{self as ffi, Executor, Plan, Status, WeightInfo},
    },
    rollout::Weights,
};

/// Which way weights get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// Into the live engine.
    InPlace,
    /// Into a plan that takes the engine's place.
    Rebuild,
    /// Not at all: the engine serves what it was built with.
    None,
}

/// What refits remember from one to the next.
pub(super) struct Refitter {
    /// Which way weights get in.
    pub(super) tier: Tier,
    /// The live engine's tensors, once they were read.
    pub(super) covered: Option<Covered>,
    /// The weights of the latest refit.
    pub(super) latest: Option<Weights>,
    staging: Staging,
    /// Where the live engine's tensors are bound to.
    bound: HashMap<String, (usize, Lease)>,
}

/// Why weights did not get in.
enum Trouble {
    /// Nothing has changed.
    Before(Error),
    /// The engine may have some of them.
    Partial(String),
    /// The library is stuck in a call, or gone.
    Lost(Error),
}

impl Refitter {
    /// Begins with nothing bound.
    pub(super) fn new(tier: Tier) -> Self {
        Self {
            tier,
            covered: None,
            latest: None,
            staging: Staging::default(),
            bound: HashMap::new(),
        }
    }

    /// Forgets what it knew of a live engine that is no more.
    fn forget_engine(&mut self) {
        self.covered = None;
        self.bound.clear();
    }
}

impl TensorRtLlm {
    /// Puts new weights in place: all or nothing, or else the engine is poisoned until it gets some.
    ///
    /// # Errors
    /// Before anything changed: the old version goes on serving. After a commit that failed half way and a rebuild that
    /// failed too: the engine does not generate until a refit succeeds.
    pub(super) fn put_weights(
        &mut self,
        weights: &Weights,
        mode: RefitMode,
        checksum: bool,
    ) -> Result<RefitReport, Error> {
        let started = Instant::now();
        let coverage = weights.check_coverage(&self.parts.expected.spec.tensors());
        coverage.map_err(|source| Error::Coverage {
            version: weights.version(),
            serving: self.version,
            source,
        })?;
        self.fail_what_is_left();
        self.quiesce()?;
        let was = self.state.poisoned().map(str::to_owned);
        self.state.step(Phase::Refitting)?;
        let done = match (self.refitter.tier, &was) {
            (Tier::None, _) => Err(Trouble::Before(self.refused(
                weights,
                "the engine",
                "it was built without use_refit: build it anew",
            ))),
            (Tier::InPlace, None) => self.refit_in_place(weights, mode),
            (Tier::Rebuild, _) | (Tier::InPlace, Some(_)) => self.rebuild(weights, mode),
        };
        let done = match done {
            Err(Trouble::Partial(reason)) => self.recover(weights, mode, &reason),
            other => other,
        };
        match done {
            Ok(bytes) => {
                self.version = weights.version();
                self.refitter.latest = Some(weights.clone());
                self.state.step(Phase::Verifying)?;
                let checksum = if checksum { self.checksum(weights)? } else { None };
                let tensors = weights.iter().count();
                let seconds = started.elapsed().as_secs_f64();
                Ok(RefitReport { version: self.version, mode, seconds, bytes, tensors, checksum })
            }
            Err(Trouble::Before(error)) => {
                match was {
                    Some(reason) => self.state.poison(reason),
                    None => self.state.step(Phase::Serving)?,
                }
                Err(error)
            }
            Err(Trouble::Partial(reason)) => {
                let reason =
                    format!("the refit to version {} failed half way: {reason}", weights.version());
                self.state.poison(&reason);
                Err(self.error("refit", reason))
            }
            Err(Trouble::Lost(error)) => {
                self.state.poison(&error);
                Err(error)
            }
        }
    }

    /// Hashes the weights that were offered; those on a device stay unread.
    fn checksum(&self, weights: &Weights) -> Result<Option<String>, Error> {
        let on_host = |memory: &crate::ffi::memory::Memory| {
            memory.location() == crate::ffi::memory::Location::Host
        };
        if !weights.iter().all(|(_, tensor)| on_host(&tensor.memory)) {
            return Ok(None);
        }
        Ok(Some(weights.checksum(&self.read(weights)?)))
    }

    /// Puts weights into the live engine and returns the bytes that were copied for it.
    fn refit_in_place(&mut self, weights: &Weights, mode: RefitMode) -> Result<usize, Trouble> {
        if self.refitter.covered.is_none() {
            let infos = match self.call(|seat| list(seat, Target::Executor)) {
                Err(Failure::Call(error))
                    if error.status == Status::Unsupported && self.parts.may_rebuild =>
                {
                    return self.rebuild_from_now_on(weights, mode, &error);
                }
                listed => listed,
            };
            let covered = self.cover(infos, weights).map_err(Trouble::Before)?;
            self.note_fixed(&covered);
            self.refitter.covered = Some(covered);
        }
        let mut sources = self.sources(weights, mode).map_err(Trouble::Before)?;
        sources.list.extend(self.fixed_sources());
        let new: Vec<Source> =
            sources.list.iter().filter(|source| !self.is_bound(source)).cloned().collect();
        let bound: Vec<_> = new
            .iter()
            .map(|s| (s.name.clone(), (s.memory.address(), s.memory.lease().clone())))
            .collect();
        // Until the bind has succeeded nobody knows which of the names it reached.
        for (name, _) in &bound {
            self.refitter.bound.remove(name);
        }
        let done = self.call(move |seat| bind(seat, Target::Executor, &new));
        done.map_err(|failure| Trouble::Before(self.refit_error(weights, "a bind", failure)))?;
        self.refitter.bound.extend(bound);
        self.commit(Target::Executor, weights)?;
        Ok(sources.staged)
    }

    fn is_bound(&self, source: &Source) -> bool {
        let bound = self.refitter.bound.get(&source.name);
        bound.is_some_and(|(address, lease)| {
            *address == source.memory.address() && lease.is(source.memory.lease())
        })
    }

    /// Puts weights into a plan, and the plan into the engine's place; returns the bytes that were copied.
    fn rebuild(&mut self, weights: &Weights, mode: RefitMode) -> Result<usize, Trouble> {
        let (library, file) = (self.parts.library, self.parts.plan.clone());
        let loaded = self.call(move |seat| {
            seat.enter("a load of the plan");
            seat.plan = Some(Plan::load(library, &file)?);
            Ok(())
        });
        loaded
            .map_err(|failure| Trouble::Before(self.refit_error(weights, "the plan", failure)))?;
        let filled = self.fill_plan(weights, mode);
        let (plan, staged) = match filled {
            Ok(filled) => filled,
            Err(trouble) => {
                // Nothing runs it; the engine has not changed.
                drop(self.call(|seat| {
                    seat.enter("the end of a plan");
                    seat.plan = None;
                    Ok(())
                }));
                return Err(match trouble {
                    Trouble::Partial(reason) => {
                        Trouble::Before(self.refused(weights, "the plan", &reason))
                    }
                    before => before,
                });
            }
        };
        self.refitter.forget_engine();
        let (config, options) = (self.parts.config_json.clone(), self.parts.options.clone());
        let started = self.call(move |seat| {
            seat.enter("the end of an executor");
            seat.executor = None;
            seat.enter("the start of an executor");
            seat.executor = Some(Executor::from_plan(library, &plan, &config, &options)?);
            Ok(())
        });
        // The old engine is gone: there is no way back.
        started.map_err(|failure| match failure {
            Failure::Call(error) => Trouble::Partial(error.to_string()),
            Failure::Lost(error) => Trouble::Lost(error),
        })?;
        Ok(staged)
    }

    fn fill_plan(
        &mut self,
        weights: &Weights,
        mode: RefitMode,
    ) -> Result<(Vec<u8>, usize), Trouble> {
        let infos = self.call(|seat| list(seat, Target::Plan));
        let covered = self.cover(infos, weights).map_err(Trouble::Before)?;
        self.refitter.covered = Some(covered);
        let sources = self.sources(weights, mode).map_err(Trouble::Before)?;
        let list = [sources.list, self.fixed_sources()].concat();
        let bound = self.call(move |seat| bind(seat, Target::Plan, &list));
        bound.map_err(|failure| Trouble::Before(self.refit_error(weights, "a bind", failure)))?;
        self.commit(Target::Plan, weights)?;
        let serialized = self.call(|seat| {
            seat.enter("a serialisation");
            let bytes = seat.plan.as_mut().map(Plan::serialize).transpose()?;
            seat.plan = None;
            Ok(bytes.unwrap_or_default())
        });
        let plan = serialized
            .map_err(|failure| Trouble::Before(self.refit_error(weights, "the plan", failure)))?;
        Ok((plan, sources.staged))
    }

    /// Rebuilds an engine of which nobody knows what it holds.
    fn recover(
        &mut self,
        weights: &Weights,
        mode: RefitMode,
        reason: &str,
    ) -> Result<usize, Trouble> {
        if !self.parts.capabilities.contains(ffi::Capabilities::REBUILD) {
            return Err(Trouble::Partial(reason.to_owned()));
        }
        self.refitter.forget_engine();
        match self.rebuild(weights, mode) {
            Ok(bytes) => {
                self.notes.push(format!(
                    "{}: the refit to version {} failed half way ({reason}); the engine was rebuilt from its plan",
                    self.parts.name,
                    weights.version()
                ));
                Ok(bytes)
            }
            Err(Trouble::Before(error)) => {
                Err(Trouble::Partial(format!("{reason}; then the rebuild: {error}")))
            }
            Err(Trouble::Partial(error)) => {
                Err(Trouble::Partial(format!("{reason}; then the rebuild: {error}")))
            }
            Err(lost) => Err(lost),
        }
    }

    /// Takes the other way, for a live engine that turns out to take no weights.
    fn rebuild_from_now_on(
        &mut self,
        weights: &Weights,
        mode: RefitMode,
        why: &ffi::Error,
    ) -> Result<usize, Trouble> {
        self.notes.push(format!(
            "{}: the live engine cannot be refitted in place ({}); refits rebuild it from its plan",
            self.parts.name, why.message
        ));
        self.refitter.tier = Tier::Rebuild;
        self.rebuild(weights, mode)
    }

    /// Accounts for every tensor of an engine.
    fn cover(
        &mut self,
        infos: Result<Vec<WeightInfo>, Failure>,
        weights: &Weights,
    ) -> Result<Covered, Error> {
        let infos =
            infos.map_err(|failure| self.refit_error(weights, "the list of tensors", failure))?;
        let covered = self.parts.expected.cover(&infos);
        covered.map_err(|reason| self.refused(weights, "the list of tensors", &reason))
    }

    /// Finds the values of the network's constants. TensorRT wants them bound where they are combined with weights that are;
    /// those whose values the build did not leave keep what they have.
    fn fixed_sources(&self) -> Vec<Source> {
        let names = self.refitter.covered.iter().flat_map(|covered| &covered.fixed);
        let source = |name: &String| {
            let tensor = self.parts.fixed.get(name)?;
            let memory = tensor.memory.clone();
            Some(Source { name: name.clone(), dtype: tensor.dtype, memory })
        };
        names.filter_map(source).collect()
    }

    fn note_fixed(&mut self, covered: &Covered) {
        let unknown = covered.fixed.iter().filter(|name| self.parts.fixed.get(name).is_none());
        let unknown: Vec<&String> = unknown.collect();
        if let Some(first) = unknown.first() {
            let (count, name) = (unknown.len(), &self.parts.name);
            self.notes.push(format!(
                "{name}: constants of the network keep their values in refits: {count}, such as {first}"
            ));
        }
    }

    /// Finds where each engine tensor's new values lie, gathering those that lie otherwise.
    pub(super) fn sources(&mut self, weights: &Weights, mode: RefitMode) -> Result<Sources, Error> {
        let reading = self.read(weights)?;
        let offer = Offer {
            weights,
            reading: &reading,
            mode,
            dtype: self.parts.expected.dtype,
            capabilities: self.parts.capabilities,
        };
        let map = self.refitter.covered.as_ref().map(|covered| covered.map.as_slice());
        let map = map.unwrap_or_default();
        let sources = self.refitter.staging.sources(map, &offer, self.parts.deadline);
        sources.map_err(|(tensor, reason)| self.refused(weights, &tensor, &reason))
    }

    fn commit(&mut self, target: Target, weights: &Weights) -> Result<(), Trouble> {
        let readings = self.readings(weights).map_err(Trouble::Before)?;
        let done = self.call(move |seat| commit(seat, target, &readings));
        done.map_err(|failure| match failure {
            Failure::Call(ffi::Error { status, .. }) if !may_have_changed(status) => {
                Trouble::Before(self.refit_error(weights, "the commit", failure))
            }
            Failure::Call(error) => Trouble::Partial(error.to_string()),
            Failure::Lost(error) => Trouble::Lost(error),
        })
    }

    /// Returns permission to read all that may be bound.
    pub(super) fn readings(&self, weights: &Weights) -> Result<Vec<Reading>, Error> {
        let staged = self.refitter.staging.lease().read(self.parts.deadline);
        let staged =
            staged.ok_or_else(|| self.missed(weights, "the writer of the staging buffers"))?;
        Ok(vec![self.read(weights)?, staged, self.read(&self.parts.fixed)?])
    }

    fn read(&self, weights: &Weights) -> Result<Reading, Error> {
        let reading = weights.lease().read(self.parts.deadline);
        reading.ok_or_else(|| self.missed(weights, "the writer of the weights"))
    }

    fn missed(&self, weights: &Weights, awaited: &str) -> Error {
        Error::Deadline {
            waiter: "the engine".into(),
            awaited: awaited.into(),
            seconds: self.parts.deadline.as_secs_f64(),
            state: format!("weights of version {}", weights.version()),
        }
    }

    fn refit_error(&self, weights: &Weights, at: &str, failure: Failure) -> Error {
        match failure {
            Failure::Call(error) => self.refused(weights, at, &error.to_string()),
            Failure::Lost(error) => error,
        }
    }

    fn refused(&self, weights: &Weights, tensor: &str, reason: &str) -> Error {
        Error::Refit {
            version: weights.version(),
            serving: self.version,
            tensor: tensor.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// Says whether a commit that failed so may have left new values behind.
fn may_have_changed(status: Status) -> bool {
    !matches!(status, Status::InvalidArgument | Status::InvalidState | Status::Unsupported)
}

/// Lists an engine's tensors.
fn list(seat: &mut Seat, target: Target) -> Result<Vec<WeightInfo>, ffi::Error> {
    seat.enter("a list of tensors");
    seat.target(target)?.weights()
}

/// Binds tensors to their sources.
pub(super) fn bind(seat: &mut Seat, target: Target, list: &[Source]) -> Result<(), ffi::Error> {
    seat.enter("a bind");
    let bindable = seat.target(target)?;
    list.iter()
        .try_for_each(|source| bindable.bind(&source.name, data_type(source.dtype), &source.memory))
}

/// Commits what is bound.
pub(super) fn commit(
    seat: &mut Seat,
    target: Target,
    readings: &[Reading],
) -> Result<(), ffi::Error> {
    seat.enter("a commit");
    seat.target(target)?.commit(&readings.iter().collect::<Vec<_>>())
}
