//! The order between the trainer's work on a device and a refit that reads what it wrote.
//!
//! libtorch queues the trainer's work on the device's default stream. A refit runs on a stream of its own, which first
//! awaits an event recorded there. The CUDA driver is loaded when the first device memory is bound, never before.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DriverError, sys};

use super::{Error, Status};

/// The refit's stream on one device.
#[derive(Debug)]
pub(super) struct RefitStream {
    device: usize,
    trainer: Arc<CudaStream>,
    refit: Arc<CudaStream>,
}

impl RefitStream {
    /// Makes a stream on that device.
    pub(super) fn on(device: usize) -> Result<Self, Error> {
        // SAFETY: loads the driver's library, whose initialisers are NVIDIA's and may run at any time.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error {
                call: "bind",
                status: Status::Unsupported,
                message: format!(
                    "memory of CUDA device {device} cannot be bound: no NVIDIA driver (libcuda.so) is installed"
                ),
            });
        }
        let open = || {
            let context = CudaContext::new(device)?;
            Ok(Self { device, trainer: context.default_stream(), refit: context.new_stream()? })
        };
        open().map_err(|error| failed("bind", device, &error))
    }

    /// Returns the device's number.
    pub(super) fn device(&self) -> usize {
        self.device
    }

    /// Lets the refit wait for everything that was queued on the default stream so far. Returns the stream's address.
    pub(super) fn after_the_trainer(&self) -> Result<usize, Error> {
        self.refit.join(&self.trainer).map_err(|error| failed("commit", self.device, &error))?;
        Ok(self.refit.cu_stream() as usize)
    }
}

fn failed(call: &'static str, device: usize, error: &DriverError) -> Error {
    Error { call, status: Status::Internal, message: format!("CUDA device {device}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_driver_a_device_is_refused_in_a_sentence() {
        // With one, a stream on its first device opens and waits.
        match RefitStream::on(0) {
            Ok(stream) => assert_ne!(stream.after_the_trainer().unwrap(), 0),
            Err(error) => assert!(error.message.contains("CUDA device 0"), "{error}"),
        }
    }
}
