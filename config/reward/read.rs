//! From TOML and back: a table is one source, a list of tables under `sources` are several.

use std::fmt::{self, Formatter};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
    ser::SerializeStruct,
};
use toml::{Table, Value};

use super::{RewardConfig, RewardKind, RewardSource};

impl<'de> Deserialize<'de> for RewardConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Section)
    }
}

struct Section;

impl<'de> Visitor<'de> for Section {
    type Value = RewardConfig;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a source of rewards, or a list of sources")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RewardConfig, A::Error> {
        let (mut sources, mut one) = (None, Table::new());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                // Read where it stands: an error in one of them then has its place.
                "sources" => sources = Some(map.next_value::<Vec<RewardSource>>()?),
                _ => drop(one.insert(key, map.next_value()?)),
            }
        }
        match (sources, one.keys().next()) {
            (Some(_), Some(key)) => Err(A::Error::unknown_field(key, &["sources"])),
            (Some(sources), None) => Ok(RewardConfig { sources }),
            (None, _) => Ok(RewardConfig { sources: vec![source(one).map_err(A::Error::custom)?] }),
        }
    }
}

impl<'de> Deserialize<'de> for RewardSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(One)
    }
}

struct One;

impl<'de> Visitor<'de> for One {
    type Value = RewardSource;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a source of rewards")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RewardSource, A::Error> {
        source(Table::deserialize(MapAccessDeserializer::new(map))?).map_err(A::Error::custom)
    }
}

/// Reads one source: what all have, then what its kind has.
fn source(mut table: Table) -> Result<RewardSource, String> {
    let name = table.remove("name").map(String::deserialize).transpose();
    let name = name.map_err(|error| format!("name: {}", error.message()))?;
    let weight = match table.remove("weight") {
        None => 1.0,
        Some(Value::Integer(weight)) => weight as f64,
        Some(Value::Float(weight)) => weight,
        Some(other) => return Err(format!("weight: must be a number, got {other}")),
    };
    let kind = RewardKind::deserialize(Value::Table(table)).map_err(|error| {
        let said = error.message();
        match said.starts_with("unknown field ") {
            true => format!("{said}, `kind`, `name`, `weight`"),
            false => said.to_owned(),
        }
    })?;
    Ok(RewardSource { name: name.unwrap_or_else(|| kind.name().to_owned()), weight, kind })
}

impl Serialize for RewardConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.sources[..] {
            [only] => only.serialize(serializer),
            several => {
                let mut section = serializer.serialize_struct("RewardConfig", 1)?;
                section.serialize_field("sources", several)?;
                section.end()
            }
        }
    }
}
