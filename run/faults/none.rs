//! Nothing goes wrong on demand.

use std::sync::Arc;

use anyhow::Result;

use crate::{
    config::PpoConfig,
    engine::{Engine, EngineConfig, EngineModel, Error},
    run::generator::Answered,
    trainer::{ppo::Trajectories, reward::Reward},
};

/// No faults.
#[derive(Clone)]
pub(in crate::run) struct Faults;

#[allow(clippy::unused_self, reason = "as in a build that has faults")]
impl Faults {
    pub(in crate::run) fn of(_config: &PpoConfig) -> Self {
        Self
    }

    #[allow(clippy::unnecessary_wraps, reason = "as in a build that has faults")]
    pub(in crate::run) fn strike(&self, _place: &str, _iteration: u64) -> Result<()> {
        Ok(())
    }

    pub(in crate::run) fn spoil_rewards(
        &self,
        _iteration: u64,
        rewards: Vec<Reward>,
    ) -> Vec<Reward> {
        rewards
    }

    pub(in crate::run) fn spoil_batch(&self, _iteration: u64, _batch: &mut [Arc<Answered>]) {}

    pub(in crate::run) fn spoil_gradient(&self, _iteration: u64, _trajectories: &mut Trajectories) {
    }

    pub(in crate::run) fn engine(
        &self,
        config: EngineConfig,
        model: EngineModel,
    ) -> Result<Engine, Error> {
        Engine::builder().config(config).model(model).build()
    }
}
