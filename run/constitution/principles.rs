//! What an answer is held against.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    config::{Principle, PrinciplesSource, Stage},
    data::{Order, open_rows},
};

/// Bytes of a file of principles: thousands of them.
const LONGEST: u64 = 1 << 24;

/// The principles, and which is next.
#[derive(Clone, Debug)]
pub(super) struct Principles {
    list: Vec<Principle>,
    /// Each comes as often as any other.
    order: Order,
}

impl Principles {
    /// Reads them; each must have what the stage asks with.
    ///
    /// # Errors
    /// One line that names the file, and the principle at fault.
    pub(super) fn read(source: &PrinciplesSource, stage: Stage, seed: u64) -> Result<Self> {
        let (place, named) = match source {
            PrinciplesSource::File(path) => (path.display().to_string(), read_file(path)?),
            PrinciplesSource::Here(list) => {
                ("constitution.principles".to_owned(), numbered(list.iter().cloned()))
            }
        };
        ensure!(!named.is_empty(), "{place}: must have at least one principle");
        for (name, Principle { critique, revision, comparison }) in &named {
            let needed = match stage {
                Stage::Revise => vec![("critique", critique), ("revision", revision)],
                Stage::Compare => vec![("comparison", comparison)],
            };
            for (key, text) in needed {
                ensure!(!text.trim().is_empty(), "{place}: principle {name} must have {key:?}");
            }
        }
        let list: Vec<Principle> = named.into_iter().map(|(_, principle)| principle).collect();
        Ok(Self { order: Order::shuffled(list.len(), seed), list })
    }

    /// Draws the next one: all of them before any comes again.
    pub(super) fn draw(&mut self) -> Principle {
        let next = self.order.next().unwrap_or_default();
        self.list[next].clone()
    }
}

fn numbered<T>(list: impl IntoIterator<Item = T>) -> Vec<(String, T)> {
    (1..).map(|number: usize| number.to_string()).zip(list).collect()
}

/// Reads a list of principles, or Anthropic's dictionary of them, with their names.
fn read_file(path: &Path) -> Result<Vec<(String, Principle)>> {
    let shown = path.display();
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
    let read = file.take(LONGEST + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {shown}"))?;
    ensure!(text.len() as u64 <= LONGEST, "{shown}: must have at most {LONGEST} bytes");
    let value = serde_json::from_str(&text).with_context(|| format!("{shown}: malformed JSON"))?;
    let named: Vec<(String, Value)> = match value {
        Value::Array(list) => numbered(list),
        Value::Object(list) => list.into_iter().collect(),
        _ => bail!("{shown}: must be a list of principles"),
    };
    let principle = |(name, value)| {
        let principle = serde_json::from_value(value);
        let principle = principle.with_context(|| format!("{shown}: principle {name}"))?;
        Ok((name, principle))
    };
    named.into_iter().map(principle).collect()
}

/// Reads conversations to put before each, and joins them.
///
/// # Errors
/// One line that names the file and the row at fault.
pub(super) fn examples(path: &Path) -> Result<Vec<Value>> {
    let mut turns = Vec::new();
    for row in open_rows(path)? {
        let mut row = row?;
        let place = row.place.clone();
        let messages = row.columns.shift_remove("messages");
        let messages = messages.as_ref().and_then(Value::as_array).with_context(|| {
            format!("{place}: column \"messages\" must be a list of {{role, content}}")
        })?;
        for message in messages {
            let text = |key: &str| message.get(key).is_some_and(Value::is_string);
            ensure!(
                text("role") && text("content"),
                "{place}: column \"messages\" must be a list of {{role, content}}"
            );
        }
        turns.extend_from_slice(messages);
    }
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(text: &str, stage: Stage) -> Result<Vec<Principle>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.json");
        fs::write(&path, text).unwrap();
        let source = PrinciplesSource::File(path);
        Principles::read(&source, stage, 0).map(|read| read.list).map_err(|error| {
            format!("{error:#}").replace(&format!("{}/", folder.path().display()), "")
        })
    }

    #[test]
    fn a_list_and_a_dictionary_of_instructions_are_read() {
        let ours = read(r#"[{"critique": "c", "revision": "r"}]"#, Stage::Revise).unwrap();
        let theirs = r#"{"harmful0": {"prompt": "c", "edit_request": "r"}}"#;
        assert_eq!(read(theirs, Stage::Revise).unwrap(), ours);
        assert_eq!((ours[0].critique.as_str(), ours[0].revision.as_str()), ("c", "r"));
    }

    #[test]
    fn a_file_that_cannot_be_asked_with_is_named() {
        let pair = r#"{"critique": "c", "revision": "r"}"#;
        let table = [
            ("[".to_owned(), Stage::Revise, "p.json: malformed JSON"),
            ("3".into(), Stage::Revise, "p.json: must be a list of principles"),
            ("[]".into(), Stage::Revise, "p.json: must have at least one principle"),
            (
                format!("[{pair}, {{\"critique\": \"c\"}}]"),
                Stage::Revise,
                "p.json: principle 2 must have \"revision\"",
            ),
            (format!("[{pair}]"), Stage::Compare, "p.json: principle 1 must have \"comparison\""),
            (
                r#"{"a": {"critic": "c"}}"#.into(),
                Stage::Revise,
                "p.json: principle a: unknown field `critic`",
            ),
        ];
        for (text, stage, wanted) in table {
            let said = read(&text, stage).unwrap_err();
            assert!(said.starts_with(wanted), "{said}");
        }
    }

    #[test]
    fn every_principle_is_drawn_before_one_comes_again() {
        let list: Vec<Principle> = (0..5)
            .map(|i| Principle { comparison: i.to_string(), ..Principle::default() })
            .collect();
        let mut principles = Principles { order: Order::shuffled(5, 3), list };
        for _ in 0..2 {
            let mut drawn: Vec<String> = (0..5).map(|_| principles.draw().comparison).collect();
            drawn.sort();
            assert_eq!(drawn, ["0", "1", "2", "3", "4"]);
        }
    }
}
