//! Arguments that several benches take.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;

use super::output::OutputArguments;
use crate::{
    rollout::Dtype,
    run::bench::{Peer, Shape, Subject, Turns},
};

/// What every bench with peers takes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CommonArguments {
    #[command(flatten)]
    pub(in crate::cli) model: ModelArguments,
    /// Number format to compute in; what learns is kept in f32
    #[arg(long, value_enum, default_value_t = Format::Bf16)]
    pub(in crate::cli) dtype: Format,
    /// Number of threads, each on a core; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(in crate::cli) threads: usize,
    #[command(flatten)]
    pub(in crate::cli) turns: TurnArguments,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArguments,
}

/// Which model.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ModelArguments {
    /// A Hugging Face model directory, or a run directory. Default: a made-up model
    #[arg(long, value_name = "DIR", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// What to make up, with random weights
    #[arg(long, value_enum)]
    shape: Option<Name>,
}

impl ModelArguments {
    /// Returns what was named, if anything was.
    pub(in crate::cli) fn named(&self) -> Option<Subject> {
        let shape = self.shape.map(|name| Subject::Shape(name.shape()));
        self.model.clone().map(Subject::Directory).or(shape)
    }

    /// Returns what was named, or a shape of 135 million weights.
    pub(in crate::cli) fn subject(&self) -> Subject {
        self.named().unwrap_or(Subject::Shape(Shape::Llama135M))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    #[value(name = "5M")]
    Llama5M,
    #[value(name = "60M")]
    Llama60M,
    #[value(name = "135M")]
    Llama135M,
    #[value(name = "qwen2-0.5B")]
    Qwen2Half,
}

impl Name {
    fn shape(self) -> Shape {
        match self {
            Self::Llama5M => Shape::Llama5M,
            Self::Llama60M => Shape::Llama60M,
            Self::Llama135M => Shape::Llama135M,
            Self::Qwen2Half => Shape::Qwen2Half,
        }
    }
}

/// A number format to compute in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    F32,
    Bf16,
}

impl From<Format> for Dtype {
    fn from(format: Format) -> Self {
        match format {
            Format::F32 => Self::F32,
            Format::Bf16 => Self::Bf16,
        }
    }
}

/// How often, and with whom.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TurnArguments {
    /// How often each thing is measured in a round, after a first time that does not count
    #[arg(long, default_value_t = 5, value_name = "N")]
    repeats: usize,
    /// Rounds, in each of which we and then each peer are measured
    #[arg(long, default_value_t = 1, value_name = "N")]
    rounds: usize,
    /// Whom to compare with, on the same model, lengths and cores; may be given several times
    #[arg(long = "peer", value_enum, value_name = "PEER")]
    peers: Vec<PeerName>,
    /// Where the peers' scripts are
    #[arg(long, default_value = "benches/peers", value_name = "DIR")]
    peers_folder: PathBuf,
    /// How long a peer may take in a round
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    peer_deadline: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PeerName {
    Hf,
    #[value(name = "llamacpp")]
    LlamaCpp,
    Trl,
    Torch,
}

impl TurnArguments {
    pub(in crate::cli) fn turns(&self) -> Turns {
        let peer = |name: &PeerName| Peer {
            name: name
                .to_possible_value()
                .map(|value| value.get_name().to_owned())
                .unwrap_or_default(),
            folder: self.peers_folder.clone(),
            deadline: Duration::from_secs(self.peer_deadline),
        };
        Turns {
            repeats: self.repeats,
            rounds: self.rounds,
            peers: self.peers.iter().map(peer).collect(),
        }
    }
}
