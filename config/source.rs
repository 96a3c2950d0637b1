//! The text a configuration comes from: a file and the overrides after it, as one line of positions.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::Error;

/// A configuration file's text and the `key=value` overrides of the command line.
///
/// Every override is parsed behind a padding as long as all that came before it, so that a byte position says which
/// text it belongs to, in error messages too.
pub(super) struct Source {
    name: String,
    text: String,
    overrides: Vec<Override>,
}

struct Override {
    given: String,
    padded: String,
    start: usize,
}

impl Source {
    /// Gathers the texts. `name` is what errors call the file.
    pub(super) fn new(name: &str, text: String, overrides: &[String]) -> Result<Self, Error> {
        let mut source = Self { name: name.into(), text, overrides: Vec::new() };
        let mut start = source.text.len() + 1;
        for given in overrides {
            let padded = format!("{}{}", " ".repeat(start), assignment(given)?);
            source.overrides.push(Override { given: given.clone(), start, padded });
            start = source.overrides.last().map_or(start, |last| last.padded.len() + 1);
        }
        Ok(source)
    }

    /// Parses the file and lays the overrides over it.
    pub(super) fn table(&self) -> Result<Spanned<DeTable<'_>>, Error> {
        let parse = |text| DeTable::parse(text).map_err(|error| self.syntax_error(&error));
        let mut root = parse(&self.text)?;
        for over in &self.overrides {
            let tables = over.padded.split('=').next().unwrap_or_default().matches('.').count();
            lay_over(root.get_mut(), parse(&over.padded)?.into_inner(), tables);
        }
        Ok(root)
    }

    /// Says where a position is, for people: `run.toml:12:3`, or the override it lies in.
    pub(super) fn place(&self, position: usize) -> String {
        match self.overrides.iter().rev().find(|over| over.start <= position) {
            Some(over) => format!("override {:?}", over.given),
            None => {
                let before = &self.text.as_bytes()[..position.min(self.text.len())];
                let line_start =
                    before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
                let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
                format!("{}:{line}:{column}", self.name)
            }
        }
    }

    /// Returns what errors call the file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn syntax_error(&self, error: &toml::de::Error) -> Error {
        let place = error.span().map_or_else(|| self.name.clone(), |span| self.place(span.start));
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        Error::Invalid { place, message }
    }
}

/// Turns `a.b=c` into a line of TOML; a value that is not TOML is taken for a string.
fn assignment(given: &str) -> Result<String, Error> {
    let refuse = |message: &str| Error::Invalid {
        place: format!("override {given:?}"),
        message: message.into(),
    };
    let (key, value) =
        given.split_once('=').ok_or_else(|| refuse("must be of the form key=value"))?;
    let (key, value) = (key.trim(), value.trim());
    let bare = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    if !key.split('.').all(bare) {
        return Err(refuse("the key must be names joined by dots"));
    }
    if value.contains('\n') || DeValue::parse(value).is_err() {
        return Ok(format!("{key}={}", toml::Value::from(value)));
    }
    Ok(format!("{key}={value}"))
}

/// Puts the value of an override in its place, which lies so many tables deep. What was there is replaced.
fn lay_over<'i>(base: &mut DeTable<'i>, top: DeTable<'i>, tables: usize) {
    for (key, mut value) in top {
        let name: &str = key.get_ref();
        if tables > 0
            && let DeValue::Table(top) = value.get_mut()
            && let Some(DeValue::Table(base)) = base.get_mut(name).map(Spanned::get_mut)
        {
            lay_over(base, std::mem::take(top), tables - 1);
            continue;
        }
        // Removed first, because inserting over a key would keep the position of the old one.
        base.remove(name);
        base.insert(key, value);
    }
}

/// Where a key and its value lie.
pub(super) struct Entry {
    /// The dotted key.
    pub(super) path: String,
    key: Range<usize>,
    value: Range<usize>,
}

impl Entry {
    /// Returns the position to show: that of the key.
    pub(super) fn position(&self) -> usize {
        self.key.start
    }
}

/// Every key of a configuration and where it lies.
pub(super) struct Entries(Vec<Entry>);

impl Entries {
    /// Lists the keys of a table and of the tables and arrays in it.
    pub(super) fn of(table: &DeTable<'_>) -> Self {
        let mut entries = Self(Vec::new());
        entries.walk("", table);
        entries
    }

    /// Returns the key that is exactly at a span.
    pub(super) fn key_at(&self, span: &Range<usize>) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == *span)
    }

    /// Returns the innermost key whose value holds a span.
    pub(super) fn value_at(&self, span: &Range<usize>) -> Option<&Entry> {
        let holds = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
        let inside = self.0.iter().filter(|entry| holds(&entry.value));
        inside.min_by_key(|entry| entry.value.end - entry.value.start)
    }

    /// Returns the entry of a dotted key, or of the nearest table around it that is in the text.
    pub(super) fn nearest(&self, mut path: &str) -> Option<&Entry> {
        loop {
            if let Some(entry) = self.0.iter().find(|entry| entry.path == path) {
                return Some(entry);
            }
            path = path.rsplit_once('.')?.0;
        }
    }

    fn walk(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = format!("{prefix}{}", key.get_ref());
            self.value(&path, key, value);
        }
    }

    fn value(&mut self, path: &str, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) {
        self.0.push(Entry { path: path.into(), key: key.span(), value: value.span() });
        match value.get_ref() {
            DeValue::Table(table) => self.walk(&format!("{path}."), table),
            DeValue::Array(array) => {
                for (place, item) in array.iter().enumerate() {
                    let DeValue::Table(table) = item.get_ref() else { continue };
                    let path = format!("{path}[{place}]");
                    // It has no key: the place to show is where it begins.
                    let (key, value) = (item.span().start..item.span().start, item.span());
                    self.0.push(Entry { path: path.clone(), key, value });
                    self.walk(&format!("{path}."), table);
                }
            }
            _ => {}
        }
    }
}
