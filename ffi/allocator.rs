//! What the system and the C library do with memory, whoever holds it.

use std::ops::Range;

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Asks the system to keep memory in huge pages. The processor reads through such memory faster: in pages of 4 KiB, what
/// is asked for early waits for the page table. It is a wish, and what lies there does not change.
///
/// Ranges of addresses that almost touch are taken together: most tensors are smaller than a huge page.
pub fn prefer_huge_pages(ranges: impl IntoIterator<Item = Range<usize>>) {
    let mut ranges: Vec<_> = ranges.into_iter().collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        let range = range.start / HUGE * HUGE..range.end.next_multiple_of(HUGE);
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged.into_iter().for_each(advise);
}

/// As [`prefer_huge_pages`], for the memory of one slice.
pub fn in_huge_pages<T>(numbers: &[T]) {
    let range = numbers.as_ptr_range();
    prefer_huge_pages(std::iter::once(range.start.addr()..range.end.addr()));
}

fn advise(range: Range<usize>) {
    #[cfg(target_os = "linux")]
    {
        use std::ffi::{c_int, c_void};
        unsafe extern "C" {
            fn madvise(start: *mut c_void, bytes: usize, advice: c_int) -> c_int;
        }
        /// What is touched from now on, and (Linux 6.1) what is there already.
        const ADVICE: [c_int; 2] = [14, 25];
        for advice in ADVICE {
            let start = std::ptr::without_provenance_mut(range.start);
            // SAFETY: neither advice changes what a page holds or who may reach it, whatever lies in the range.
            let _granted = unsafe { madvise(start, range.len(), advice) };
        }
    }
}

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
