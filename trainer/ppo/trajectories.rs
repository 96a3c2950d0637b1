//! Rollouts once they are scored: rewards, values, advantages and returns of every token.

use std::ops::Range;

use super::{
    Foresight, PairStats, ScoreStats,
    advantages::{Estimate, teaches},
};
use crate::{
    rollout::{Rollout, WeightVersion},
    trainer::{
        Error,
        advantage::{Mean, whiten},
        batch::{MaskedSequence, Plan},
        config::{AdvantageEstimator, KlPlace, PpoOptions},
        correction::{CorrectionStats, ImportanceWeights, importance_weights},
        kl::KlEstimator,
        reward::{Reward, token_rewards},
        stats::{Mismatch, Summary, explained_variance, mean},
    },
};

/// An iteration's rollouts, ready to be learned from.
///
/// Vectors have one entry per completion token, in the order of the [`Plan`].
#[derive(Clone, Debug, Default)]
pub struct Trajectories {
    /// How they fall into mini-batches and micro-batches.
    pub plan: Plan,
    /// The policy's log-probs before the first optimizer step (nats).
    pub old_logprobs: Vec<f32>,
    /// The engine's, noted while sampling.
    pub rollout_logprobs: Vec<f32>,
    /// The reference policy's; empty without one.
    pub ref_logprobs: Vec<f32>,
    /// What the critic expected before the first optimizer step; empty without one.
    pub values: Vec<f32>,
    /// What each token earned, KL penalty included.
    pub rewards: Vec<f32>,
    /// How much better it did than expected, whitened where asked for.
    pub advantages: Vec<f32>,
    /// What the critic is to learn; empty without one.
    pub returns: Vec<f32>,
    /// Which rollouts count in the policy's loss.
    pub learns: Vec<bool>,
    /// What each token weighs in the policy's loss.
    pub policy_weights: Vec<f32>,
    /// What its policy gradient counts because another policy sampled it; 1 where no correction acts.
    pub importance_weights: Vec<f32>,
    /// What each token weighs in the critic's loss; empty without one.
    pub value_weights: Vec<f32>,
    /// What they look like in numbers.
    pub stats: ScoreStats,
}

/// What the models say of every token.
#[derive(Default)]
pub(super) struct Scored {
    pub(super) old_logprobs: Vec<f32>,
    pub(super) ref_logprobs: Vec<f32>,
    pub(super) values: Vec<f32>,
}

impl Trajectories {
    /// Puts together what is known of the tokens; `shaped` are the rewards after normalization and penalties, and the
    /// options come with the weight of the KL penalty.
    pub(super) fn new(
        rollouts: &Rollouts<'_>,
        plan: Plan,
        scored: Scored,
        shaped: &[Reward],
        (options, kl_coef): (&PpoOptions, f64),
    ) -> Self {
        let Scored { old_logprobs, ref_logprobs, values } = scored;
        let penalties = kl_penalties(&old_logprobs, &ref_logprobs, options);
        let rows = plan.sequence_rows();
        let mut rewards = vec![0.0; plan.tokens()];
        for (i, rows) in &rows {
            let earned = token_rewards(&shaped[*i], &penalties[rows.clone()], kl_coef as f32);
            rewards[rows.clone()].copy_from_slice(&earned);
        }
        let rlhf_reward = per_completion(&rewards, rows.len());
        let whole_rewards = of_each_rollout(&rewards, &rows);
        if options.whiten_rewards {
            whiten(&mut rewards, Mean::Keep);
        }
        let ended = rollouts.ended();
        let mut learns: Vec<bool> =
            ended.iter().map(|&ended| ended || !options.mask_unfinished).collect();
        let groups = rollouts.groups();
        if options.filter_groups {
            let (all, earned) = (rollouts.rollouts, rollouts.rewards);
            let idle = |group: &&Range<usize>| {
                !teaches(options, &all[(*group).clone()], &earned[(*group).clone()])
            };
            groups.iter().filter(idle).for_each(|group| learns[group.clone()].fill(false));
        }
        let k1 = KlEstimator::K1.values(&old_logprobs[..ref_logprobs.len()], &ref_logprobs);
        let kls = of_each_rollout(&k1, &rows);
        let estimate =
            Estimate { options, rows: &rows, rewards: &rewards, values: &values, log_ratios: &kls };
        let mut advantages = match options.advantage().compares_groups() {
            true => estimate.in_groups(&groups, shaped, &mut learns),
            false => estimate.alone(),
        };
        // No critic, no values.
        let returns: Vec<f32> = values.iter().zip(&advantages).map(|(v, a)| a + v).collect();
        let scores: Vec<f32> = rollouts.rewards.iter().map(Reward::score).collect();
        let pairs = (options.advantage() == AdvantageEstimator::OnlineDpo)
            .then(|| PairStats::of(&groups, shaped, (&kls, &learns), options.dpo_beta));
        let stats = ScoreStats {
            scores: Summary::of(&scores),
            kl: (!ref_logprobs.is_empty()).then(|| per_completion(&k1, rows.len())),
            non_score_reward: 0.0 - kl_coef * per_completion(&penalties, rows.len()),
            rlhf_reward,
            entropy: 0.0 - per_completion(&old_logprobs, rows.len()),
            ended: ended.iter().filter(|&&ended| ended).count(),
            rewards: whole_rewards,
            kls,
            lengths: rollouts.rollouts.iter().map(|r| r.completion.len() as f32).collect(),
            prompt_lengths: rollouts.prompt_lengths(),
            advantages: Summary::of(&advantages),
            foresight: options.has_critic().then(|| Foresight {
                values: Summary::of(&values),
                returns: Summary::of(&returns),
                explained_variance: explained_variance(&values, &returns),
            }),
            zero_std: options
                .advantage()
                .compares_groups()
                .then(|| share_of_equal(&groups, &scores)),
            learning: learns.iter().filter(|&&learns| learns).count(),
            pairs,
            mismatch: None,
            staleness: None,
            correction: None,
        };
        if options.whiten_advantages() {
            whiten(&mut advantages, Mean::Shift);
        }
        let normalization = options.loss_normalization();
        let mut policy_weights = plan.weights(normalization, |i| learns[i]);
        let scale = (1.0 / options.loss_length()) as f32;
        policy_weights.iter_mut().for_each(|weight| *weight *= scale);
        let value_weights = match options.has_critic() {
            true => plan.weights(normalization, |_| true),
            false => Vec::new(),
        };
        Self {
            rollout_logprobs: rollouts.logprobs(&plan),
            importance_weights: vec![1.0; plan.tokens()],
            plan,
            old_logprobs,
            ref_logprobs,
            values,
            rewards,
            advantages,
            returns,
            learns,
            policy_weights,
            value_weights,
            stats,
        }
    }

    /// Measures how far engine and trainer are apart: on the tokens of the weights that are to learn, which both know, and
    /// on `stale` ones by themselves.
    pub(super) fn compare(&mut self, stale: &[bool]) {
        let between = |wanted: bool| {
            Mismatch::between(&self.old_logprobs, &self.rollout_logprobs, |t| stale[t] == wanted)
        };
        let (mismatch, staleness) = (between(false), between(true));
        (self.stats.mismatch, self.stats.staleness) = (mismatch, staleness);
    }

    /// Weights each token as the options say.
    pub(super) fn correct(&mut self, options: &PpoOptions) {
        let completion = |rows: std::ops::Range<usize>| {
            importance_weights(
                &self.old_logprobs[rows.clone()],
                &self.rollout_logprobs[rows],
                &options.correction,
                options.max_log_ratio,
            )
        };
        let completions: Vec<ImportanceWeights> =
            self.plan.sequence_rows().into_iter().map(|(_, rows)| completion(rows)).collect();
        self.stats.correction = Some(CorrectionStats::of(&completions));
        self.importance_weights = completions.into_iter().flat_map(|one| one.weights).collect();
    }
}

/// Returns the estimates to be taken off the rewards: none where the penalty is in the loss, or there is no reference.
fn kl_penalties(old_logprobs: &[f32], ref_logprobs: &[f32], options: &PpoOptions) -> Vec<f32> {
    if ref_logprobs.is_empty() || options.kl_in() == KlPlace::Loss {
        return vec![0.0; old_logprobs.len()];
    }
    options.kl_estimator().values(old_logprobs, ref_logprobs)
}

/// Returns the sum over all tokens, divided by the number of completions.
fn per_completion(tokens: &[f32], completions: usize) -> f64 {
    mean(tokens) * tokens.len() as f64 / completions.max(1) as f64
}

/// Returns the sum over each completion's tokens, in the order of the rollouts; 0 where no token has a number.
fn of_each_rollout(tokens: &[f32], rows: &[(usize, Range<usize>)]) -> Vec<f32> {
    let mut sums = vec![0.0; rows.len()];
    for (i, rows) in rows {
        sums[*i] = tokens.get(rows.clone()).unwrap_or_default().iter().sum();
    }
    sums
}

/// Returns the share of prompts whose completions all scored the same.
fn share_of_equal(groups: &[Range<usize>], scores: &[f32]) -> f64 {
    let equal = |group: &&Range<usize>| {
        let scores = &scores[(*group).clone()];
        scores.iter().all(|&score| score == scores[0])
    };
    groups.iter().filter(equal).count() as f64 / groups.len().max(1) as f64
}

/// Rollouts and their rewards, of which every one can be trained on.
pub(super) struct Rollouts<'a> {
    pub(super) rollouts: &'a [Rollout],
    pub(super) rewards: &'a [Reward],
    sequences: Vec<(Vec<u32>, Vec<bool>)>,
}

impl<'a> Rollouts<'a> {
    /// Checks each rollout and its reward.
    pub(super) fn check(rollouts: &'a [Rollout], rewards: &'a [Reward]) -> Result<Self, Error> {
        if rollouts.is_empty() {
            return Err(Error::input("rollouts", "at least 1", 0));
        }
        if rewards.len() != rollouts.len() {
            return Err(Error::input("rewards", "one for each rollout", rewards.len()));
        }
        for (rollout, reward) in rollouts.iter().zip(rewards) {
            check(rollout, reward)?;
        }
        let sequences = rollouts.iter().map(|rollout| {
            let prompt = rollout.prompt.tokens.ids().len();
            let tokens = rollout.sequence();
            let mask = (0..tokens.len()).map(|t| t >= prompt).collect();
            (tokens, mask)
        });
        Ok(Self { rollouts, rewards, sequences: sequences.collect() })
    }

    /// Returns where the completions of each prompt stand. A prompt that is drawn again has its completions anew.
    fn groups(&self) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        for (i, rollout) in self.rollouts.iter().enumerate() {
            let before = i.checked_sub(1).map(|before| &self.rollouts[before]);
            let same = |before: &&Rollout| {
                before.prompt.id == rollout.prompt.id && before.sample < rollout.sample
            };
            match (before.filter(same), groups.last_mut()) {
                (Some(_), Some(group)) => group.end = i + 1,
                _ => groups.push(i..i + 1),
            }
        }
        groups
    }

    /// Draws the micro-batches.
    pub(super) fn plan(&self, mini_batches: usize, token_budget: usize, seed: u64) -> Plan {
        let sequences: Vec<MaskedSequence<'_>> =
            self.sequences.iter().map(|(tokens, mask)| MaskedSequence { tokens, mask }).collect();
        Plan::draw(&sequences, mini_batches, token_budget, seed)
    }

    /// Says of each rollout whether it ended by itself.
    pub(super) fn ended(&self) -> Vec<bool> {
        self.rollouts.iter().map(|rollout| rollout.stop.is_end()).collect()
    }

    /// Returns the tokens of each rollout's prompt.
    fn prompt_lengths(&self) -> Vec<f32> {
        self.rollouts.iter().map(|rollout| rollout.prompt.tokens.ids().len() as f32).collect()
    }

    /// Returns the engine's log-probs in the order of the plan.
    pub(super) fn logprobs(&self, plan: &Plan) -> Vec<f32> {
        let mut logprobs = vec![0.0; plan.tokens()];
        for (i, rows) in plan.sequence_rows() {
            logprobs[rows].copy_from_slice(&self.rollouts[i].rollout_logprobs);
        }
        logprobs
    }

    /// Says of each token, in the order of the plan, whether older weights than the `current` ones sampled it.
    pub(super) fn stale(&self, plan: &Plan, current: WeightVersion) -> Vec<bool> {
        let mut stale = vec![false; plan.tokens()];
        for (i, rows) in plan.sequence_rows() {
            let mut start = rows.start;
            for span in &self.rollouts[i].versions {
                let end = start + span.tokens as usize;
                stale[start..end].fill(span.version.staleness(current) > 0);
                start = end;
            }
        }
        stale
    }
}

fn check(rollout: &Rollout, reward: &Reward) -> Result<(), Error> {
    let name =
        |what| format!("{what} of prompt {}, sample {}", rollout.prompt.id.0, rollout.sample);
    let tokens = rollout.completion.len();
    if rollout.prompt.tokens.ids().is_empty() {
        return Err(Error::input(name("the tokens"), "at least one before the completion", 0));
    }
    if tokens == 0 {
        return Err(Error::input(name("the completion"), "at least one token", 0));
    }
    let logprobs = rollout.rollout_logprobs.len();
    if logprobs != tokens {
        return Err(Error::input(name("the log-probs"), "as many as its tokens", logprobs));
    }
    if let Some(logprob) = rollout.rollout_logprobs.iter().find(|logprob| !logprob.is_finite()) {
        return Err(Error::input(name("a log-prob"), "finite", logprob));
    }
    let dated: usize = rollout.versions.iter().map(|span| span.tokens as usize).sum();
    if dated != tokens {
        return Err(Error::input(name("the version spans"), "of as many tokens as it has", dated));
    }
    if !reward.is_finite() {
        return Err(Error::input(name("the reward"), "finite", reward.score()));
    }
    match reward {
        Reward::PerToken(rewards) if rewards.len() != tokens => {
            let got = format!("{} for {tokens} tokens", rewards.len());
            Err(Error::input(name("the per-token rewards"), "one for each token", got))
        }
        _ => Ok(()),
    }
}
