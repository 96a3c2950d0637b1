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
    record::{Field, Row as Record},
};
use serde_json::{Map, Value};

use super::{
    Error,
    row::{Place, Row},
};

/// Reads at most `limit` rows.
///
/// # Errors
/// When the file cannot be read or is broken.
pub(super) fn read(path: &Path, limit: usize) -> Result<Vec<Row>, Error> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.into(), source })?;
    // The library panics over some kinds of damage, deep inside its decoders. It shares nothing with us but the file.
    let read = catch_unwind(AssertUnwindSafe(|| rows(path, file, limit)))
        .unwrap_or_else(|_| Err(ParquetError::General("its pages contradict each other".into())));
    read.map_err(|error| Error::File {
        path: path.into(),
        message: format!("broken Parquet file: {}", error.to_string().replace('\n', " ")),
    })
}

fn rows(path: &Path, file: File, limit: usize) -> Result<Vec<Row>, ParquetError> {
    let reader = SerializedFileReader::new(file)?;
    check_chunks(reader.metadata())?;
    let file: Arc<Path> = path.into();
    let records = (1..).zip(reader.get_row_iter(None)?.take(limit));
    let row = |(line, record): (u64, Result<Record, ParquetError>)| {
        Ok(Row { place: Place { file: file.clone(), line }, columns: object(&record?) })
    };
    records.map(row).collect()
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
        let rows = read(&example(folder.path()), usize::MAX).unwrap();
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
        assert_eq!(read(&example(folder.path()), 1).unwrap().len(), 1);
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
            let message = read(&path, usize::MAX).unwrap_err().to_string();
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
            let _ = read(&path, 100);
        }
    }
}
