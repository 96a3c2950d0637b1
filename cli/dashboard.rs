//! `--dashboard`: the page of a run that goes on in this process.

use std::path::Path;

use super::output::note;
use crate::{
    config::{
        Config, DistillConfig, DpoConfig, KtoConfig, PpoConfig, RegressionConfig,
        RewardModelConfig, SftConfig, SpinConfig, SteerLm2Config,
    },
    run::page::{Address, Dashboard, DashboardError},
};

#[derive(Debug, clap::Args)]
pub(super) struct DashboardArguments {
    /// Show the run on a page that follows it, on this machine only; default 127.0.0.1:7070, or another port where that one
    /// is in use
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1)]
    dashboard: Option<Option<Address>>,
}

impl DashboardArguments {
    /// Serves a run's page, where that was asked for, until what it returns is dropped.
    pub(super) fn serve(
        &self,
        config: &impl RunConfig,
    ) -> Result<Option<Dashboard>, DashboardError> {
        let Some(address) = self.dashboard else { return Ok(None) };
        let dashboard = Dashboard::start(config.output_dir(), address)?;
        note(format_args!("dashboard: {}", dashboard.url()));
        Ok(Some(dashboard))
    }
}

/// A configuration of a run.
pub(super) trait RunConfig: Config {
    fn output_dir(&self) -> &Path;
}

macro_rules! run_config {
    ($($config:ty),+) => {$(
        impl RunConfig for $config {
            fn output_dir(&self) -> &Path {
                &self.output_dir
            }
        }
    )+};
}
run_config!(
    SftConfig,
    RewardModelConfig,
    RegressionConfig,
    DpoConfig,
    KtoConfig,
    SpinConfig,
    SteerLm2Config,
    DistillConfig,
    PpoConfig
);
