//! What a bench found, as it is written and read.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Limits, Row, number};
use crate::run::{machine::Description, placement};

/// What a bench found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was measured: `engine`, `train`, `refit`, `queue` or `ppo`.
    pub bench: String,
    /// The arguments it was started with.
    pub command: Vec<String>,
    /// Under which circumstances.
    pub settings: Map<String, Value>,
    /// Where.
    pub machine: Description,
    /// The cores that everything ran on, peers too.
    pub cores: Vec<usize>,
    /// What these cores can do at most, measured before anything else.
    pub limits: Limits,
    /// What was measured of ours.
    pub rows: Vec<Row>,
    /// What was measured of others.
    pub peers: Vec<PeerRows>,
    /// How many times better we are, for each thing that another did too.
    pub ratios: Vec<Ratio>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// What was measured of a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRows {
    /// Its name: `hf`, `llamacpp`, `trl` or `torch`.
    pub name: String,
    /// Versions of what it is made of.
    pub versions: Map<String, Value>,
    /// What was measured.
    pub rows: Vec<Row>,
    /// Whether it computes what we compute.
    pub agreement: Option<Agreement>,
}

/// Whether two compute the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// Whether they agree.
    pub agrees: bool,
    /// In what, how far, and within which tolerance.
    pub found: String,
}

/// How one of our rows and one of a peer's compare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Our row.
    pub row: String,
    /// The peer.
    pub peer: String,
    /// How the peer did it, where it did it in several ways: `static`.
    pub variant: String,
    /// The peer's median, in the row's unit.
    pub median: f64,
    /// How many times better our median is than the peer's.
    pub times_better: f64,
}

impl Report {
    /// Settles this thread on its cores (0: every one), and measures what they can do; `progress` hears of it.
    ///
    /// # Errors
    /// When there are not so many cores.
    pub(super) fn begin(
        bench: &str,
        threads: usize,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let machine = Description::of_this_machine();
        let cores = placement::pin(threads)?;
        progress("what the machine can do at most");
        let limits = Limits::measure(cores.len())?;
        let unoptimised = "this is no release build: it is slower than what is used";
        let notes = cfg!(debug_assertions).then(|| unoptimised.to_owned());
        Ok(Self {
            bench: bench.into(),
            command: Vec::new(),
            settings: Map::new(),
            machine,
            cores,
            limits,
            rows: Vec::new(),
            peers: Vec::new(),
            ratios: Vec::new(),
            notes: notes.into_iter().collect(),
        })
    }

    /// Notes a circumstance.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.settings.insert(name.into(), value.into());
    }

    /// Compares our rows with those of the peers.
    pub(super) fn compare(&mut self) {
        let Self { rows, peers, .. } = self;
        let pairs = rows.iter().flat_map(|ours| {
            peers.iter().flat_map(move |peer| {
                peer.rows.iter().filter_map(|theirs| {
                    let (variant, median) = (ours.variant(theirs)?, theirs.values.median());
                    Some(Ratio {
                        row: ours.name.clone(),
                        peer: peer.name.clone(),
                        variant: variant.into(),
                        median,
                        times_better: ours.unit.advantage(ours.values.median(), median),
                    })
                })
            })
        });
        self.ratios = pairs.collect();
    }

    /// Returns lines on where, with what and on which cores it was measured, and what those can do at most.
    pub fn circumstances(&self) -> Vec<String> {
        let Limits { threads, kernels, .. } = &self.limits;
        let cores = self.cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        vec![
            self.machine.machine(),
            format!(
                "{threads} threads on cores {cores}, kernels {kernels}, {}",
                self.machine.program()
            ),
            self.limits.describe(),
        ]
    }

    /// Returns lines on what was found beside numbers.
    pub fn findings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for PeerRows { name, versions, rows, agreement } in &self.peers {
            let versions = versions.iter().map(|(of, version)| match version.as_str() {
                Some(version) => format!("{of} {version}"),
                None => format!("{of} {version}"),
            });
            lines.push(format!("{name}: {}", versions.collect::<Vec<_>>().join(", ")));
            for row in rows.iter().filter(|row| !self.has_pair(row)) {
                let (median, unit) = (number(row.values.median()), row.unit.name());
                lines.push(format!("{name} alone: {} {median} {unit}", row.name));
            }
            if let Some(Agreement { agrees, found }) = agreement {
                let agrees = if *agrees { "agrees" } else { "does not agree" };
                lines.push(format!("{name} {agrees}: {found}"));
            }
        }
        lines.extend(self.notes.iter().cloned());
        lines
    }

    fn has_pair(&self, theirs: &Row) -> bool {
        self.rows.iter().any(|ours| ours.variant(theirs).is_some())
    }

    /// Returns the comparisons of a row.
    pub fn ratios_of<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = &'a Ratio> {
        self.ratios.iter().filter(|ratio| ratio.row == row.name)
    }
}

impl Ratio {
    /// Returns the peer's name, with how it did it.
    pub fn name(&self) -> String {
        let gap = if self.variant.is_empty() { "" } else { ", " };
        format!("{}{gap}{}", self.peer, self.variant.replace('_', " "))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::run::bench::Unit;

    /// A report of made-up numbers.
    pub(in crate::run::bench) fn example() -> Report {
        let rate = |stem, values: &[f64], limit| {
            Row::new(stem, Unit::TokensPerSecond, values.to_vec(), limit).unwrap()
        };
        let limits = Limits {
            threads: 2,
            kernels: "avx2".into(),
            read_gb_per_s: 30.0,
            copy_gb_per_s: 12.0,
            f32_gflops: 100.0,
            bf16_gflops: 200.0,
        };
        let mut report = Report {
            bench: "engine".into(),
            command: vec!["bench".into(), "engine".into()],
            settings: Map::new(),
            machine: Description::of_this_machine(),
            cores: vec![0, 1],
            limits,
            rows: vec![
                rate("decode_b1", &[90.0, 110.0, 100.0], Some(200.0)),
                rate("decode_b32", &[1000.0], Some(4000.0)),
                Row::new("load", Unit::Seconds, vec![2.0], None).unwrap(),
            ],
            peers: vec![PeerRows {
                name: "hf".into(),
                versions: Map::new(),
                rows: vec![
                    rate("decode_b1", &[25.0], None),
                    rate("decode_b32_static", &[400.0], None),
                    Row::new("load", Unit::Seconds, vec![5.0], None).unwrap(),
                    Row::new("compile", Unit::Seconds, vec![70.0], None).unwrap(),
                ],
                agreement: Some(Agreement { agrees: true, found: "8 of 8".into() }),
            }],
            ratios: Vec::new(),
            notes: vec!["a note".into()],
        };
        report.compare();
        report
    }

    #[test]
    fn each_pair_is_compared_and_less_time_is_better() {
        let report = example();
        let found: Vec<_> =
            report.ratios.iter().map(|r| (r.row.as_str(), r.name(), r.times_better)).collect();
        let wanted = [
            ("decode_b1_tokens_per_s", "hf".to_owned(), 4.0),
            ("decode_b32_tokens_per_s", "hf, static".to_owned(), 2.5),
            ("load_s", "hf".to_owned(), 2.5),
        ];
        assert_eq!(found, wanted);
        assert_eq!(report.ratios_of(&report.rows[1]).count(), 1);
    }

    #[test]
    fn a_report_reads_back() {
        let text = serde_json::to_string(&example()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), example());
    }
}
