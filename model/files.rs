//! Small files read whole, JSON objects among them, with a limit on their size.

use std::{fs::File, io::Read, path::Path};

use serde_json::{Map, Value};

use super::{Error, error::Result};

/// No configuration file of a real model comes near this.
const LIMIT: u64 = 256 << 20;

/// Returns the bytes of a file, or `None` when there is no such file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io("open", path))?,
    };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file at the limit from one beyond it; special files have no honest length.
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::file(path, format!("is larger than {} MiB", LIMIT >> 20)));
    }
    Ok(Some(bytes))
}

/// Returns the text of a file, or `None` when there is no such file.
pub(super) fn text_if_there(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read_if_there(path)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| Error::file(path, "is not UTF-8 text"))
}

/// Returns the JSON object in a file, or `None` when there is no such file.
pub(super) fn object_if_there(path: &Path) -> Result<Option<Map<String, Value>>> {
    text_if_there(path)?.map(|text| parse_object(path, &text)).transpose()
}

/// Returns the JSON object that a file's text is.
pub(super) fn parse_object(path: &Path, text: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::file(path, "must hold a JSON object")),
        Err(error) => Err(Error::file(path, format!("is not JSON: {error}"))),
    }
}

/// Returns the JSON object in a file that must be there.
pub(super) fn object(path: &Path) -> Result<Map<String, Value>> {
    object_if_there(path)?.ok_or_else(|| Error::file(path, "is missing"))
}

/// Writes a file and waits until it is on the disk.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    };
    write().map_err(Error::io("write", path))
}

/// Returns a JSON value as text over several lines.
pub(super) fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("a JSON value can be written");
    text.push('\n');
    text
}
