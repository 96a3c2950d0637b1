//! What a program says of a completion.

use anyhow::{Result, bail, ensure};
use serde::Deserialize;

use crate::{run::reward::Completion, trainer::reward::Reward};

/// One line of its output.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    /// The question's.
    pub(super) id: u64,
    /// A number, or one for each token of the completion.
    #[serde(default)]
    score: Option<Reward>,
    /// Why there is none.
    #[serde(default)]
    error: Option<String>,
}

impl Answer {
    /// Reads a line.
    ///
    /// # Errors
    /// When it is no answer.
    pub(super) fn parse(line: &str) -> Result<Self> {
        let parsed = serde_json::from_str(line);
        parsed.map_err(|error| anyhow::anyhow!("it said {line:?}, which is no answer: {error}"))
    }

    /// Returns the reward of the completion that was asked for.
    ///
    /// # Errors
    /// When there is none, or one that cannot be used.
    pub(super) fn reward(self, completion: &Completion<'_>) -> Result<Reward> {
        match (self.score, self.error) {
            (_, Some(error)) => bail!("it could not judge {completion}: {error:?}"),
            (None, None) => bail!("its answer for {completion} has no score"),
            (Some(reward), None) => {
                check(&reward, completion)?;
                Ok(reward)
            }
        }
    }
}

/// Checks that a reward from outside is finite, and as long as its completion where it has parts.
///
/// # Errors
/// Names the completion.
pub(in crate::run::reward) fn check(reward: &Reward, completion: &Completion<'_>) -> Result<()> {
    ensure!(reward.is_finite(), "its score for {completion} must be finite, got {reward:?}");
    if let Reward::PerToken(parts) = reward {
        let (tokens, got) = (completion.rollout.completion.len(), parts.len());
        ensure!(
            got == tokens,
            "its score for {completion} must be one number or {tokens}, got {got}"
        );
    }
    Ok(())
}
