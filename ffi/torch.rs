//! Buffers of libtorch tensors that are lent to others.
//!
//! libtorch frees a tensor's storage when the last handle to it goes; each [`Memory`] made here keeps one. Handles are
//! counted atomically, so the last one may go on any thread.

use std::{ptr::NonNull, time::Duration};

use tch::Tensor;

use super::memory::{Lease, Memory};

/// A handle that is only ever dropped.
struct Owner(#[expect(dead_code, reason = "held for its drop")] Tensor);

// SAFETY: nothing reads the handle through a shared reference; it is private, and its only use is to be dropped, which
// takes it whole and decrements an atomic count.
unsafe impl Sync for Owner {}

/// One-dimensional tensors whose storage is read and written under one lease.
///
/// The rule that makes lending safe: the storage is written to only in [`Leased::write`]. Views of the buffers (such as
/// a model's parameters) are for reading.
#[derive(Debug)]
pub struct Leased {
    lease: Lease,
    buffers: Vec<Tensor>,
}

impl Leased {
    /// Takes over buffers that nobody else writes to, under a lease of their own.
    pub fn new(buffers: Vec<Tensor>) -> Self {
        Self { lease: Lease::default(), buffers }
    }

    /// Returns the lease under which the buffers are read and written.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Returns the buffers, for reading.
    pub fn buffers(&self) -> &[Tensor] {
        &self.buffers
    }

    /// Changes the buffers in place; `None`, and nothing done, when a reader held on past the deadline.
    pub fn write<R>(
        &mut self,
        deadline: Duration,
        change: impl FnOnce(&mut [Tensor]) -> R,
    ) -> Option<R> {
        let _writing = self.lease.write(deadline)?;
        Some(change(&mut self.buffers))
    }

    /// Lends a buffer's bytes, where they are: none is copied. `None` unless the buffer is contiguous, and on the host or
    /// a CUDA device. Parts of one loan can be joined again, see [`Memory::joined`].
    pub fn lend(&self, buffer: usize) -> Option<Memory> {
        let tensor = self.buffers.get(buffer)?;
        if !tensor.is_contiguous() {
            return None;
        }
        let start = NonNull::new(tensor.data_ptr().cast::<u8>())?;
        let len = tensor.numel() * tensor.kind().elt_size_in_bytes();
        let (lease, owner) = (self.lease.clone(), Box::new(Owner(tensor.shallow_clone())));
        let memory = match tensor.device() {
            // SAFETY: these are all the bytes of a contiguous tensor; buffers come filled (they are made by zeros or by
            // a conversion); the owner keeps the storage in place; and `write` is the only writer, under the lease.
            tch::Device::Cpu => unsafe { Memory::from_raw(start, len, lease, owner) },
            // SAFETY: as on the host; `data_ptr` of a CUDA tensor is its device pointer. What `write` queued before it
            // gave the lease back is in the order of the device's current stream, as `from_device` says.
            tch::Device::Cuda(n) => unsafe { Memory::from_device(start, (len, n), lease, owner) },
            _ => return None,
        };
        Some(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn lent_bytes_outlive_the_tensor_that_lent_them() {
        let tensor = Tensor::from_slice(&[1.0f32, 2.0, 3.0]);
        let address = tensor.data_ptr() as usize;
        let memory = Leased::new(vec![tensor]).lend(0).unwrap().slice(4..12).unwrap();
        assert_eq!(memory.address(), address + 4);
        let reading = memory.lease().read(SHORT).unwrap();
        assert_eq!(memory.bytes(&reading), bytemuck::cast_slice::<f32, u8>(&[2.0, 3.0]));
    }

    #[test]
    fn a_write_waits_for_readers_and_is_seen_by_the_next() {
        let mut leased = Leased::new(vec![Tensor::from_slice(&[1.0f32])]);
        let memory = leased.lend(0).unwrap();
        let reading = memory.lease().read(SHORT).unwrap();
        assert!(leased.write(SHORT, |_| ()).is_none());
        drop(reading);
        let _ = leased.write(SHORT, |buffers| buffers[0].fill_(7.0)).unwrap();
        let reading = memory.lease().read(SHORT).unwrap();
        assert_eq!(memory.bytes(&reading), bytemuck::bytes_of(&7.0f32));
    }

    #[test]
    fn what_cannot_be_lent_is_not() {
        let gaps = Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu)).transpose(0, 1);
        let leased = Leased::new(vec![gaps, Tensor::from_slice(&[1.0f32])]);
        assert!(leased.lend(0).is_none());
        assert!(leased.lend(1).is_some());
        assert!(leased.lend(2).is_none());
    }
}
