//! Small files that are replaced as a whole.

use std::{
    fs::{self, File},
    io::Read,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

/// More of a file is not read.
const LARGEST: u64 = 512 << 10;

/// How a file looks from outside: its length, and when it was written.
pub(super) type Look = (u64, SystemTime);

/// Returns how a file looks; nothing where there is none.
pub(super) fn look(path: &std::path::Path) -> Option<Look> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// Returns Unix seconds.
pub(super) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Returns a file's text, up to a bound; nothing where it cannot be read.
pub(super) fn read_bounded(path: &std::path::Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A file's text, read again when it has changed.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    look: Option<Look>,
    text: Option<String>,
}

impl Watched {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, look: None, text: None }
    }

    /// Reads the file if it has changed, and says so.
    pub(super) fn poll(&mut self) -> bool {
        let now = look(&self.path);
        let changed = now != self.look;
        if changed {
            self.look = now;
            self.text = read_bounded(&self.path);
        }
        changed
    }

    pub(super) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Returns when it was written, in Unix seconds.
    pub(super) fn written(&self) -> Option<f64> {
        self.look.map(|(_, time)| seconds(time))
    }
}
