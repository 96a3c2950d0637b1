//! Parquet files, row by row.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use parquet::{
    errors::ParquetError,
    file::{
        metadata::ParquetMetaData,
        reader::{FileReader, SerializedFileReader},
    },
    record::{Field, Row as Record, reader::RowIter},
};
use serde_json::{Map, Value};

use super::{
    Error,
    row::{Place, Row},
};

/// The rows of a file, one after the other; nothing comes after an error.
pub struct Records {
    file: Arc<Path>,
    records: Option<RowIter<'static>>,
    line: u64,
}

impl Records {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read or is broken.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let records = guarded(path, || {
            let reader = SerializedFileReader::new(file)?;
            check_chunks(reader.metadata())?;
            Ok(reader.into_iter())
        })?;
        Ok(Self { file: path.into(), records: Some(records), line: 0 })
    }
}

impl Iterator for Records {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let records = self.records.as_mut()?;
        let read =
            guarded(&self.file, || records.next().map(|record| Ok(object(&record?))).transpose());
        match read {
            Ok(columns) => {
                self.line += 1;
                let place = Place { file: self.file.clone(), line: self.line };
                Some(Ok(Row { place, columns: columns? }))
            }
            Err(error) => {
                self.records = None;
                Some(Err(error))
            }
        }
    }
}

/// Runs the library, which panics over some kinds of damage, deep inside its decoders. It shares nothing with us but the
/// file, and is left alone after a panic.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, Error> {
    let read = catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ParquetError::General("its pages contradict each other".into())));
    read.map_err(|error| Error::File {
        path: path.into(),
        message: format!("broken Parquet file: {}", error.to_string().replace('\n', " ")),
    })
}

/// Refuses columns that begin or end before the file does; the reader would panic over them.
fn check_chunks(metadata: &ParquetMetaData) -> Result<(), ParquetError> {
    let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    for column in columns {
        let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
        if start < 0 || column.compressed_size() < 0 || column.num_values() < 0 {
            let name = column.column_path().string();
            return Err(ParquetError::General(format!(
                "column {name} has a negative size or place"
            )));
        }
    }
    Ok(())
}

fn object(record: &Record) -> Map<String, Value> {
    record.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

/// JSON has no NaN and no infinity; as texts they are refused where a number is wanted, and not taken for missing.
fn real(number: f64) -> Value {
    if number.is_finite() { number.into() } else { number.to_string().into() }
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(truth) => (*truth).into(),
        Field::Byte(number) => (*number).into(),
        Field::Short(number) => (*number).into(),
        Field::Int(number) => (*number).into(),
        Field::Long(number) => (*number).into(),
        Field::UByte(number) => (*number).into(),
        Field::UShort(number) => (*number).into(),
        Field::UInt(number) => (*number).into(),
        Field::ULong(number) => (*number).into(),
        Field::Float16(number) => real(number.to_f64()),
        Field::Float(number) => real((*number).into()),
        Field::Double(number) => real(*number),
        Field::Str(text) => text.as_str().into(),
        // Some writers leave out the mark that says a column is text.
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into(),
        Field::Group(record) => Value::Object(object(record)),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            let key = |field: &Field| match value(field) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            Value::Object(map.entries().iter().map(|(k, v)| (key(k), value(v))).collect())
        }
        // Dates, times and decimals have a form of their own for people.
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use parquet::{
        column::writer::ColumnWriter,
        data_type::ByteArray,
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };

    use super::*;

    fn read(path: &Path) -> Result<Vec<Row>, Error> {
        Records::open(path)?.collect()
    }

    const SCHEMA: &str = "message rows {
        REQUIRED BYTE_ARRAY prompt (UTF8);
        OPTIONAL DOUBLE margin;
        REQUIRED GROUP messages (LIST) { REPEATED GROUP list { REQUIRED GROUP element {
            REQUIRED BYTE_ARRAY role (UTF8);
            REQUIRED BYTE_ARRAY content (UTF8);
        } } }
    }";

    /// Two rows: the first with a margin and two messages, the second with neither margin nor more than one message.
    fn example(folder: &Path) -> PathBuf {
        let path = folder.join("rows.parquet");
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let file = File::create(&path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let text =
            |words: &[&str]| words.iter().map(|word| ByteArray::from(*word)).collect::<Vec<_>>();
        let mut index = 0;
        while let Some(mut column) = group.next_column().unwrap() {
            match (index, column.untyped()) {
                (0, ColumnWriter::ByteArrayColumnWriter(prompts)) => {
                    prompts.write_batch(&text(&["Hi", "Grüße"]), None, None).unwrap();
                }
                (1, ColumnWriter::DoubleColumnWriter(margins)) => {
                    margins.write_batch(&[0.5], Some(&[1, 0]), None).unwrap();
                }
                (_, ColumnWriter::ByteArrayColumnWriter(leaf)) => {
                    let words =
                        if index == 2 { ["user", "assistant", "user"] } else { ["a", "b", "c"] };
                    leaf.write_batch(&text(&words), Some(&[1, 1, 1]), Some(&[0, 1, 0])).unwrap();
                }
                _ => unreachable!("the schema has four leaves"),
            }
            column.close().unwrap();
            index += 1;
        }
        group.close().unwrap();
        writer.close().unwrap();
        path
    }

    #[test]
    fn rows_become_json_lists_and_objects_included() {
        let folder = tempfile::tempdir().unwrap();
        let rows = read(&example(folder.path())).unwrap();
        let columns: Vec<Value> = rows.iter().map(|row| row.columns.clone().into()).collect();
        assert_eq!(
            Value::from(columns),
            serde_json::json!([
                { "prompt": "Hi", "margin": 0.5, "messages": [
                    { "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }] },
                { "prompt": "Grüße", "margin": null, "messages": [{ "role": "user", "content": "c" }] },
            ])
        );
        assert_eq!(rows[1].place.line, 2);
    }

    #[test]
    fn a_number_that_json_lacks_is_not_taken_for_missing() {
        let columns = [("margin".into(), value(&Field::Double(f64::NAN)))].into_iter().collect();
        let mut row = Row { place: Place { file: Path::new("x").into(), line: 1 }, columns };
        assert!(row.take_number("margin").is_err());
        assert_eq!(value(&Field::Float(0.5)), 0.5);
    }

    #[test]
    fn a_broken_file_is_named_wherever_it_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let whole = std::fs::read(example(folder.path())).unwrap();
        let path = folder.path().join("cut.parquet");
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(message.contains("cut.parquet: broken Parquet file: "), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn no_flipped_byte_panics() {
        let folder = tempfile::tempdir().unwrap();
        let whole = std::fs::read(example(folder.path())).unwrap();
        let path = folder.path().join("flipped.parquet");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            std::fs::write(&path, &bytes).unwrap();
            let _ = Records::open(&path).map(|records| records.take(100).count());
        }
    }
}
