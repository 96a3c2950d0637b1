//! What serde says about a value, in the words of a person who wrote the file.

use std::ops::Range;

use super::{
    Error, Violation,
    source::{Entries, Source},
};

/// Puts an error of deserialisation at its place and in our words.
pub(super) fn type_error(source: &Source, entries: &Entries, error: &toml::de::Error) -> Error {
    // Of several lines where a key or value has a line break of its own.
    let said = error.message();
    let span = error.span();
    if let Some((name, candidates)) = named(said, "unknown field `") {
        return unknown_key(source, entries, span, name, &candidates);
    }
    if let Some(name) = quoted_after(said, "missing field `") {
        return missing_key(source, entries, span, name);
    }
    let entry = span.as_ref().and_then(|span| entries.value_at(span));
    let place = span.map_or_else(|| source.name().into(), |span| source.place(span.start));
    let what = match named(said, "unknown variant `") {
        Some((value, candidates)) => format!("unknown value {value:?}{}", hint(value, &candidates)),
        None => said.lines().collect::<Vec<_>>().join(" "),
    };
    let message = match entry {
        Some(entry) => format!("{}: {what}", entry.path.escape_debug()),
        None => what,
    };
    Error::Invalid { place, message }
}

/// Puts a broken rule where its key is, or at the file where the key is nowhere written.
pub(super) fn violation(source: &Source, entries: &Entries, violation: &Violation) -> Error {
    let entry = entries.nearest(&violation.key);
    let place = entry.map_or_else(|| source.name().into(), |entry| source.place(entry.position()));
    Error::Invalid { place, message: violation.to_string() }
}

fn unknown_key(
    source: &Source,
    entries: &Entries,
    span: Option<Range<usize>>,
    name: &str,
    candidates: &[&str],
) -> Error {
    // Where serde buffers a table before it looks inside (tagged enums), the span is that of the whole table.
    let entry = span.as_ref().and_then(|span| {
        entries.key_at(span).or_else(|| {
            let table = entries.value_at(span)?;
            entries.nearest(&format!("{}.{name}", table.path))
        })
    });
    let place = match (entry, span) {
        (Some(entry), _) => source.place(entry.position()),
        (None, Some(span)) => source.place(span.start),
        (None, None) => source.name().into(),
    };
    let table = entry.and_then(|entry| entry.path.rsplit_once('.'));
    let within =
        table.map_or_else(String::new, |(table, _)| format!(" in [{}]", table.escape_debug()));
    let message = format!("unknown key {name:?}{within}{}", hint(name, candidates));
    Error::Invalid { place, message }
}

fn missing_key(
    source: &Source,
    entries: &Entries,
    span: Option<Range<usize>>,
    name: &str,
) -> Error {
    match span.as_ref().and_then(|span| entries.value_at(span)) {
        Some(table) => Error::Invalid {
            place: source.place(table.position()),
            message: format!("missing key {name:?} in [{}]", table.path.escape_debug()),
        },
        None => {
            Error::Invalid { place: source.name().into(), message: format!("missing key {name:?}") }
        }
    }
}

/// Suggests the candidate that was probably meant, or lists them all.
fn hint(name: &str, candidates: &[&str]) -> String {
    let similarity = |candidate: &&&str| strsim::damerau_levenshtein(name, candidate);
    match candidates.iter().min_by_key(similarity) {
        Some(best) if strsim::normalized_damerau_levenshtein(name, best) >= 0.6 => {
            format!(", did you mean {best:?}?")
        }
        Some(only) if candidates.len() == 1 => format!(", expected {only}"),
        Some(_) => format!(", expected one of {}", candidates.join(", ")),
        None => ", none is expected".into(),
    }
}

/// Splits serde's "unknown field `a`, expected one of `b`, `c`" into the name and the candidates.
fn named<'a>(said: &'a str, start: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let name = quoted_after(said, start)?;
    let rest = said.get(start.len() + name.len() + 1..)?;
    Some((name, rest.split('`').skip(1).step_by(2).collect()))
}

fn quoted_after<'a>(said: &'a str, start: &str) -> Option<&'a str> {
    said.strip_prefix(start)?.split('`').next()
}
