//! The `[memory]` section: whether a run may begin that will not fit.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer, de};

/// What becomes of a run whose memory plan does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryCheck {
    /// It is refused before anything is loaded.
    #[default]
    Stop,
    /// It begins with a warning.
    Warn,
    /// Nobody looks.
    Off,
}

/// The `[memory]` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// What becomes of a run that `rollforge plan` says does not fit: `stop`, `warn` or `off`. Default `stop`.
    pub check: MemoryCheck,
    /// What it must fit into, such as `"16GiB"`. Default: what this machine has free, and on a GPU no limit.
    pub limit: Option<ByteSize>,
}

/// A number of bytes, written for people: `1536MiB`, `16GiB`, `80GB`, or bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Units by name; the first that is not larger than a number is the one to show it in.
const UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("must be a size such as 16GiB, got {text:?}");
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (&text[..end], text[end..].trim());
        let number: f64 = number.parse().map_err(|_| refused())?;
        let unit = if unit.is_empty() { "B" } else { unit };
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let bytes = number * known.ok_or_else(refused)?.1 as f64;
        // More than any machine has; and TOML has no larger integers.
        if !(1.0..9e18).contains(&bytes) {
            return Err(refused());
        }
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) = UNITS[..4].iter().find(|(_, size)| self.0 >= *size).unwrap_or(&UNITS[3]);
        let number = self.0 as f64 / *unit as f64;
        let decimals = if *unit < 1 << 30 && (number >= 10.0 || self.0 == 0) { 0 } else { 2 };
        write!(f, "{number:.decimals$} {name}")
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a size such as \"16GiB\"")]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => bytes.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<ByteSize>().map(|size| size.0);
        assert_eq!(read("16GiB"), Ok(16 << 30));
        assert_eq!(read(" 1.5 mib "), Ok(3 << 19));
        assert_eq!(read("80GB"), Ok(80_000_000_000));
        assert_eq!(read("4096"), Ok(4096));
        for wrong in ["", "GiB", "16 gigs", "-1GiB", "0", "1e9TiB", "99999999TiB"] {
            assert_eq!(
                read(wrong),
                Err(format!("must be a size such as 16GiB, got {wrong:?}")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_fits() {
        let shown = |bytes| ByteSize(bytes).to_string();
        assert_eq!(shown(3 << 29), "1.50 GiB");
        assert_eq!(shown(200 << 20), "200 MiB");
        assert_eq!(shown(3 << 19), "1.50 MiB");
        assert_eq!(shown(3 << 10), "3.00 KiB");
        assert_eq!(shown(0), "0 KiB");
    }
}
