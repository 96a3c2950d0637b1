//! libtorch as a whole: version, threads, seed and devices.

use super::{Error, Result};
use crate::{ffi::libtorch_cuda, trainer::config::Device};

/// The version of libtorch that this build is made for.
pub const VERSION: &str = "2.11.0";

/// Sets how many threads an operation may use that is called from this thread. (OpenMP keeps the number per calling
/// thread.) libtorch does not promise the same bits for another number.
///
/// # Errors
/// When the number is zero or beyond libtorch's.
pub fn set_threads(threads: usize) -> Result<()> {
    match i32::try_from(threads) {
        Ok(threads) if threads > 0 => {
            tch::set_num_threads(threads);
            Ok(())
        }
        _ => Err(Error::input("threads", "positive", threads)),
    }
}

/// Says whether a GPU can be used, and if not, why not.
///
/// # Errors
/// A sentence: what is missing and how to get it.
pub fn cuda() -> std::result::Result<usize, String> {
    let library = libtorch_cuda::load(VERSION)?;
    match usize::try_from(tch::Cuda::device_count()) {
        Ok(0) | Err(_) => Err(format!("{} finds no GPU and driver", library.display())),
        Ok(devices) => Ok(devices),
    }
}

/// Checks that a device can be used.
pub(super) fn device(device: Device) -> Result<tch::Device> {
    let Device::Cuda(index) = device else { return Ok(tch::Device::Cpu) };
    match cuda() {
        Ok(devices) if index < devices => Ok(tch::Device::Cuda(index)),
        Ok(devices) => {
            let reason = format!("there are {devices} GPUs, counted from 0");
            Err(Error::Device { device, reason })
        }
        Err(reason) => Err(Error::Device { device, reason }),
    }
}
