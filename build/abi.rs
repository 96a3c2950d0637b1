//! Which of libstdc++'s two string types a library uses.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Every name that mentions the new `std::string` or `std::list` has this in it; the old ABI has no such names.
const MARK: &[u8] = b"__cxx11";

/// Says whether a library was compiled with `_GLIBCXX_USE_CXX11_ABI=1`. (Wheels of TensorRT-LLM: from 0.20 on.)
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn is_cxx11(library: &Path) -> io::Result<bool> {
    let mut file = File::open(library)?;
    let mut window = Vec::new();
    loop {
        let read = file.by_ref().take(1 << 20).read_to_end(&mut window)?;
        if window.windows(MARK.len()).any(|bytes| bytes == MARK) {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
        // A name may lie across two pieces.
        window.drain(..window.len().saturating_sub(MARK.len() - 1));
    }
}
