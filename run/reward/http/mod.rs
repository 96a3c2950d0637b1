//! A reward model that answers over HTTP: one of `rollforge serve-rm`, or any other that keeps the protocol.

#[cfg(test)]
mod tests;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use ureq::{Agent, http::StatusCode};

use super::{
    Completion, Source,
    program::check,
    protocol::{Asked, Question, Refusal, Scores, fingerprint},
};
use crate::{config::HttpReward, model::Tokenizer, trainer::reward::Reward};

/// The first pause before a request is made again; each is twice as long as the one before it.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// The most bytes of an answer.
const LARGEST_ANSWER: u64 = 64 << 20;

/// A server of rewards.
pub(super) struct Http {
    agent: Agent,
    options: HttpReward,
    token: Option<String>,
    tokenizer: Tokenizer,
    fingerprint: String,
}

/// What came of a request that was not answered.
enum Failure {
    /// It may be answered if it is made again.
    Passing(anyhow::Error),
    /// It will not.
    Lasting(anyhow::Error),
}

impl Http {
    /// Prepares requests; makes none.
    ///
    /// # Errors
    /// When the environment lacks the token.
    pub(super) fn new(options: &HttpReward, tokenizer: Tokenizer) -> Result<Self> {
        let token = options.token_env.as_ref().map(|name| {
            std::env::var(name)
                .with_context(|| format!("reward.token_env: {name} in the environment"))
        });
        let deadline = Duration::from_secs_f64(options.deadline_seconds);
        let agent = Agent::config_builder()
            .timeout_global(Some(deadline))
            .http_status_as_error(false)
            // A judge is named by the configuration alone.
            .proxy(None)
            .max_redirects(0)
            .build()
            .into();
        let fingerprint = fingerprint(&tokenizer.to_json()?);
        Ok(Self {
            agent,
            options: options.clone(),
            token: token.transpose()?,
            tokenizer,
            fingerprint,
        })
    }

    fn question(&self, completions: &[Completion<'_>]) -> Result<String> {
        let asked = completions.iter().map(|completion| {
            Ok(Asked {
                prompt: completion.prompt_text(&self.tokenizer)?,
                completion: completion.text(&self.tokenizer)?,
                prompt_token_ids: completion.prompt.tokens.ids().to_vec(),
                completion_token_ids: completion.rollout.completion.clone(),
            })
        });
        let completions = asked.collect::<Result<_>>()?;
        let tokenizer = Some(self.fingerprint.clone());
        Ok(serde_json::to_string(&Question { tokenizer, completions })?)
    }

    /// Asks until there is an answer, or nothing is to be hoped for.
    fn ask(&self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        let (question, since) = (self.question(completions)?, Instant::now());
        let mut pause = PAUSE;
        for attempt in 1.. {
            let error = match self.request(&question) {
                Ok(scores) => return self.checked(scores, completions),
                Err(Failure::Lasting(error)) => return Err(self.explained(error)),
                Err(Failure::Passing(error)) => error,
            };
            if attempt > self.options.retries {
                let seconds = since.elapsed().as_secs_f64();
                let tried = format!("no answer (requests made: {attempt}, in {seconds:.1} s)");
                return Err(self.explained(error.context(tried)));
            }
            thread::sleep(pause);
            pause = LONGEST_PAUSE.min(2 * pause);
        }
        unreachable!("attempts have no end")
    }

    fn request(&self, question: &str) -> Result<Scores, Failure> {
        let mut request =
            self.agent.post(&self.options.url).header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let sent = request.send(question);
        let mut answer = sent.map_err(|error| Failure::Passing(error.into()))?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string();
        let body = body.map_err(|error| Failure::Passing(error.into()))?;
        if status == StatusCode::OK {
            return serde_json::from_str(&body).map_err(|error| {
                Failure::Lasting(anyhow!(
                    "it answered {:?}, which is no answer: {error}",
                    start(&body)
                ))
            });
        }
        let said = match serde_json::from_str(&body) {
            Ok(Refusal { error }) => error,
            Err(_) => format!("{:?}", start(&body)),
        };
        let error = anyhow!("it answered {status}: {said}");
        let passing = status.is_server_error()
            || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
        Err(if passing { Failure::Passing(error) } else { Failure::Lasting(error) })
    }

    fn checked(&self, answer: Scores, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        let (asked, got) = (completions.len(), answer.scores.len());
        let check = || -> Result<()> {
            ensure!(got == asked, "it must give {asked} scores, got {got}");
            answer.scores.iter().zip(completions).try_for_each(|(score, one)| check(score, one))
        };
        check().map_err(|error| self.explained(error))?;
        Ok(answer.scores)
    }

    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        error.context(self.options.url.clone())
    }
}

/// Returns the first bytes of what a stranger said.
fn start(text: &str) -> &str {
    &text[..text.floor_char_boundary(200)]
}

impl Source for Http {
    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        let mut rewards = Vec::new();
        for batch in completions.chunks(self.options.batch) {
            rewards.extend(self.ask(batch)?);
        }
        Ok(rewards)
    }
}
