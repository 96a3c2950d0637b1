//! What completions are worth: the sources of `[reward]`, and their weighted sum.

mod columns;
mod completion;
mod http;
mod model;
mod program;
pub(super) mod protocol;
mod sum;
mod verifiers;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    config::{PpoConfig, RewardKind, RewardSource},
    data::PromptSample,
    model::Model,
    trainer::reward::Reward,
};

use columns::Column;
pub(super) use completion::Completion;
use http::Http;
use model::RewardModel;
pub(super) use model::{FrozenModel, Judging};
use program::{Program, ProgramOptions};
pub(super) use sum::weighted_sum;
use verifiers::{ExactMatch, Format, JsonSchema, Length, Nothing, Numeric, PositionMatch, Regex};

/// When a source is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// As soon as a prompt's completions are there, while others are generated. What a completion earns must not depend on
    /// those it comes with.
    AtOnce,
    /// When all completions of an iteration are there.
    WithTheBatch,
}

/// Somebody who says what completions are worth. It works on a thread of its own.
pub(super) trait Source: Send {
    /// Checks that a prompt has what its rewards will need, for a run should not find out on the way.
    ///
    /// # Errors
    /// Names the prompt and what it lacks.
    fn check(&self, _prompt: &PromptSample) -> Result<()> {
        Ok(())
    }

    /// Says when it is asked. Default: at once.
    fn asked(&self) -> Asked {
        Asked::AtOnce
    }

    /// Returns what each completion earned, in their order.
    ///
    /// # Errors
    /// When one cannot be judged: a reward that nobody gave is never made up.
    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>>;

    /// Returns what there is to say, beside the rewards, of the completions that it scored last, by name. Default: nothing.
    fn metrics(&mut self) -> Vec<(String, f64)> {
        Vec::new()
    }

    /// Returns what ends its waiting for others, for when nobody wants its answers any more. Default: it waits for nobody.
    fn ender(&self) -> Option<Ender> {
        None
    }
}

/// Ends what a source waits for.
pub(super) type Ender = Box<dyn FnOnce() + Send>;

/// A source with its name and weight.
pub(super) struct NamedSource {
    pub(super) name: String,
    pub(super) weight: f64,
    pub(super) source: Box<dyn Source>,
}

/// Opens the sources that the configuration names, for rollouts of the policy of up to `longest` tokens. Models
/// among them compute with so many threads.
///
/// # Errors
/// When one cannot be opened; where there are several, it is named.
pub(super) fn open(
    config: &PpoConfig,
    policy: &Model,
    (longest, threads): (usize, usize),
) -> Result<Vec<NamedSource>> {
    let alone = config.reward.sources.len() == 1;
    let opened = config.reward.sources.iter().map(|RewardSource { name, weight, kind }| {
        let source = source(kind, config, policy, (longest, threads));
        let source = match alone {
            true => source?,
            false => source.with_context(|| format!("reward source {name:?}"))?,
        };
        Ok(NamedSource { name: name.clone(), weight: *weight, source })
    });
    opened.collect()
}

/// Checks that every prompt has what the sources will need.
///
/// # Errors
/// Names the first prompt that lacks something.
pub(super) fn check(sources: &[NamedSource], prompts: &[PromptSample]) -> Result<()> {
    let check =
        |named: &NamedSource| prompts.iter().try_for_each(|prompt| named.source.check(prompt));
    sources.iter().try_for_each(check)
}

fn source(
    kind: &RewardKind,
    config: &PpoConfig,
    policy: &Model,
    (longest, threads): (usize, usize),
) -> Result<Box<dyn Source>> {
    let tokenizer = || -> Result<_> { Ok(policy.tokenizer()?.clone()) };
    let column = |name: &String| Column::new(name);
    Ok(match kind {
        RewardKind::Model { path, standardize, weights } => {
            let limits = (longest, threads);
            let judging = Judging { standardize: *standardize, weights: weights.clone() };
            Box::new(RewardModel::open((path, &judging), config, policy, limits)?)
        }
        RewardKind::ExactMatch { column: name } => {
            Box::new(ExactMatch { column: column(name), tokenizer: tokenizer()? })
        }
        RewardKind::PositionMatch { column: name } => {
            Box::new(PositionMatch { column: column(name), tokenizer: tokenizer()? })
        }
        RewardKind::Regex { pattern, column: name, take } => Box::new(Regex {
            rule: verifiers::Pattern::new(pattern, *take)?,
            column: name.as_ref().map(column),
            tokenizer: tokenizer()?,
        }),
        RewardKind::Numeric { column: name, tolerance } => Box::new(Numeric {
            column: column(name),
            tolerance: *tolerance,
            tokenizer: tokenizer()?,
        }),
        RewardKind::JsonSchema { schema, schema_file } => {
            Box::new(JsonSchema::open(schema.as_ref(), schema_file.as_deref(), tokenizer()?)?)
        }
        RewardKind::Format { template, contains } => {
            Box::new(Format::new(template.as_deref(), contains, tokenizer()?)?)
        }
        RewardKind::Length { cache_tokens, max_tokens, target_tokens } => {
            let max = max_tokens.unwrap_or(config.sampling.max_new_tokens);
            Box::new(match (cache_tokens, target_tokens) {
                (_, Some(target)) => Length::Target(*target),
                (cache, None) => Length::Overlong { max, cache: cache.unwrap_or(max) },
            })
        }
        RewardKind::Program { command, directory, deadline_seconds, retries } => {
            let options = ProgramOptions {
                command: command.clone(),
                directory: directory.clone(),
                deadline: Duration::from_secs_f64(*deadline_seconds),
                retries: *retries,
            };
            Box::new(Program::start(options, tokenizer()?)?)
        }
        RewardKind::Http(options) => Box::new(Http::new(options, tokenizer()?)?),
        RewardKind::None {} => Box::new(Nothing),
    })
}
