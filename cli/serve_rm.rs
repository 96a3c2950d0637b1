//! `rollforge serve-rm`: a reward model that answers over HTTP.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, ensure};
use clap::ValueEnum;

use super::{named_number::named_number, trainer};
use crate::{config::ComputeDtype, trainer::config::Device};

/// Serve a reward model over HTTP, for `reward.kind = "http"` of runs elsewhere (docs/rewards.md)
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The reward model's directory, or that of a run: then its latest checkpoint
    #[arg(long, value_name = "DIR")]
    pub(super) model: PathBuf,
    /// Where to listen; port 0 takes any that is free. Others than this machine need --token-env
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7071")]
    pub(super) listen: SocketAddr,
    /// The environment variable that holds the token which requests must have
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// Bring scores to mean 0 and variance 1 by what `rollforge rm` wrote beside the weights
    #[arg(long)]
    pub(super) standardize: bool,
    /// What each label of a model with several counts: helpfulness=0.65,verbosity=-0.4
    #[arg(long, value_name = "NAME=NUMBER,...", value_delimiter = ',', value_parser = named_number)]
    pub(super) weights: Vec<(String, f64)>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value_t = Device::Cpu)]
    pub(super) device: Device,
    /// Number format to compute in
    #[arg(long, value_enum, default_value_t = Format::F32)]
    pub(super) dtype: Format,
    /// Number of threads; 0 takes every core
    #[arg(long, default_value_t = 0)]
    pub(super) threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    F32,
    Bf16,
}

impl From<Format> for ComputeDtype {
    fn from(format: Format) -> Self {
        match format {
            Format::F32 => Self::F32,
            Format::Bf16 => Self::Bf16,
        }
    }
}

impl Arguments {
    /// Returns the token that requests must have.
    fn token(&self) -> anyhow::Result<Option<String>> {
        let named = self.token_env.as_ref().map(|name| {
            std::env::var(name).with_context(|| format!("--token-env {name}: in the environment"))
        });
        let token = named.transpose()?;
        ensure!(
            token.as_ref().is_none_or(|token| !token.is_empty()),
            "the token must not be empty"
        );
        let address = self.listen;
        ensure!(
            address.ip().is_loopback() || token.is_some(),
            "--listen {address} is open to others, and needs --token-env; or listen on 127.0.0.1"
        );
        Ok(token)
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    trainer::serve_rm(arguments, arguments.token()?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn token(more: &[&str]) -> Result<Option<String>, String> {
        let line = ["serve-rm", "--model", "rm"].iter().chain(more);
        let arguments = Line::try_parse_from(line).map_err(|error| error.to_string())?.arguments;
        arguments.token().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn others_than_this_machine_need_a_token() {
        assert_eq!(token(&[]), Ok(None));
        assert_eq!(token(&["--listen", "[::1]:0"]), Ok(None));
        let open = ["--listen", "0.0.0.0:7071"];
        assert!(token(&open).unwrap_err().contains("open to others, and needs --token-env"));
        // A variable that every environment of a test has stands for the token.
        let named = [&open[..], &["--token-env", "PATH"]].concat();
        assert_eq!(token(&named), Ok(std::env::var("PATH").ok()));
        let said = token(&["--token-env", "ROLLFORGE_TEST_NO_SUCH_TOKEN"]).unwrap_err();
        assert!(said.starts_with("--token-env ROLLFORGE_TEST_NO_SUCH_TOKEN: "), "{said}");
        assert!(token(&["--listen", "7071"]).is_err());
    }
}
