//! Which weights serve, and how new ones take their place: all of them or none.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    engine::{Error, RefitMode, RefitReport},
    ffi::{
        allocator::prefer_huge_pages,
        memory::{Lease, Memory, Reading, Rewritable},
        team::Team,
    },
    model::ModelSpec,
    rollout::{Dtype, TensorSpec, WeightTensor, WeightVersion, Weights},
};

use super::{convert::convert, layers::Layers};

/// Bytes that one task converts.
const PIECE: usize = 1 << 18;

/// The weights now serving, and the buffer that the next copy goes into.
#[derive(Debug)]
pub(super) struct Serving {
    spec: ModelSpec,
    /// The format the transformer computes with.
    dtype: Dtype,
    deadline: Duration,
    weights: Weights,
    /// How often the weights had been written to when they came; more means that they moved. None before the first.
    writes: Option<u64>,
    layers: Layers,
    /// Where the weights lie, if they are a copy.
    buffer: Option<Buffer>,
    spare: Option<Buffer>,
}

/// Room for every tensor of the model.
#[derive(Debug)]
struct Buffer {
    lease: Lease,
    tensors: Vec<(TensorSpec, Rewritable)>,
}

/// What a refit needs besides the weights.
pub(super) struct Refit<'a> {
    pub(super) weights: &'a Weights,
    pub(super) mode: RefitMode,
    pub(super) checksum: bool,
    pub(super) team: &'a mut Team,
}

impl Serving {
    /// Takes the first weights: where they are if format and alignment allow, else as a copy.
    ///
    /// # Errors
    /// When they do not cover the model, or a number is not finite.
    pub(super) fn new(
        spec: ModelSpec,
        dtype: Dtype,
        deadline: Duration,
        weights: &Weights,
        team: &mut Team,
    ) -> Result<Self, Error> {
        weights.check_coverage(&spec.tensors()).map_err(|error| Error::Model(error.to_string()))?;
        let mut serving = Self {
            layers: Layers::new(&spec, weights),
            spec,
            dtype,
            deadline,
            weights: weights.clone(),
            writes: None,
            buffer: None,
            spare: None,
        };
        let fits = weights.iter().all(|(_, tensor)| misfit(tensor, dtype).is_none());
        if fits {
            in_huge_pages(weights);
        }
        let mode = if fits { RefitMode::Alias } else { RefitMode::Copy };
        serving.refit(Refit { weights, mode, checksum: false, team }).map_err(|error| {
            match error {
                // There is no older version that could go on serving.
                Error::Refit { tensor, reason, .. } => Error::Model(format!("{tensor}: {reason}")),
                other => other,
            }
        })?;
        Ok(serving)
    }

    /// Returns the weights now serving.
    pub(super) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Returns the weights in the order of computation.
    pub(super) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Waits for permission to read the weights.
    ///
    /// # Errors
    /// When a writer holds on past the deadline, or has written since the refit.
    pub(super) fn read(&self) -> Result<Reading, Error> {
        let reading = read(&self.weights, self.deadline)?;
        if Some(reading.writes()) == self.writes {
            Ok(reading)
        } else {
            Err(Error::WeightsMoved { version: self.weights.version() })
        }
    }

    /// Puts new weights in place.
    ///
    /// # Errors
    /// When they do not cover the model, cannot be used as `mode` says, or a number is not finite; then nothing has
    /// changed.
    pub(super) fn refit(&mut self, refit: Refit<'_>) -> Result<RefitReport, Error> {
        let start = Instant::now();
        let Refit { weights, mode, checksum, team } = refit;
        // Where these tensors serve already, only their numbers can be wrong.
        let again = mode == RefitMode::Alias && weights.is_alias_of(&self.weights);
        if !again {
            weights.check_coverage(&self.spec.tensors()).map_err(|source| Error::Coverage {
                version: weights.version(),
                serving: self.weights.version(),
                source,
            })?;
        }
        let reading = read(weights, self.deadline)?;
        let staged = match mode {
            RefitMode::Alias if again => self.stage_again(weights, &reading, team)?,
            RefitMode::Alias => self.stage_alias(weights, &reading, team)?,
            RefitMode::Copy => self.stage_copy(weights, &reading, team)?,
        };
        drop(reading);
        let checksum = if checksum {
            Some(staged.weights.checksum(&read(&staged.weights, self.deadline)?))
        } else {
            None
        };
        let bytes = if mode == RefitMode::Copy { staged.weights.bytes() } else { 0 };
        let tensors = staged.weights.iter().count();
        self.commit(staged);
        Ok(RefitReport {
            version: self.weights.version(),
            mode,
            seconds: start.elapsed().as_secs_f64(),
            bytes,
            tensors,
            checksum,
        })
    }

    /// Cannot fail: nothing after it may change its mind.
    fn commit(&mut self, staged: Staged) {
        if !staged.weights.is_alias_of(&self.weights) {
            self.layers = Layers::new(&self.spec, &staged.weights);
        }
        self.weights = staged.weights;
        self.writes = Some(staged.writes);
        if let Some(old) = std::mem::replace(&mut self.buffer, staged.buffer) {
            self.spare = Some(old);
        }
    }

    fn stage_alias(
        &self,
        weights: &Weights,
        reading: &Reading,
        team: &mut Team,
    ) -> Result<Staged, Error> {
        for (name, tensor) in weights.iter() {
            if let Some(reason) = misfit(tensor, self.dtype) {
                return Err(self.refused(weights.version(), name, reason));
            }
        }
        in_huge_pages(weights);
        self.stage_again(weights, reading, team)
    }

    /// Looks at the numbers, unless somebody did so since they were last written.
    fn stage_again(
        &self,
        weights: &Weights,
        reading: &Reading,
        team: &mut Team,
    ) -> Result<Staged, Error> {
        let staged = Staged { weights: weights.clone(), writes: reading.writes(), buffer: None };
        let seen = self.writes == Some(reading.writes()) && weights.is_alias_of(&self.weights);
        if seen || weights.is_found_finite(reading) {
            return Ok(staged);
        }
        let mut pieces = Vec::new();
        for (name, tensor) in weights.iter() {
            for (index, from) in tensor.memory.bytes(reading).chunks(PIECE).enumerate() {
                let first = index * PIECE / tensor.dtype.size();
                pieces.push(Piece { name, first, from, dtype: tensor.dtype, to: None });
            }
        }
        self.convert(weights.version(), &pieces, team)?;
        Ok(staged)
    }

    fn stage_copy(
        &mut self,
        weights: &Weights,
        reading: &Reading,
        team: &mut Team,
    ) -> Result<Staged, Error> {
        // The spare buffer may be what is being copied from: somebody kept weights that served before.
        let spare = self.spare.take().filter(|spare| !spare.lease.is(weights.lease()));
        let mut buffer = spare.unwrap_or_else(|| Buffer::new(&self.spec, self.dtype));
        let done = self.fill(&mut buffer, weights, reading, team);
        let writes = buffer.lease.writes();
        match done {
            Ok(()) => {
                let weights = buffer.weights(weights.version(), self.dtype);
                Ok(Staged { weights, writes, buffer: Some(buffer) })
            }
            Err(error) => {
                self.spare = Some(buffer);
                Err(error)
            }
        }
    }

    fn fill(
        &self,
        buffer: &mut Buffer,
        weights: &Weights,
        reading: &Reading,
        team: &mut Team,
    ) -> Result<(), Error> {
        let writing = buffer.lease.write(self.deadline).ok_or_else(|| {
            missed(self.deadline, "the readers of the engine's second weight buffer", weights)
        })?;
        let mut pieces = Vec::new();
        for (spec, room) in &mut buffer.tensors {
            let tensor = weights.get(&spec.name).expect("coverage was checked before");
            let from = tensor.memory.bytes(reading);
            let numbers = PIECE / 4;
            let targets = room.bytes_mut(&writing).chunks_mut(numbers * self.dtype.size());
            for (index, to) in targets.enumerate() {
                let first = index * numbers;
                let start = first * tensor.dtype.size();
                let end = (start + numbers * tensor.dtype.size()).min(from.len());
                let (from, to) = (&from[start..end], Some(Mutex::new(to)));
                pieces.push(Piece { name: &spec.name, first, from, dtype: tensor.dtype, to });
            }
        }
        self.convert(weights.version(), &pieces, team)
    }

    /// Converts all pieces, or says which number is the first that is not finite.
    fn convert(
        &self,
        version: WeightVersion,
        pieces: &[Piece<'_>],
        team: &mut Team,
    ) -> Result<(), Error> {
        let failed = AtomicUsize::new(usize::MAX);
        team.run(pieces.len(), &|_, index| {
            if pieces[index].convert(self.dtype).is_err() {
                failed.fetch_min(index, Ordering::Relaxed);
            }
        });
        let Some(piece) = pieces.get(failed.into_inner()) else { return Ok(()) };
        let offset = piece.convert(self.dtype).err().unwrap_or_default();
        let reason = format!("non-finite value at index {}", piece.first + offset);
        Err(self.refused(version, piece.name, reason))
    }

    fn refused(&self, version: WeightVersion, tensor: &str, reason: String) -> Error {
        let serving = self.weights.version();
        Error::Refit { version, serving, tensor: tensor.to_owned(), reason }
    }
}

/// New weights, checked and in place, that only need to be looked at.
struct Staged {
    weights: Weights,
    writes: u64,
    buffer: Option<Buffer>,
}

/// Some numbers of one tensor: a task.
struct Piece<'a> {
    name: &'a str,
    /// Index of the first number.
    first: usize,
    from: &'a [u8],
    dtype: Dtype,
    /// Where they go; nowhere for an alias. Each piece is one task's, so the lock is never waited for.
    to: Option<Mutex<&'a mut [u8]>>,
}

impl Piece<'_> {
    /// Fails with the index of the first number that is not finite.
    fn convert(&self, dtype: Dtype) -> Result<(), usize> {
        let mut to = self.to.as_ref().map(|to| to.lock().expect("no task panics with the lock"));
        convert(self.from, self.dtype, to.as_mut().map(|to| (&mut ***to, dtype)))
    }
}

impl Buffer {
    fn new(spec: &ModelSpec, dtype: Dtype) -> Self {
        let lease = Lease::default();
        let room = |tensor: TensorSpec| {
            let bytes = tensor.shape.iter().product::<usize>() * dtype.size();
            let room = Rewritable::zeroed(bytes, &lease);
            (tensor, room)
        };
        let tensors: Vec<_> = spec.tensors().into_iter().map(room).collect();
        prefer_huge_pages(tensors.iter().map(|(_, room)| place(room.memory())));
        Self { lease, tensors }
    }

    fn weights(&self, version: WeightVersion, dtype: Dtype) -> Weights {
        let tensor = |(spec, room): &(TensorSpec, Rewritable)| {
            let memory = room.memory().clone();
            (spec.name.clone(), WeightTensor { dtype, shape: spec.shape.clone(), memory })
        };
        let tensors: BTreeMap<_, _> = self.tensors.iter().map(tensor).collect();
        Weights::new(version, self.lease.clone(), tensors)
    }
}

/// Every step reads all weights from one end to the other.
fn in_huge_pages(weights: &Weights) {
    prefer_huge_pages(weights.iter().map(|(_, tensor)| place(&tensor.memory)));
}

/// Returns the addresses that memory takes up.
fn place(memory: &Memory) -> Range<usize> {
    memory.address()..memory.address() + memory.len()
}

/// Says why a tensor cannot be read where it is.
fn misfit(tensor: &WeightTensor, dtype: Dtype) -> Option<String> {
    if tensor.dtype != dtype {
        return Some(format!("an alias must be {dtype}, got {}", tensor.dtype));
    }
    (!tensor.memory.address().is_multiple_of(dtype.size()))
        .then(|| format!("an alias must be aligned to {} bytes", dtype.size()))
}

fn read(weights: &Weights, deadline: Duration) -> Result<Reading, Error> {
    let reading = weights.lease().read(deadline);
    reading.ok_or_else(|| missed(deadline, "the writer of the weights", weights))
}

fn missed(deadline: Duration, awaited: &str, weights: &Weights) -> Error {
    Error::Deadline {
        waiter: "the engine".into(),
        awaited: awaited.into(),
        seconds: deadline.as_secs_f64(),
        state: format!("weights of version {}", weights.version()),
    }
}
