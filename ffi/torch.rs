//! Buffers of libtorch tensors that are lent to others.
//!
//! libtorch frees a tensor's storage when the last handle to it goes; each [`Memory`] made here keeps one. Handles are
//! counted atomically, so the last one may go on any thread.

use std::{ptr::NonNull, time::Duration};

use half::bf16;
use tch::Tensor;

use super::{
    memory::{Lease, Memory},
    torch_matmul::Number,
};

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

    /// Returns a buffer's numbers; `None` unless they are of this format, contiguous and on the host.
    pub fn numbers<T: Number>(&self, buffer: usize) -> Option<&[T]> {
        let (start, len) = host::<T>(self.buffers.get(buffer)?)?;
        // SAFETY: `host` found so many numbers of this kind there; the buffer keeps them in place as long as `self` is
        // borrowed; and `write` and `write_host`, the only writers, borrow it mutably.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), len) })
    }

    /// Changes the numbers of f32 and, if there is a second buffer, of bf16 on the host in place; `None`, and nothing done,
    /// when a reader held on past the deadline.
    ///
    /// # Panics
    /// If the buffers are others.
    pub fn write_host<R>(
        &mut self,
        deadline: Duration,
        change: impl FnOnce(HostBuffers<'_>) -> R,
    ) -> Option<R> {
        self.write(deadline, |buffers| {
            let [master, copies @ ..] = buffers else { panic!("there is a buffer") };
            let Some((start, len)) = host::<f32>(master) else { panic!("f32 on the host") };
            // SAFETY: `host` found so many numbers of this kind there; the storage is each buffer's own, and nobody else
            // reads or writes it while the lease is held for writing and `self` is borrowed mutably.
            let master = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) };
            let copy = copies.first().map(|copy| {
                let Some((start, len)) = host::<bf16>(copy) else { panic!("bf16 on the host") };
                // SAFETY: as above.
                unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
            });
            change(HostBuffers { master, copy })
        })
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

/// What [`Leased::write_host`] changes.
#[derive(Debug)]
pub struct HostBuffers<'a> {
    /// The first buffer.
    pub master: &'a mut [f32],
    /// The second one, where there is one.
    pub copy: Option<&'a mut [bf16]>,
}

/// Returns where a tensor's numbers lie; `None` unless they are of this format, contiguous and on the host.
fn host<T: Number>(tensor: &Tensor) -> Option<(NonNull<T>, usize)> {
    let fits =
        tensor.kind() == T::KIND && tensor.device() == tch::Device::Cpu && tensor.is_contiguous();
    let start = NonNull::new(tensor.data_ptr().cast::<T>())?;
    fits.then(|| (start, tensor.numel()))
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
    fn numbers_on_the_host_are_read_and_written_in_place() {
        let (master, copy) = (Tensor::from_slice(&[1.0f32, 2.0]), Tensor::from_slice(&[1.0f32]));
        let mut leased = Leased::new(vec![master, copy.to_kind(tch::Kind::BFloat16)]);
        assert_eq!(leased.numbers::<f32>(0), Some(&[1.0, 2.0][..]));
        assert!(leased.numbers::<bf16>(0).is_none() && leased.numbers::<f32>(2).is_none());
        let written = leased.write_host(SHORT, |HostBuffers { master, copy }| {
            master[1] = 7.0;
            copy.unwrap()[0] = bf16::from_f32(3.0);
        });
        assert!(written.is_some());
        assert_eq!(leased.numbers::<f32>(0), Some(&[1.0, 7.0][..]));
        assert_eq!(leased.numbers::<bf16>(1), Some(&[bf16::from_f32(3.0)][..]));
        let memory = leased.lend(0).unwrap();
        let reading = memory.lease().read(SHORT).unwrap();
        assert!(leased.write_host(SHORT, |_| ()).is_none());
        drop(reading);
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
