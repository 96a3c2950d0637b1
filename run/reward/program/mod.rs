//! Any program that judges completions, over JSON lines: one out for each completion, one back.

mod answer;
mod process;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Result, anyhow, bail};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Completion, Ender, Source};
use crate::{model::Tokenizer, trainer::reward::Reward};
use answer::Answer;
pub(super) use answer::check;
use process::{Gone, Process, Slot};

/// How a program is started and waited for.
#[derive(Clone, Debug)]
pub(super) struct ProgramOptions {
    /// The program and its arguments.
    pub(super) command: Vec<String>,
    /// The folder it runs in.
    pub(super) directory: PathBuf,
    /// The longest time without an answer while one is due.
    pub(super) deadline: Duration,
    /// How often in a row it is started again without having answered anything.
    pub(super) retries: u32,
}

/// A program that is kept alive.
///
/// # Drop
/// Ends it, and what it has started.
pub(super) struct Program {
    options: ProgramOptions,
    tokenizer: Tokenizer,
    /// The living process, which others may end.
    slot: Arc<Slot>,
    process: Option<Process>,
    next_id: u64,
}

/// What the program reads.
#[derive(Serialize)]
struct Question<'a> {
    id: u64,
    prompt: String,
    completion: String,
    /// The other columns of the prompt's row.
    row: &'a Map<String, Value>,
}

impl Program {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(options: ProgramOptions, tokenizer: Tokenizer) -> Result<Self> {
        let slot = Arc::new(Slot::default());
        let process = Some(Process::start(&options, &slot)?);
        Ok(Self { options, tokenizer, slot, process, next_id: 0 })
    }

    fn question(&self, id: u64, completion: &Completion<'_>) -> Result<String> {
        let question = Question {
            id,
            prompt: completion.prompt_text(&self.tokenizer)?,
            completion: completion.text(&self.tokenizer)?,
            row: &completion.prompt.extra,
        };
        Ok(serde_json::to_string(&question)? + "\n")
    }

    /// Asks for every completion that has no reward yet, and enters the answers.
    ///
    /// # Errors
    /// [`Gone`] when the program dies or does not answer in time; another when it says something that is no answer.
    fn ask(
        &mut self,
        completions: &[Completion<'_>],
        rewards: &mut [Option<Reward>],
    ) -> Result<()> {
        let mut due = HashMap::new();
        for (i, completion) in completions.iter().enumerate() {
            if rewards[i].is_none() {
                due.insert(self.next_id, i);
                let question = self.question(self.next_id, completion)?;
                self.next_id += 1;
                self.living()?.write(question);
            }
        }
        while !due.is_empty() {
            let line = self.living()?.read()?;
            let answer = Answer::parse(&line)?;
            let unasked = || anyhow!("it answered for an id that it was not asked for: {line:?}");
            let i = due.remove(&answer.id).ok_or_else(unasked)?;
            rewards[i] = Some(answer.reward(&completions[i])?);
        }
        Ok(())
    }

    fn living(&mut self) -> Result<&mut Process> {
        let process = match self.process.take() {
            Some(process) => process,
            None => Process::start(&self.options, &self.slot)?,
        };
        Ok(self.process.insert(process))
    }

    /// Says with an error which program it was, for which completion it was wanted, and what it said last.
    fn explained(
        &self,
        error: &anyhow::Error,
        said: &str,
        waiting: &dyn std::fmt::Display,
    ) -> anyhow::Error {
        let said = if said.is_empty() { "nothing".to_owned() } else { format!("{said:?}") };
        anyhow!(
            "program {:?}: {error:#}; waiting for {waiting}; its last words (stderr): {said}",
            self.options.command.join(" ")
        )
    }
}

impl Source for Program {
    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        let mut rewards: Vec<Option<Reward>> = vec![None; completions.len()];
        let (mut failures, mut known) = (0, 0);
        while let Err(error) = self.ask(completions, &mut rewards) {
            // What it has in hand is lost with it, whatever went wrong.
            let said = self.process.take().map(Process::end).unwrap_or_default();
            let answered = rewards.iter().flatten().count();
            failures = if answered > known { 1 } else { failures + 1 };
            known = answered;
            let Some(first) = rewards.iter().position(Option::is_none) else { bail!(error) };
            if !error.is::<Gone>() {
                return Err(self.explained(&error, &said, &completions[first]));
            }
            if failures > self.options.retries {
                let error = error.context(format!("failed {failures} times in a row"));
                return Err(self.explained(&error, &said, &completions[first]));
            }
        }
        Ok(rewards.into_iter().flatten().collect())
    }

    fn ender(&self) -> Option<Ender> {
        let slot = self.slot.clone();
        Some(Box::new(move || slot.close()))
    }
}
