//! TensorBoard's event files: `events.out.tfevents.*`, one for each time a run was started.
//!
//! A file is a row of records in TensorFlow's framing (`tensorflow/core/lib/io/record_writer.cc`):
//!
//! ```text
//! u64 length, u32 masked CRC-32C of the length, the bytes, u32 masked CRC-32C of the bytes          little-endian
//! ```
//!
//! A resumed run writes a file of its own, whose session log says from which step on the earlier files are void.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use prost::Message;

use super::messages::{Event, SessionLog, Summary, Value, What};
use crate::run::{DirectoryError, Metrics};

const PREFIX: &str = "events.out.tfevents.";

/// An open event file.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl EventFile {
    /// Begins an event file in a run directory. What the directory's earlier ones say of `step` and later steps is void.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(run: &Path, step: u64) -> Result<Self, DirectoryError> {
        let stamp = next_stamp(run).map_err(DirectoryError::writing(run))?;
        let path = run.join(format!("{PREFIX}{stamp}.rollforge"));
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let file = file.map_err(DirectoryError::writing(&path))?;
        let mut events = Self { path, file, length: 0 };
        events.append(0, What::FileVersion("brain.Event:2".into()))?;
        events.append(step, What::SessionLog(SessionLog { status: SessionLog::START }))?;
        Ok(events)
    }

    /// Appends a step's metrics as scalars.
    ///
    /// # Errors
    /// When they cannot be written; the file is then as it was.
    pub fn write(&mut self, step: u64, metrics: &Metrics) -> Result<(), DirectoryError> {
        let value = metrics
            .iter()
            .map(|(name, value)| Value { tag: name.into(), simple_value: Some(value as f32) })
            .collect();
        self.append(step, What::Summary(Summary { value }))
    }

    fn append(&mut self, step: u64, what: What) -> Result<(), DirectoryError> {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let event = Event { wall_time: seconds(), step, what: Some(what) };
        let record = record(&event.encode_to_vec());
        if let Err(error) = self.file.write_all(&record) {
            // Readers stop at a broken record: what follows it would be lost to them.
            self.file.set_len(self.length).ok();
            return Err(DirectoryError::writing(&self.path)(error));
        }
        self.length += record.len() as u64;
        Ok(())
    }
}

/// Returns the seconds that a new file's name carries. TensorBoard reads files in the order of their names, so they are
/// later than those of every other file, whatever the clock says.
fn next_stamp(run: &Path) -> io::Result<u64> {
    let mut stamp = seconds() as u64;
    for entry in fs::read_dir(run)? {
        let name = entry?.file_name();
        let earlier = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok());
        stamp = stamp.max(earlier.map_or(0, |earlier| earlier.saturating_add(1)));
    }
    Ok(stamp)
}

/// Returns the seconds since 1970.
fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Frames the bytes of an event.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(bytes);
    record.extend(masked_crc(bytes).to_le_bytes());
    record
}

/// Returns the checksum as TensorFlow stores it (`tensorflow/core/lib/hash/crc32c.h`): masked, for the checksum of bytes
/// that hold their own checksum says little.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32C (Castagnoli), bit by bit.
    fn slow_crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
            })
        })
    }

    /// Reads a file record by record, and checks every checksum.
    fn slow_read(path: &Path) -> Vec<Event> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut take = |count: usize| {
            let (head, tail) = rest.split_at(count);
            rest = tail;
            head
        };
        let check = |bytes: &[u8], stored: &[u8]| {
            let crc = slow_crc(bytes);
            let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
            assert_eq!(masked.to_le_bytes(), stored);
        };
        let mut events = Vec::new();
        let mut left = bytes.len();
        while left > 0 {
            let length = take(8);
            check(length, take(4));
            let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let event = take(length);
            check(event, take(4));
            events.push(Event::decode(event).unwrap());
            left -= length + 16;
        }
        events
    }

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        assert_eq!(slow_crc(&[0; 32]), 0x8a91_36aa); // RFC 3720, B.4
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_slow_reader_finds_version_session_and_scalars() {
        let run = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(run.path(), 5).unwrap();
        let metrics = Metrics::new().with("loss", 0.0).with("objective/kl", f64::NAN);
        file.write(5, &metrics).unwrap();
        let events = slow_read(&file.path);
        assert_eq!(events.len(), 3);
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".into())));
        assert_eq!(events[1].what, Some(What::SessionLog(SessionLog { status: 1 })));
        assert_eq!((events[1].step, events[2].step), (5, 5));
        let Some(What::Summary(summary)) = &events[2].what else { panic!("{events:?}") };
        assert_eq!(summary.value[0].tag, "loss");
        assert_eq!(summary.value[0].simple_value, Some(0.0));
        assert!(summary.value[1].simple_value.unwrap().is_nan());
    }

    #[test]
    fn a_later_file_sorts_behind_an_earlier_one_even_within_a_second() {
        let run = tempfile::tempdir().unwrap();
        let paths = [1, 2, 3].map(|step| EventFile::create(run.path(), step).unwrap().path);
        assert!(paths.is_sorted(), "{paths:?}");
        fs::write(run.path().join(format!("{PREFIX}9999999999.elsewhere")), "").unwrap();
        let path = EventFile::create(run.path(), 4).unwrap().path;
        assert!(path.to_str().unwrap().ends_with("10000000000.rollforge"), "{path:?}");
    }
}
