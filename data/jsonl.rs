//! JSON Lines: one object per line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
};

use serde_json::Value;

use super::{
    Error,
    row::{Place, Row},
};

/// No line may be longer (bytes), so that a file of another kind is not read into memory as one line.
const MAX_LINE: u64 = 64 << 20;

/// The rows of a file, one after the other. Blank lines, a byte order mark and carriage returns are allowed.
///
/// A line that is not a JSON object in UTF-8 is an error with its place; whoever goes on gets the lines after it. After
/// any other error nothing comes.
#[derive(Debug)]
pub struct Lines {
    file: Arc<Path>,
    reader: BufReader<File>,
    line: Vec<u8>,
    number: u64,
    over: bool,
}

impl Lines {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let (file, reader) = (path.into(), BufReader::new(file));
        Ok(Self { file, reader, line: Vec::new(), number: 0, over: false })
    }

    /// Parses the line that was read; `None` where it is blank.
    fn row(&mut self) -> Option<Result<Row, Error>> {
        match parse(&self.line, self.number == 1) {
            Ok(columns) => {
                let place = Place { file: self.file.clone(), line: self.number };
                Some(Ok(Row { place, columns: columns? }))
            }
            Err(message) => {
                // What comes next would be the rest of the same line.
                self.over = self.line.len() as u64 > MAX_LINE;
                Some(Err(Error::Line { path: self.file.to_path_buf(), line: self.number, message }))
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            match next_line(&mut self.reader, &mut self.line) {
                Ok(true) => self.number += 1,
                Ok(false) => self.over = true,
                Err(source) => {
                    self.over = true;
                    return Some(Err(Error::Read { path: self.file.to_path_buf(), source }));
                }
            }
            if !self.over
                && let Some(row) = self.row()
            {
                return Some(row);
            }
        }
        None
    }
}

/// Reads a line, but not much more than is allowed of it. Returns false at the end of the file.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    Ok(reader.take(MAX_LINE + 1).read_until(b'\n', line)? > 0)
}

/// Parses a line; `None` where it is blank.
fn parse(line: &[u8], first: bool) -> Result<Option<serde_json::Map<String, Value>>, String> {
    if line.len() as u64 > MAX_LINE {
        return Err(format!("a line must be at most {} MiB long", MAX_LINE >> 20));
    }
    let text = std::str::from_utf8(line).map_err(|error| {
        format!("invalid UTF-8 at byte {} of the line", error.valid_up_to() + 1)
    })?;
    let text = if first { text.trim_start_matches('\u{feff}') } else { text }.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if !text.starts_with('{') {
        let start: String = text.chars().take(20).collect();
        return Err(format!("each line must be a JSON object, this one starts with {start:?}"));
    }
    match serde_json::from_str(text) {
        Ok(columns) => Ok(Some(columns)),
        Err(error) => {
            let said = error.to_string();
            let what = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
            Err(format!("malformed JSON at column {}: {what}", error.column()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.jsonl");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn read(bytes: &[u8]) -> Vec<Result<Row, Error>> {
        let (_folder, path) = file(bytes);
        Lines::open(&path).unwrap().collect()
    }

    fn rows(bytes: &[u8]) -> Vec<Row> {
        read(bytes).into_iter().map(Result::unwrap).collect()
    }

    fn refusal(bytes: &[u8]) -> String {
        let message = read(bytes).into_iter().find_map(Result::err).unwrap().to_string();
        assert!(!message.contains('\n'), "{message}");
        message.rsplit_once("data.jsonl:").unwrap().1.into()
    }

    #[test]
    fn blank_lines_byte_order_marks_and_carriage_returns_are_allowed() {
        let rows = rows(b"\xef\xbb\xbf{\"a\": 1}\r\n\r\n  \n{\"a\": 2}");
        assert_eq!(rows.iter().map(|row| row.place.line).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(rows[1].columns["a"], 2);
    }

    #[test]
    fn a_malformed_line_is_named() {
        assert_eq!(
            refusal(b"{\"a\": 1}\n\n{\"a\": 1,, \"b\": 2}\n"),
            "3: malformed JSON at column 9: key must be a string"
        );
        assert_eq!(
            refusal(b"{\"a\": \"cut off"),
            "1: malformed JSON at column 14: EOF while parsing a string"
        );
    }

    #[test]
    fn a_line_that_is_no_object_is_named() {
        assert_eq!(
            refusal(b"[\n{\"a\": 1}\n]"),
            "1: each line must be a JSON object, this one starts with \"[\""
        );
    }

    #[test]
    fn invalid_utf8_is_named() {
        assert_eq!(refusal(b"{}\n{\"a\": \"\xff\"}\n"), "2: invalid UTF-8 at byte 8 of the line");
    }

    #[test]
    fn whoever_goes_on_after_a_broken_line_gets_the_next_ones() {
        let read = read(b"{\"a\": 1}\nbroken\n[]\n{\"a\": 2}");
        let lines: Vec<_> =
            read.iter().map(|row| row.as_ref().map(|row| row.place.line).ok()).collect();
        assert_eq!(lines, [Some(1), None, None, Some(4)]);
    }

    #[test]
    fn a_line_beyond_the_bound_is_not_read_to_its_end() {
        let mut endless = BufReader::new(io::repeat(b'x'));
        let mut line = Vec::new();
        assert!(next_line(&mut endless, &mut line).unwrap());
        assert_eq!(parse(&line, true).unwrap_err(), "a line must be at most 64 MiB long");
    }
}
