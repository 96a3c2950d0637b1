//! Binding and committing, the same for a live engine and a plan.

use std::pin::Pin;

use super::{
    DataType, Error, Status, WeightInfo,
    bridge::{self, Weight},
    contract,
    streams::RefitStream,
};
use crate::ffi::memory::{Location, Memory, Reading};

/// The memory that a refitter may read at its next commit, kept alive. Dropped after the refitter.
#[derive(Debug, Default)]
pub(super) struct Bound {
    memory: Vec<(String, Memory)>,
    stream: Option<RefitStream>,
}

impl Bound {
    /// See [`Bindable::bind`](super::Bindable::bind).
    pub(super) fn bind(
        &mut self,
        refit: Pin<&mut bridge::Refit>,
        name: &str,
        dtype: DataType,
        values: &Memory,
    ) -> Result<(), Error> {
        let count = count(name, dtype, values)?;
        let location = self.location(values)?;
        let start = values.address() as *const u8;
        // SAFETY: `start` points at `count` values of that type, which `from_raw`'s caller promised to stay in place while
        // `values` lives: `keep` holds a clone until the name is bound anew, and the owner drops the refitter first.
        let bound = unsafe { refit.bind(name, dtype.into(), start, count, location) }
            .map_err(|thrown| Error::thrown("bind", &thrown));
        self.keep(name, values, bound.as_ref().err().map(|error| error.status));
        bound
    }

    /// See [`Bindable::commit`](super::Bindable::commit).
    pub(super) fn commit(
        &self,
        refit: Pin<&mut bridge::Refit>,
        readings: &[&Reading],
    ) -> Result<(), Error> {
        for (name, memory) in &self.memory {
            let covered = readings.iter().any(|reading| reading.covers(memory));
            assert!(covered, "{name} is bound to memory whose lease is not among the readings");
        }
        let stream = match &self.stream {
            Some(stream) => stream.after_the_trainer()?,
            None => 0,
        };
        // SAFETY: every bound memory is alive (`keep`), and no writer is at work on it: its lease is held for reading. The
        // stream is ours, and lives as long as `self`.
        unsafe { refit.commit(stream) }.map_err(|thrown| Error::thrown("commit", &thrown))
    }

    /// Says where the values lie in the contract's words, and opens the refit's stream for the first on a device.
    fn location(&mut self, values: &Memory) -> Result<i32, Error> {
        let Location::Cuda(device) = values.location() else {
            return Ok(contract::RF_HOST as i32);
        };
        match &self.stream {
            None => self.stream = Some(RefitStream::on(device)?),
            Some(stream) if stream.device() != device => {
                let first = stream.device();
                return Err(Error::argument(
                    "bind",
                    format!(
                        "weights must lie on one device, got CUDA devices {first} and {device}"
                    ),
                ));
            }
            Some(_) => {}
        }
        Ok(contract::RF_DEVICE as i32)
    }

    /// Keeps what the refitter may read from now on. After a failure that says "nothing was done" that is what it was
    /// before; after any other, both.
    fn keep(&mut self, name: &str, values: &Memory, failure: Option<Status>) {
        match failure {
            Some(Status::InvalidArgument | Status::InvalidState | Status::Unsupported) => return,
            Some(_) => {}
            None => self.memory.retain(|(bound, _)| bound != name),
        }
        self.memory.push((name.to_string(), values.clone()));
    }
}

/// Lists the refittable tensors.
pub(super) fn weights(refit: Pin<&mut bridge::Refit>) -> Result<Vec<WeightInfo>, Error> {
    let found = refit.weights().map_err(|thrown| Error::thrown("weights", &thrown))?;
    found.into_iter().map(WeightInfo::try_from).collect()
}

impl TryFrom<Weight> for WeightInfo {
    type Error = Error;

    fn try_from(Weight { name, dtype, count }: Weight) -> Result<Self, Error> {
        let count = usize::try_from(count).map_err(|_| Error {
            call: "weights",
            status: Status::Internal,
            message: format!("{name} has {count} elements"),
        })?;
        Ok(Self { name, dtype: dtype.into(), count })
    }
}

/// Returns the number of elements in the memory.
fn count(name: &str, dtype: DataType, values: &Memory) -> Result<i64, Error> {
    let size = match dtype {
        DataType::F32 => 4,
        DataType::F16 | DataType::Bf16 => 2,
        DataType::Other(number) => {
            return Err(Error::argument(
                "bind",
                format!("{name} has number format {number}, which this build does not know"),
            ));
        }
    };
    if !values.len().is_multiple_of(size) {
        let len = values.len();
        return Err(Error::argument(
            "bind",
            format!("{name} must be bound to whole numbers of {size} bytes, got {len} bytes"),
        ));
    }
    Ok((values.len() / size) as i64)
}
