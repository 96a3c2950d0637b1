//! Which tensors refits do not reach.
//!
//! After a refit the engine does not compute what the trainer does. So each tensor is refitted with other values, one
//! after the other: where the greedy continuations stay what they were, the values never arrived.

use half::{bf16, f16};

use super::{
    backend::TensorRtLlm,
    driver::Target,
    refit::{Tier, bind, commit},
    staging::Source,
};
use crate::{
    engine::{Error, Event, RefitMode, Request, RequestId, SamplingParams},
    ffi::memory::{Lease, Memory, Reading},
    rollout::{Dtype, Prompt, PromptId, PromptTokens, Weights},
};

/// Sequences whose log-probs are no further apart are the same, whatever the noise of a batch.
const SAME: f32 = 1e-6;

/// Tokens and log-probs of each prompt's continuation.
type Answers = Vec<(RequestId, Vec<(u32, f32)>)>;

impl TensorRtLlm {
    /// Returns the tensors that refits do not reach, as the engine names them. Empty where it cannot be found out: in an
    /// engine that is rebuilt for each refit, or that does not even answer.
    pub(super) fn probe(&mut self, prompts: &[PromptTokens], tokens: usize) -> Vec<String> {
        let Some(weights) = self.refitter.latest.clone() else { return Vec::new() };
        if self.refitter.tier != Tier::InPlace || prompts.is_empty() {
            return Vec::new();
        }
        self.try_probe(&weights, prompts, tokens).unwrap_or_else(|error| {
            self.notes.push(format!("the search for stale tensors ended early: {error}"));
            Vec::new()
        })
    }

    fn try_probe(
        &mut self,
        weights: &Weights,
        prompts: &[PromptTokens],
        tokens: usize,
    ) -> Result<Vec<String>, Error> {
        self.quiesce()?;
        let true_sources = self.sources(weights, RefitMode::Alias)?.list;
        self.commit_bound(true_sources.clone(), weights, None)?;
        let (before, again) = (self.answers(prompts, tokens)?, self.answers(prompts, tokens)?);
        if before.is_empty() {
            return Err(self.error("probe", "the engine answers nothing that could change"));
        }
        let noise = 4.0 * distance(&before, &again) + SAME;
        let mut stale = Vec::new();
        for source in &true_sources {
            let (other, lease) = others(source);
            self.commit_bound(vec![other], weights, Some(&lease))?;
            if distance(&before, &self.answers(prompts, tokens)?) <= noise {
                stale.push(source.name.clone());
            }
            self.commit_bound(vec![source.clone()], weights, None)?;
        }
        Ok(stale)
    }

    /// Binds and commits, past the bookkeeping of refits: what is bound in the end is what was before.
    fn commit_bound(
        &mut self,
        list: Vec<Source>,
        weights: &Weights,
        other: Option<&Lease>,
    ) -> Result<(), Error> {
        let mut readings: Vec<Reading> = self.readings(weights)?;
        readings.extend(other.and_then(|lease| lease.read(self.parts.deadline)));
        let done = self.call(move |seat| {
            bind(seat, Target::Executor, &list)?;
            commit(seat, Target::Executor, &readings)
        });
        done.map_err(|failure| failure.named(&self.parts.name))
    }

    /// Continues the prompts greedily.
    fn answers(&mut self, prompts: &[PromptTokens], tokens: usize) -> Result<Answers, Error> {
        let sampling = std::sync::Arc::new(SamplingParams {
            temperature: 0.0,
            max_new_tokens: tokens,
            raw_logprobs: true,
            ..SamplingParams::default()
        });
        let request = |(id, tokens): (usize, &PromptTokens)| {
            let prompt = Prompt { id: PromptId(id as u64), tokens: tokens.clone() };
            Request::new(prompt, sampling.clone())
        };
        let events = self.answer(prompts.iter().enumerate().map(request).collect())?;
        let mut answers = Answers::new();
        for event in events {
            match event {
                Event::Token { id, token, raw_logprob, .. } => {
                    let sampled = (token, raw_logprob.unwrap_or(f32::NAN));
                    match answers.iter_mut().find(|(known, _)| *known == id) {
                        Some((_, tokens)) => tokens.push(sampled),
                        None => answers.push((id, vec![sampled])),
                    }
                }
                // Logits that are no numbers any more are a difference too.
                Event::Failed { .. } => return Ok(Answers::new()),
                Event::Finished { .. } | Event::PromptLogprobs { .. } => {}
            }
        }
        answers.sort_by_key(|(id, _)| *id);
        Ok(answers)
    }
}

/// Returns other values for a tensor, with the lease they lie under. What it holds does not matter, nor where.
fn others(source: &Source) -> (Source, Lease) {
    let (count, lease) = (source.memory.len() / source.dtype.size(), Lease::default());
    let memory = match source.dtype {
        Dtype::F32 => Memory::from_vec(pattern(count).collect::<Vec<f32>>(), &lease),
        Dtype::F16 => {
            Memory::from_vec(pattern(count).map(f16::from_f32).collect::<Vec<_>>(), &lease)
        }
        Dtype::Bf16 => {
            Memory::from_vec(pattern(count).map(bf16::from_f32).collect::<Vec<_>>(), &lease)
        }
    };
    (Source { memory, ..source.clone() }, lease)
}

/// Numbers of the size of weights, no two neighbours alike: no layer is blind to them, as softmax is to a constant.
fn pattern(count: usize) -> impl Iterator<Item = f32> {
    (0..count).map(|index| ((index * 7919) % 13) as f32 / 60.0 - 0.1)
}

/// Returns by how much log-probs differ at most; infinity where tokens do.
fn distance(one: &Answers, other: &Answers) -> f32 {
    if one.len() != other.len() {
        return f32::INFINITY;
    }
    let mut most = 0.0f32;
    for ((_, a), (_, b)) in one.iter().zip(other) {
        if a.len() != b.len() {
            return f32::INFINITY;
        }
        for (&(token, logprob), &(other_token, other_logprob)) in a.iter().zip(b) {
            let apart = (logprob - other_logprob).abs();
            if token != other_token || apart.is_nan() {
                return f32::INFINITY;
            }
            most = most.max(apart);
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_apart_by_log_probs_or_by_tokens() {
        let answer = |token, logprob| vec![(RequestId(0), vec![(token, logprob)])];
        assert_eq!(distance(&answer(1, -0.5), &answer(1, -0.75)), 0.25);
        assert_eq!(distance(&answer(1, -0.5), &answer(2, -0.5)), f32::INFINITY);
        assert_eq!(distance(&answer(1, -0.5), &answer(1, f32::NAN)), f32::INFINITY);
        assert_eq!(distance(&answer(1, -0.5), &Answers::new()), f32::INFINITY);
    }

    #[test]
    fn neighbours_differ() {
        let numbers: Vec<f32> = pattern(40).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
