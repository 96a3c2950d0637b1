//! Proximal policy optimisation (Schulman et al., 2017) of a language model (Ziegler et al., 2019).
//!
//! ```text
//! for each iteration
//!     sample completions from the policy, and have them scored
//!     score   old, reference log-probs and values of every token        over fixed micro-batches
//!             r_t = -kl_coef kl_t, and the score at the last token
//!             advantages and returns by GAE; whiten the advantages     other estimators: see [`super::advantage`]
//!             w_t = exp(old - rollout), bounded                        where a correction acts, else 1
//!     update  for each epoch, for each mini-batch
//!                 critic  follows  1/2 max((V - R)^2, (clip(V) - R)^2)
//!                 policy  follows  w max(-A r, -A clip(r))             r = exp(logprob - old)
//! ```
//!
//! Critic and reference are there where the options ask for them: an estimator other than GAE has no critic, and at a
//! `kl_coef` of 0 nobody asks the reference. Losses other than the clipped surrogate: see [`super::loss`].
//!
//! Everything is per completion token, the stop token included; prompts carry no loss. The value and the log-prob of
//! token `t` both come from the row of token `t - 1`. Because both passes of the box run over the same micro-batches,
//! the ratio is exactly 1 until the weights first move; see [`super::batch`]. Where `w` acts in every iteration, this is
//! the decoupled objective; see [`super::correction`].

mod advantages;
mod policy_loss;
mod stats;
mod trajectories;

use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use advantages::teaches;
use policy_loss::PolicyLoss;
pub use stats::{Foresight, PairStats, PpoStats, ScoreStats, ValueStats};
use stats::{PolicyTally, ValueTally};
pub use trajectories::Trajectories;
use trajectories::{Rollouts, Scored};

use super::{
    Error,
    batch::{MicroBatch, PackedBatch, Plan, epoch_order},
    config::{LogprobTemperature, OldLogprobs, OptimizerConfig, PpoOptions, ScheduleConfig},
    kl::KlController,
    learner::{Entropy, LanguageLearner, LanguageModel, LogprobOptions, ScoreLearner},
    loss::clipped_value,
    phases::{Phase, Phases},
    reward::{Reward, ScoreShaper},
    schedule::Schedule,
    skips::Skips,
};
use crate::rollout::{Rollout, WeightVersion};

/// The models of PPO.
pub struct PpoModels<P, C> {
    /// What is trained.
    pub policy: P,
    /// What the KL is taken against. Without one that is the policy with its adapter left out, where it has one; else there
    /// is no KL, and `kl_coef` must be 0.
    pub reference: Option<Box<dyn LanguageModel + Send>>,
    /// What foresees the rewards: needed where `advantage` is `gae`, and asked by no other estimator.
    pub critic: Option<C>,
}

/// How PPO is to be done.
#[derive(Clone, Debug)]
pub struct PpoSetup {
    /// The algorithm's options.
    pub options: PpoOptions,
    /// The optimizer's, for the policy; the critic differs by `critic_lr`.
    pub optimizer: OptimizerConfig,
    /// The learning rates' course.
    pub schedule: ScheduleConfig,
    /// The temperature at which the engine samples.
    pub temperature: f64,
    /// Draws the mini-batches.
    pub seed: u64,
}

/// Where a run stands: what a checkpoint keeps beside models and optimizers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PpoState {
    /// Iterations that are over.
    pub iteration: u64,
    /// Optimizer steps of the policy.
    pub policy_steps: u64,
    /// Optimizer steps of the critic.
    pub critic_steps: u64,
    /// Completions trained on.
    pub episodes: u64,
    /// The weight of the KL penalty.
    pub kl: KlController,
    /// The scale of scores.
    pub shaper: ScoreShaper,
    /// Optimizer steps of the policy that were skipped.
    pub policy_skips: Skips,
    /// Those of the critic.
    pub critic_skips: Skips,
}

/// A policy in PPO, and its critic where it has one.
pub struct Ppo<P, C> {
    models: PpoModels<P, C>,
    setup: PpoSetup,
    policy_schedule: Schedule,
    critic_schedule: Schedule,
    state: PpoState,
    phases: Phases,
}

impl<P: LanguageLearner, C: ScoreLearner> Ppo<P, C> {
    /// Prepares the first iteration.
    ///
    /// # Errors
    /// When an option breaks a rule, or there is no reference though `kl_coef` is above 0.
    pub fn new(models: PpoModels<P, C>, setup: PpoSetup) -> Result<Self, Error> {
        let options = &setup.options;
        options.validate()?;
        setup.optimizer.validate()?;
        setup.schedule.validate()?;
        if !(setup.temperature > 0.0 && setup.temperature.is_finite()) {
            return Err(Error::input("PPO's sampling temperature", "above 0", setup.temperature));
        }
        let coef = options.kl_coef();
        let has_reference = models.reference.is_some() || models.policy.bare().is_some();
        if options.has_reference() && !has_reference {
            return Err(match coef > 0.0 {
                true => Error::input("kl_coef", "0 without a reference policy", coef),
                false => Error::input(
                    "advantage",
                    "one that needs no reference policy where there is none",
                    "online_dpo",
                ),
            });
        }
        if models.critic.is_none() && options.has_critic() {
            return Err(Error::input(
                "advantage",
                "one that needs no critic where there is none",
                "gae",
            ));
        }
        let kl = if options.kl_target > 0.0 {
            KlController::Adaptive { coef, target: options.kl_target, horizon: options.kl_horizon }
        } else {
            KlController::Fixed { coef }
        };
        let schedule = |lr, iterations: u64| {
            let steps = iterations.saturating_mul(options.steps_per_iteration());
            Schedule::new(&setup.schedule, lr, steps)
        };
        let (lr, iterations) = (setup.optimizer.lr, options.iterations);
        Ok(Self {
            policy_schedule: schedule(lr, iterations - options.critic_warmup_iterations),
            critic_schedule: schedule(options.critic_lr.unwrap_or(lr), iterations),
            state: PpoState {
                iteration: 0,
                policy_steps: 0,
                critic_steps: 0,
                episodes: 0,
                kl,
                shaper: ScoreShaper::new(options),
                policy_skips: Skips::default(),
                critic_skips: Skips::default(),
            },
            models,
            setup,
            phases: Phases::default(),
        })
    }

    /// Turns an iteration's rollouts and what they earned into trajectories.
    ///
    /// # Errors
    /// When a rollout or its reward cannot be trained on (it is named), or a model cannot compute. Nothing has changed
    /// then.
    pub fn score(
        &mut self,
        rollouts: &[Rollout],
        rewards: &[Reward],
    ) -> Result<Trajectories, Error> {
        let options = &self.setup.options;
        let rollouts = Rollouts::check(rollouts, rewards)?;
        let seed = self.iteration_seed();
        let plan = rollouts.plan(options.mini_batches, options.micro_batch_tokens, seed);
        let scored = self.ask(&rollouts, &plan)?;
        let (options, began) = (&self.setup.options, Instant::now());
        let shaped = self.state.shaper.shape(rollouts.rewards, &rollouts.ended());
        let coef = self.state.kl.coef();
        let mut trajectories = Trajectories::new(&rollouts, plan, scored, &shaped, (options, coef));
        if options.old_logprobs == OldLogprobs::Recompute {
            trajectories.compare(&rollouts.stale(&trajectories.plan, self.version()));
        }
        if options.correction.is_always() {
            self.correct(&mut trajectories);
        }
        self.phases.ended("adv", began);
        Ok(trajectories)
    }

    /// Asks the models about every token.
    fn ask(&mut self, rollouts: &Rollouts<'_>, plan: &Plan) -> Result<Scored, Error> {
        let at = self.logprobs();
        Ok(Scored {
            old_logprobs: match self.setup.options.old_logprobs {
                OldLogprobs::Recompute => self.phases.time("old_log_prob", || {
                    each(plan, |packed| Ok(self.models.policy.logprobs(packed, &at)?.logprobs))
                })?,
                OldLogprobs::Rollout => rollouts.logprobs(plan),
            },
            ref_logprobs: match &self.models {
                PpoModels { reference: Some(reference), .. } => self.phases.time("ref", || {
                    each(plan, |packed| Ok(reference.logprobs(packed, &at)?.logprobs))
                })?,
                PpoModels { policy, .. } if self.setup.options.has_reference() => {
                    let bare = policy.bare();
                    self.phases.time("ref", || {
                        let reference = |packed: &_| match &bare {
                            Some(bare) => Ok(bare.logprobs(packed, &at)?.logprobs),
                            None => {
                                Err(Error::input("kl_coef", "0 without a reference", "another"))
                            }
                        };
                        each(plan, reference)
                    })?
                }
                _ => Vec::new(),
            },
            values: match &self.models.critic {
                Some(critic) if self.setup.options.has_critic() => {
                    self.phases.time("values", || each(plan, |packed| critic.values(packed)))?
                }
                _ => Vec::new(),
            },
        })
    }

    /// Weights the tokens of trajectories by how probable the policy and the engine thought them, as `correction` says.
    pub fn correct(&self, trajectories: &mut Trajectories) {
        trajectories.correct(&self.setup.options);
    }

    /// Returns the version of the weights that are to learn: a refit follows each iteration.
    pub fn version(&self) -> WeightVersion {
        WeightVersion(self.state.iteration)
    }

    /// Learns from an iteration's trajectories. A mini-batch whose loss or gradient is not finite is skipped.
    ///
    /// # Errors
    /// When a model cannot compute or learn.
    pub fn update(&mut self, trajectories: &Trajectories) -> Result<PpoStats, Error> {
        let options = self.setup.options.clone();
        let (mut policy, mut values) = (PolicyTally::default(), ValueTally::default());
        let warming_up = self.state.iteration < options.critic_warmup_iterations;
        self.state.policy_skips.begin();
        self.state.critic_skips.begin();
        'epochs: for epoch in 0..options.epochs() {
            let count = trajectories.plan.mini_batches.len();
            for part in epoch_order(count, epoch, self.iteration_seed()) {
                let mini_batch = &trajectories.plan.mini_batches[part];
                if options.has_critic() {
                    let began = Instant::now();
                    self.step_critic(mini_batch, trajectories, &mut values)?;
                    self.phases.ended("update_critic", began);
                }
                if warming_up {
                    continue;
                }
                let began = Instant::now();
                let kl = self.step_policy(mini_batch, trajectories, &mut policy)?;
                self.phases.ended("update_actor", began);
                if options.target_kl > 0.0 && kl > options.target_kl {
                    break 'epochs;
                }
            }
        }
        let kl_coef = self.state.kl.coef();
        let completions = trajectories.stats.lengths.len();
        if !warming_up {
            // The KL of a policy that may not move says nothing about the coefficient.
            self.state.kl.observe(trajectories.stats.kl.unwrap_or_default(), completions);
        }
        self.state.iteration += 1;
        self.state.episodes += completions as u64;
        Ok(PpoStats {
            episodes: self.state.episodes,
            lr: self.policy_schedule.lr(self.state.policy_steps.saturating_sub(1)),
            kl_coef,
            policy_skips: self.state.policy_skips,
            critic_skips: self.state.critic_skips,
            ..PpoStats::of(&policy, options.has_critic().then_some(&values))
        })
    }

    /// Takes one optimizer step of the critic.
    fn step_critic(
        &mut self,
        mini_batch: &[MicroBatch],
        trajectories: &Trajectories,
        tally: &mut ValueTally,
    ) -> Result<(), Error> {
        let (options, before) = (&self.setup.options, tally.clone());
        let Some(critic) = &mut self.models.critic else { return Ok(()) };
        for micro_batch in mini_batch {
            critic.train_values(&micro_batch.packed, &mut |values| {
                let tokens = values.iter().zip(micro_batch.rows.clone());
                tokens
                    .map(|(&value, t)| {
                        let (old, target) = (trajectories.values[t], trajectories.returns[t]);
                        let clip = options.value_clip_range;
                        let term = clipped_value(value.into(), old.into(), target.into(), clip);
                        let weight = f64::from(trajectories.value_weights[t]);
                        tally.token(&term, weight);
                        (term.gradient * weight * options.value_coef) as f32
                    })
                    .collect()
            })?;
        }
        let lr = self.critic_schedule.lr(self.state.critic_steps);
        let grad_norm = critic.step_if_finite(tally.step_loss(), lr)?;
        self.state.critic_skips.note(grad_norm);
        self.state.critic_steps += 1;
        match grad_norm {
            Some(grad_norm) => tally.step(grad_norm),
            None => *tally = before,
        }
        Ok(())
    }

    /// Takes one optimizer step of the policy. Returns the KL from the old policy before it; 0 where it was skipped.
    fn step_policy(
        &mut self,
        mini_batch: &[MicroBatch],
        trajectories: &Trajectories,
        tally: &mut PolicyTally,
    ) -> Result<f64, Error> {
        let weights = |batch: &MicroBatch| &trajectories.policy_weights[batch.rows.clone()];
        if mini_batch.iter().flat_map(weights).all(|&weight| weight == 0.0) {
            // Nothing to learn from: a step would only follow the optimizer's momentum.
            self.state.policy_steps += 1;
            return Ok(0.0);
        }
        let loss = PolicyLoss::new(&self.setup.options, self.state.kl.coef());
        let entropy =
            if self.setup.options.entropy_coef > 0.0 { Entropy::Train } else { Entropy::Measure };
        let (options, before) = (LogprobOptions { entropy, ..self.logprobs() }, tally.clone());
        for micro_batch in mini_batch {
            self.models.policy.train_logprobs(&micro_batch.packed, &options, &mut |out| {
                loss.gradients(out, micro_batch, trajectories, tally)
            })?;
        }
        let lr = self.policy_schedule.lr(self.state.policy_steps);
        let grad_norm = self.models.policy.step_if_finite(tally.step_loss(), lr)?;
        self.state.policy_skips.note(grad_norm);
        self.state.policy_steps += 1;
        Ok(match grad_norm {
            Some(grad_norm) => tally.step(grad_norm),
            None => {
                *tally = before;
                0.0
            }
        })
    }

    fn logprobs(&self) -> LogprobOptions {
        LogprobOptions::at(match self.setup.options.logprob_temperature {
            LogprobTemperature::Sampling => self.setup.temperature,
            LogprobTemperature::One => 1.0,
        })
    }

    fn iteration_seed(&self) -> u64 {
        // An odd factor: no two iterations share a seed.
        self.setup.seed.wrapping_add(self.state.iteration.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// Takes what was computed when since this was last asked.
    pub fn take_phases(&mut self) -> Vec<Phase> {
        self.phases.take()
    }

    /// Returns the policy.
    pub fn policy(&self) -> &P {
        &self.models.policy
    }

    /// Returns the policy, to restore it from a checkpoint.
    pub fn policy_mut(&mut self) -> &mut P {
        &mut self.models.policy
    }

    /// Returns the critic, where there is one.
    pub fn critic(&self) -> Option<&C> {
        self.models.critic.as_ref()
    }

    /// Returns the critic, to restore it from a checkpoint.
    pub fn critic_mut(&mut self) -> Option<&mut C> {
        self.models.critic.as_mut()
    }

    /// Returns where the run stands.
    pub fn state(&self) -> &PpoState {
        &self.state
    }

    /// Goes on where a checkpoint stood.
    pub fn restore(&mut self, state: PpoState) {
        self.state = state;
    }
}

/// Puts together what a model says of each micro-batch.
fn each(
    plan: &Plan,
    mut ask: impl FnMut(&PackedBatch) -> Result<Vec<f32>, Error>,
) -> Result<Vec<f32>, Error> {
    let mut said = Vec::with_capacity(plan.tokens());
    for micro_batch in plan.micro_batches() {
        said.extend(ask(&micro_batch.packed)?);
    }
    Ok(said)
}

#[cfg(test)]
mod tests;
