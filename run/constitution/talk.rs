//! Conversations as the model reads and continues them.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    config::TalkFormat,
    engine::{Engine, Request, SamplingParams},
    model::{ChatOptions, ChatTemplate, Tokenizer},
    rollout::{Prompt, PromptId},
};

/// What opens the next turn of somebody who is not the assistant, in the plain format.
const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// A turn.
pub(super) fn turn(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

/// A model to talk to.
pub(super) struct Talk<'a> {
    engine: Engine,
    tokenizer: &'a Tokenizer,
    /// `None` writes conversations down plainly.
    template: Option<&'a ChatTemplate>,
    /// How it speaks; `n` is how many times.
    sampling: SamplingParams,
    /// The longest prompt (tokens).
    longest: usize,
    /// Requests so far: none draws the same random numbers as another.
    asked: u64,
}

impl<'a> Talk<'a> {
    /// Prepares to talk in a format; without one, by the chat template where there is one.
    ///
    /// # Errors
    /// When there must be a template, and there is none; when nothing can be said within the context.
    pub(super) fn new(
        (engine, tokenizer): (Engine, &'a Tokenizer),
        template: Option<&'a ChatTemplate>,
        format: Option<TalkFormat>,
        mut sampling: SamplingParams,
        context: usize,
    ) -> Result<Self> {
        let template = match format {
            Some(TalkFormat::Plain) => None,
            Some(TalkFormat::Chat) => Some(template.context(
                "constitution.format must be \"plain\" where the model has no chat template, got \"chat\"",
            )?),
            None => template,
        };
        if template.is_none() {
            sampling.stop.push(HUMAN.into());
        }
        let new = sampling.max_new_tokens;
        ensure!(
            new < context,
            "sampling.max_new_tokens must be below the model's context of {context}, got {new}"
        );
        let longest = context - new;
        Ok(Self { engine, tokenizer, template, sampling, longest, asked: 0 })
    }

    /// Writes a conversation down, up to where the assistant is to speak.
    ///
    /// # Errors
    /// When the template refuses it.
    fn write(&self, turns: &[Value]) -> Result<String> {
        let Some(template) = self.template else { return Ok(plain(turns)) };
        let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
        Ok(template.render(turns, &options)?.text)
    }

    /// Writes a conversation down as [`Talk::write`] does, and the first words of what the assistant is to say.
    ///
    /// # Errors
    /// As [`Talk::write`].
    pub(super) fn begin(&self, turns: &[Value], words: &str) -> Result<String> {
        let space = if self.template.is_none() { " " } else { "" };
        Ok(format!("{}{space}{words}", self.write(turns)?))
    }

    /// Returns what of a conversation goes into a row, and what is said after it.
    pub(super) fn row(&self, turns: &[Value], said: &str) -> (Value, Value) {
        match self.template {
            Some(_) => (turns.into(), json!([turn("assistant", said)])),
            None => (plain(turns).into(), format!(" {said}").into()),
        }
    }

    /// Encodes what [`Talk::write`] wrote.
    ///
    /// # Errors
    /// When the tokenizer fails.
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        // A template writes special tokens out.
        Ok(self.tokenizer.encode(text, self.template.is_none())?)
    }

    /// Continues conversations, `n` times each. `None` where one is too long for the model's context, or nothing was said.
    ///
    /// # Errors
    /// When the template refuses one, or the engine fails.
    pub(super) fn say<const N: usize>(
        &mut self,
        conversations: &[Vec<Value>],
    ) -> Result<Vec<Option<[String; N]>>> {
        let sampling = Arc::new(SamplingParams { n: N as u32, ..self.sampling.clone() });
        let (mut requests, mut asked) = (Vec::new(), Vec::new());
        for (which, turns) in conversations.iter().enumerate() {
            let tokens = self.encode(&self.write(turns)?)?;
            self.asked += 1;
            if tokens.len() <= self.longest {
                let prompt = Prompt { id: PromptId(self.asked), tokens: tokens.into() };
                requests.push(Request::new(prompt, sampling.clone()));
                asked.push(which);
            }
        }
        let mut said = vec![None; conversations.len()];
        let rollouts = self.engine.blocking().generate_all(requests)?;
        for (which, samples) in asked.into_iter().zip(rollouts.chunks_exact(N)) {
            let texts = samples.iter().map(|rollout| self.engine.text(rollout));
            let texts: Vec<String> =
                texts.map(|text| Ok(text?.trim().to_owned())).collect::<Result<_>>()?;
            let texts: Option<[String; N]> = texts.try_into().ok();
            said[which] = texts.filter(|texts| texts.iter().all(|text| !text.is_empty()));
        }
        Ok(said)
    }

    /// Returns the log-prob of each of `options`, said after `text` (nats); `None` where that is too long.
    ///
    /// # Errors
    /// When the engine fails.
    pub(super) fn weigh(&self, questions: &[(String, [&str; 2])]) -> Result<Vec<Option<[f64; 2]>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let mut weights = vec![[None; 2]; questions.len()];
        runtime.block_on(async {
            let mut scores = JoinSet::new();
            for (which, (text, options)) in questions.iter().enumerate() {
                let encoded = [0, 1].map(|i| self.encode(&format!("{text}{}", options[i])));
                let [first, second] = encoded;
                let (first, second) = (first?, second?);
                // Up to here both are the same, so the rest is what tells them apart.
                let shared = first.iter().zip(&second).take_while(|(a, b)| a == b).count();
                for (i, tokens) in [first, second].into_iter().enumerate() {
                    let engine = self.engine.clone();
                    if tokens.len() <= self.longest && shared > 0 {
                        scores.spawn(async move {
                            Ok::<_, anyhow::Error>((which, i, shared, engine.score(tokens).await?))
                        });
                    }
                }
            }
            while let Some(score) = scores.join_next().await {
                let (which, i, shared, logprobs) = score??;
                // The first token has none.
                let own = logprobs.get(shared - 1..).unwrap_or_default();
                weights[which][i] = Some(own.iter().map(|&logprob| f64::from(logprob)).sum());
            }
            Ok::<_, anyhow::Error>(())
        })?;
        let both = |[a, b]: [Option<f64>; 2]| Some([a?, b?]);
        Ok(weights.into_iter().map(both).collect())
    }
}

/// Writes a conversation down plainly, up to where the assistant is to speak.
pub(super) fn plain(turns: &[Value]) -> String {
    let mut text = String::new();
    for turn in turns {
        let content = turn["content"].as_str().unwrap_or_default();
        match turn["role"].as_str() {
            Some("assistant") => text += &format!("{ASSISTANT} {content}"),
            Some("system") => text += content,
            _ => text += &format!("{HUMAN} {content}"),
        }
    }
    text + ASSISTANT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_written_as_human_and_assistant_take_turns() {
        let turns = [turn("system", "Be brief."), turn("user", "Hi"), turn("assistant", "Yes?")];
        assert_eq!(plain(&turns), "Be brief.\n\nHuman: Hi\n\nAssistant: Yes?\n\nAssistant:");
        assert_eq!(plain(&turns[1..2]), "\n\nHuman: Hi\n\nAssistant:");
    }
}
