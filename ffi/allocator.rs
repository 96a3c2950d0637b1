//! The C library's allocator, which libtorch takes its CPU memory from.

/// Gives memory that was freed back to the system.
///
/// glibc keeps freed blocks below 32 MiB for later, and cannot use one again for an aligned block of the same size. What
/// a large pass leaves behind would stay with the process, beside what the next one takes.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: takes no pointer, may be called from any thread at any time, and frees no block that is in use.
        let _released = unsafe { malloc_trim(0) };
    }
}
