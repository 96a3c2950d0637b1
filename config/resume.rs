//! What may be another in the configuration of a run that goes on: what cannot change the numbers it has made so far.

use std::{collections::BTreeMap, path::Path};

use super::{
    Config, Error, parse,
    source::{Entries, Source},
    to_toml,
};

/// Sections and keys that say where a run writes, how much it keeps, how long it waits, what ends it, and on how many threads the
/// engine computes, whose sums do not depend on them.
const FREE: [&str; 8] = [
    "output_dir",
    "checkpoint.",
    "log.",
    "memory.",
    "stop.",
    "deadlines.",
    "invariants.",
    "engine.threads",
];
const FREE_ENDING: &str = "deadline_seconds";
/// How long a run is. A learning rate that falls to the end of the run depends on it.
const LENGTHS: [&str; 15] = [
    "ppo.iterations",
    "sft.epochs",
    "sft.max_steps",
    "reward_model.epochs",
    "reward_model.max_steps",
    "regression.epochs",
    "regression.max_steps",
    "dpo.epochs",
    "dpo.max_steps",
    "kto.epochs",
    "kto.max_steps",
    "steerlm2.epochs",
    "steerlm2.max_steps",
    "distill.epochs",
    "distill.max_steps",
];

/// A key that another value than at the beginning would make another run of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {key} was {was} when the run began, not {is}: {}", self.reason())]
pub struct Change {
    /// Where the run's configuration says so: `config.resolved.toml:12:1`.
    pub place: String,
    /// The dotted key.
    pub key: String,
    /// Its value at the beginning.
    pub was: String,
    /// Its value now.
    pub is: String,
}

impl Change {
    fn reason(&self) -> &'static str {
        match LENGTHS.contains(&self.key.as_str()) {
            true => {
                "the length of a run may change only if schedule.kind is \"constant\" and schedule.warmup_ratio is 0"
            }
            false => "a run goes on under the configuration it began with",
        }
    }
}

/// Returns the first key of a configuration that may not have changed since a run began with the one in `text`, and
/// has. `name` is what errors call that text.
///
/// # Errors
/// When the text is no configuration of such a run.
pub fn forbidden_change<T: Config>(
    name: &str,
    text: String,
    now: &T,
) -> Result<Option<Change>, Error> {
    let source = Source::new(name, text.clone(), &[])?;
    // Read as any configuration is: what it does not mention was, and is, the default.
    let began: T = parse(name, text, Path::new("/"), &[])?;
    let (was, is) = (leaves(&to_toml(&began)), leaves(&to_toml(now)));
    let lengths_are_free = is_constant(&was) && is_constant(&is);
    let may_change = |key: &str| {
        FREE.iter().any(|free| key == *free || (free.ends_with('.') && key.starts_with(free)))
            || key.ends_with(FREE_ENDING)
            || (lengths_are_free && LENGTHS.contains(&key))
    };
    let keys = was.keys().chain(is.keys());
    let changed = keys.filter(|key| was.get(*key) != is.get(*key) && !may_change(key));
    let table = source.table()?;
    let entries = Entries::of(table.get_ref());
    let position = |key: &str| entries.nearest(key).map_or(0, |entry| entry.position());
    let first = changed.min_by_key(|key| position(key));
    let value = |of: &BTreeMap<String, toml::Value>, key: &str| {
        of.get(key).map_or_else(|| "not given".to_owned(), ToString::to_string)
    };
    Ok(first.map(|key| Change {
        place: source.place(position(key)),
        key: key.clone(),
        was: value(&was, key),
        is: value(&is, key),
    }))
}

/// Says whether the learning rate of a step does not depend on how many there are.
fn is_constant(leaves: &BTreeMap<String, toml::Value>) -> bool {
    leaves.get("schedule.kind").and_then(toml::Value::as_str) == Some("constant")
        && leaves.get("schedule.warmup_ratio").and_then(toml::Value::as_float) == Some(0.0)
}

/// Returns the values of a configuration under their dotted keys.
fn leaves(text: &str) -> BTreeMap<String, toml::Value> {
    fn walk(prefix: &str, table: toml::Table, leaves: &mut BTreeMap<String, toml::Value>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(table) => walk(&format!("{prefix}{key}."), table, leaves),
                toml::Value::Array(items) if items.iter().all(toml::Value::is_table) => {
                    for (place, item) in items.into_iter().enumerate() {
                        let toml::Value::Table(table) = item else { continue };
                        walk(&format!("{prefix}{key}[{place}]."), table, leaves);
                    }
                }
                value => drop(leaves.insert(format!("{prefix}{key}"), value)),
            }
        }
    }
    let mut leaves_found = BTreeMap::new();
    walk("", text.parse().expect("we wrote it"), &mut leaves_found);
    leaves_found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SftConfig;

    const TEXT: &str = "output_dir = '/run'\nmodel.path = '/base'\ndata.train = '/a.jsonl'\n[sft]\nbatch_size = 4\n";

    fn change(began: &str, now: &str) -> Option<String> {
        let read = |more: &str| -> SftConfig {
            parse("t", format!("{TEXT}{more}"), Path::new("/"), &[]).unwrap()
        };
        let change = forbidden_change("old.toml", to_toml(&read(began)), &read(now)).unwrap();
        change.map(|change| change.to_string())
    }

    #[test]
    fn what_cannot_change_the_numbers_may_change() {
        for now in [
            "",
            "[checkpoint]\nevery = 5\nkeep = 0\nkeep_best = 3\n",
            "[log]\nsamples = 9\n",
            "[stop]\ndeadline_seconds = 5\n",
            "epochs = 7\nmax_steps = 9\n",
        ] {
            assert_eq!(change("", now), None, "{now}");
        }
    }

    #[test]
    fn the_first_key_that_would_make_another_run_is_named_with_both_values() {
        let said = change("", "packing = false\n[optimizer]\nlr = 0.5\n").unwrap();
        assert!(said.contains(": sft.packing was true when the run began, not false"), "{said}");
        assert!(said.starts_with("old.toml:") && said.ends_with("it began with"), "{said}");
        let said = change("", "[schedule]\nkind = 'linear'\n").unwrap();
        assert!(said.contains("schedule.kind was \"constant\""), "{said}");
    }

    #[test]
    fn a_run_whose_learning_rate_falls_to_its_end_keeps_its_length() {
        for schedule in ["[schedule]\nkind = 'linear'\n", "[schedule]\nwarmup_ratio = 0.1\n"] {
            let longer = format!("max_steps = 9\n{schedule}");
            let said = change(schedule, &longer).unwrap();
            assert!(said.contains("sft.max_steps was 0 when the run began, not 9"), "{said}");
            assert!(said.contains("only if schedule.kind is \"constant\""), "{said}");
        }
    }
}
