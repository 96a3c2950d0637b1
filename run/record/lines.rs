//! A file that only grows, line by line, and of which a crash can cost no more than the last line.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::PathBuf,
};

use crate::run::DirectoryError;

/// The longest line that is read back.
const LONGEST: u64 = 1 << 20;

/// A file that lines are appended to.
#[derive(Debug)]
pub(super) struct LineFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl LineFile {
    /// Opens a file, or makes it. A last line that a crash cut off is gone then.
    pub(super) fn open(path: PathBuf) -> Result<Self, DirectoryError> {
        let open = || {
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
            let length = whole_lines(&mut file)?;
            file.set_len(length)?;
            Ok((file, length))
        };
        let (file, length) = open().map_err(DirectoryError::writing(&path))?;
        Ok(Self { path, file, length })
    }

    /// Says whether nothing has been written yet.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends a line, whole or not at all.
    pub(super) fn write(&mut self, mut line: String) -> Result<(), DirectoryError> {
        line.push('\n');
        // One call per line: a reader, or a crash, hardly ever meets half of one.
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // A full disk may have taken a part, which the next line must not be glued to.
            self.file.set_len(self.length).ok();
            return Err(DirectoryError::writing(&self.path)(error));
        }
        self.length += line.len() as u64;
        Ok(())
    }
}

/// The whole lines of a file, one after the other, without their ends.
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
}

impl Lines {
    /// Opens a file.
    pub(super) fn open(path: PathBuf) -> Result<Self, DirectoryError> {
        match File::open(&path) {
            Ok(file) => Ok(Self { path, file: BufReader::new(file) }),
            Err(source) => Err(DirectoryError::Read { path, source }),
        }
    }

    /// Returns the next line; `None` at the end, and where only a part of a line is left.
    fn read(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        (&mut self.file).take(LONGEST).read_line(&mut line)?;
        match line.pop() {
            Some('\n') => Ok(Some(line)),
            Some(_) if line.len() as u64 >= LONGEST - 4 => {
                Err(io::Error::other(format!("a line is longer than {LONGEST} bytes")))
            }
            _ => Ok(None),
        }
    }
}

impl Iterator for Lines {
    type Item = Result<String, DirectoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read().transpose()?;
        Some(read.map_err(|source| DirectoryError::Read { path: self.path.clone(), source }))
    }
}

/// Returns how many bytes of a file are whole lines.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut block = [0; 4096];
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn read(path: &Path) -> Vec<String> {
        Lines::open(path.to_owned()).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_not_read_and_gone_once_the_file_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let long = "x".repeat(10_000); // more than a block
        fs::write(&path, format!("first\nsecond\n{long}")).unwrap();
        assert_eq!(read(&path), ["first", "second"]);
        let mut file = LineFile::open(path.clone()).unwrap();
        file.write("third".into()).unwrap();
        assert_eq!(read(&path), ["first", "second", "third"]);
        fs::write(&path, &long).unwrap();
        assert!(LineFile::open(path.clone()).unwrap().is_empty());
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        fs::write(&path, vec![b'x'; 2 * LONGEST as usize]).unwrap();
        let error = Lines::open(path).unwrap().next().unwrap().unwrap_err();
        assert!(error.to_string().contains("lines"), "{error}");
    }
}
