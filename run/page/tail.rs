//! The lines that a growing file has more than the last time.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

/// A longer line is left out: nothing that we write is as long.
const LONGEST_LINE: usize = 1 << 20;
/// How much is read at a time, so that a large file does not hold up who asked.
const CHUNK: u64 = 4 << 20;

/// A file that others append lines to, cut short, or replace.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    /// Held open: while it is, no other file can have its inode.
    file: Option<File>,
    offset: u64,
    /// How much of the file's end a first look reads.
    window: u64,
    /// The beginning of a line whose end is not written yet.
    torn: Vec<u8>,
    /// The line under way is not to be kept: it is too long, or its beginning was not read.
    skipping: bool,
}

/// What a look at the file has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fresh {
    /// The file is another one, or shorter than it was: what was read before no longer counts.
    pub(super) restarted: bool,
    /// Whole lines, without their ends.
    pub(super) lines: Vec<String>,
    /// There is more to read at once.
    pub(super) more: bool,
}

impl Tail {
    /// Reads a file from its beginning.
    pub(super) fn new(path: PathBuf) -> Self {
        Self::of_last(path, u64::MAX)
    }

    /// Reads a file from the first line that begins in its last `window` bytes.
    pub(super) fn of_last(path: PathBuf, window: u64) -> Self {
        Self { path, file: None, offset: 0, window, torn: Vec::new(), skipping: false }
    }

    /// Returns the lines that were finished since the last look. What cannot be read is not there yet.
    pub(super) fn poll(&mut self) -> Fresh {
        let mut fresh = Fresh { restarted: self.is_replaced(), ..Fresh::default() };
        if fresh.restarted {
            *self = Self::of_last(self.path.clone(), self.window);
        }
        if self.read(&mut fresh).is_err() {
            // Read again from the start: half a chunk must not be counted as read.
            fresh.restarted |= self.file.is_some();
            *self = Self::of_last(self.path.clone(), self.window);
            fresh.lines.clear();
        }
        fresh
    }

    fn is_replaced(&self) -> bool {
        let Some(file) = &self.file else { return false };
        match (file.metadata(), fs::metadata(&self.path)) {
            (Ok(ours), Ok(now)) => {
                (ours.dev(), ours.ino()) != (now.dev(), now.ino()) || now.len() < self.offset
            }
            _ => true,
        }
    }

    fn read(&mut self, fresh: &mut Fresh) -> io::Result<()> {
        if self.file.is_none() {
            let Ok(file) = File::open(&self.path) else { return Ok(()) };
            self.offset = file.metadata()?.len().saturating_sub(self.window);
            self.skipping = self.offset > 0;
            self.file = Some(file);
        }
        let Some(mut file) = self.file.as_ref() else { return Ok(()) };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut chunk = Vec::new();
        file.take(CHUNK).read_to_end(&mut chunk)?;
        self.offset += chunk.len() as u64;
        fresh.more = chunk.len() as u64 == CHUNK;
        for piece in chunk.split_inclusive(|&byte| byte == b'\n') {
            self.take(piece, &mut fresh.lines);
        }
        Ok(())
    }

    /// Adds a piece of a line, and the line to `lines` where the piece ends it.
    fn take(&mut self, piece: &[u8], lines: &mut Vec<String>) {
        let (text, ended) = match piece.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (piece, false),
        };
        if self.torn.len() + text.len() > LONGEST_LINE {
            self.skipping = true;
        }
        if self.skipping {
            self.torn = Vec::new();
        } else {
            self.torn.extend_from_slice(text);
        }
        if ended {
            if !self.skipping && !self.torn.is_empty() {
                lines.push(String::from_utf8_lossy(&self.torn).into_owned());
            }
            self.torn.clear();
            self.skipping = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Growing {
        _folder: tempfile::TempDir,
        path: PathBuf,
    }

    impl Growing {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("metrics.jsonl");
            Self { _folder: folder, path }
        }

        fn append(&self, text: &str) {
            let mut file = File::options().create(true).append(true).open(&self.path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_torn_line_waits_for_its_end() {
        let file = Growing::new();
        let mut tail = Tail::new(file.path.clone());
        assert_eq!(tail.poll(), Fresh::default());
        file.append("one\ntw");
        assert_eq!(tail.poll().lines, ["one"]);
        assert_eq!(tail.poll(), Fresh::default());
        file.append("o\n\nthree\n");
        assert_eq!(tail.poll().lines, ["two", "three"]);
    }

    #[test]
    fn a_file_that_was_cut_or_replaced_is_read_again() {
        let file = Growing::new();
        let mut tail = Tail::new(file.path.clone());
        file.append("one\ntwo\nthr");
        tail.poll();
        fs::write(&file.path, "one\n").unwrap();
        let fresh = tail.poll();
        assert!(fresh.restarted && fresh.lines == ["one"]);
        // As long as before, and yet another: as a resumed run leaves it.
        let other = file.path.with_extension("new");
        fs::write(&other, "ONE\n").unwrap();
        fs::rename(&other, &file.path).unwrap();
        let fresh = tail.poll();
        assert!(fresh.restarted && fresh.lines == ["ONE"]);
        fs::remove_file(&file.path).unwrap();
        assert_eq!(tail.poll(), Fresh { restarted: true, ..Fresh::default() });
        assert_eq!(tail.poll(), Fresh::default());
    }

    #[test]
    fn a_huge_line_is_left_out_and_not_kept_in_memory() {
        let file = Growing::new();
        let mut tail = Tail::new(file.path.clone());
        file.append("one\n");
        for _ in 0..3 {
            file.append(&"x".repeat(LONGEST_LINE / 2));
            tail.poll();
            assert!(tail.torn.len() <= LONGEST_LINE);
        }
        file.append("\ntwo\n");
        assert_eq!(tail.poll().lines, ["two"]);
    }

    #[test]
    fn a_large_file_is_read_in_chunks() {
        let file = Growing::new();
        file.append(&"0123456789abcde\n".repeat((CHUNK / 16) as usize + 1));
        let mut tail = Tail::new(file.path.clone());
        let first = tail.poll();
        assert!(first.more && first.lines.len() == (CHUNK / 16) as usize);
        let second = tail.poll();
        assert!(!second.more && second.lines.len() == 1);
    }

    #[test]
    fn the_last_lines_of_a_long_file_begin_with_a_whole_one() {
        let file = Growing::new();
        file.append("first\nsecond\nthird\n");
        let mut tail = Tail::of_last(file.path.clone(), 9);
        assert_eq!(tail.poll().lines, ["third"]);
        file.append("fourth\n");
        assert_eq!(tail.poll().lines, ["fourth"]);
    }
}
