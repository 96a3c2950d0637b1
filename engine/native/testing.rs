//! A forward pass whose logits are a hash of the sequence, read back through the block table: any mistake in paging,
//! sharing, preemption or versions changes the tokens that come out.

use std::collections::BTreeMap;

use crossbeam::channel::Receiver;

use super::{
    BlockId, Forward, LogitsWanted, Native, SequenceStep, Vocabulary,
    sampler::{Draw, Key, Sampler},
};
use crate::{
    engine::{
        Backend, EngineConfig, EngineModel, Error, Event, RefitMode, RefitReport, Request,
        RequestId, SamplingParams, StreamEvent, assembly::Assembly,
    },
    ffi::memory::Lease,
    model::ModelSpec,
    rollout::{Prompt, PromptId, Rollout, StopReason, VersionSpan, WeightVersion, Weights},
};

/// Token ids of the hashing model; the last one ends a text.
pub(in crate::engine) const VOCAB: u32 = 24;

/// What the hashing model is told to do wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) enum Fault {
    #[default]
    None,
    /// Panics in the step that computes this token.
    PanicAt(u32),
    /// Returns NaN logits in the step that computes this token.
    NanAt(u32),
    /// Fails every refit before the commit.
    Refit,
    /// Never returns from the step that computes this token.
    HangAt(u32),
}

/// The hashing model: its "keys and values" are a number for each position.
pub(in crate::engine) struct Hashing {
    spec: ModelSpec,
    weights: Weights,
    block_size: usize,
    /// What each position of each block holds.
    kv: Vec<u64>,
    pub(in crate::engine) fault: Fault,
    /// Each step waits for a word from here, until the other end is gone.
    pub(in crate::engine) pace: Option<Receiver<()>>,
}

impl Hashing {
    pub(in crate::engine) fn new(context: usize) -> Self {
        let spec = ModelSpec {
            vocab_size: VOCAB as usize,
            max_positions: context,
            ..EngineModel::tiny(0).spec
        };
        let (weights, kv) = (weights(0), Vec::new());
        Self { spec, weights, block_size: 1, kv, fault: Fault::None, pace: None }
    }

    fn slot(&self, blocks: &[BlockId], position: usize) -> usize {
        blocks[position / self.block_size].0 as usize * self.block_size + position % self.block_size
    }

    fn trip(&self, token: u32, logits: &mut [f32]) {
        match self.fault {
            Fault::PanicAt(bad) if bad == token => panic!("token {token} came by"),
            Fault::NanAt(bad) if bad == token => logits.fill(f32::NAN),
            Fault::HangAt(bad) if bad == token => loop {
                std::thread::park();
            },
            _ => {}
        }
    }
}

/// Weights without tensors: a version.
pub(in crate::engine) fn weights(version: u64) -> Weights {
    Weights::new(WeightVersion(version), Lease::default(), BTreeMap::new())
}

fn mix(a: u64, b: u64) -> u64 {
    // SplitMix64 (Steele et al., 2014).
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(b).wrapping_add(1);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn key_value(token: u32, position: usize, version: WeightVersion) -> u64 {
    mix(mix(token.into(), position as u64), version.0)
}

fn logits_of(contents: impl Iterator<Item = u64>) -> Vec<f32> {
    let state = contents.fold(0, mix);
    (0..VOCAB.into()).map(|id| (mix(state, id) % 4000) as f32 * 1e-3).collect()
}

impl Forward for Hashing {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn allocate_kv(&mut self, blocks: usize, block_size: usize) -> Result<(), Error> {
        (self.block_size, self.kv) = (block_size, vec![u64::MAX; blocks * block_size]);
        Ok(())
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        let start = from.0 as usize * self.block_size;
        self.kv.copy_within(start..start + self.block_size, to.0 as usize * self.block_size);
    }

    fn step(&mut self, sequences: &[SequenceStep<'_>], logits: &mut Vec<f32>) -> Result<(), Error> {
        if let Some(Err(_)) = self.pace.as_ref().map(Receiver::recv) {
            self.pace = None;
        }
        logits.clear();
        for sequence in sequences {
            for (at, &token) in sequence.tokens.iter().enumerate() {
                let position = sequence.start + at;
                let slot = self.slot(sequence.blocks, position);
                self.kv[slot] = key_value(token, position, self.weights.version());
                let seen = (0..=position).map(|seen| self.kv[self.slot(sequence.blocks, seen)]);
                let mut row = logits_of(seen);
                self.trip(token, &mut row);
                let last = at + 1 == sequence.tokens.len();
                match sequence.logits {
                    LogitsWanted::All => logits.extend(row),
                    LogitsWanted::Last if last => logits.extend(row),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn refit(
        &mut self,
        weights: &Weights,
        mode: RefitMode,
        _checksum: bool,
    ) -> Result<RefitReport, Error> {
        if self.fault == Fault::Refit {
            return Err(Error::Refit {
                version: weights.version(),
                serving: self.weights.version(),
                tensor: "model.norm.weight".into(),
                reason: "told to fail".into(),
            });
        }
        self.weights = weights.clone();
        let version = weights.version();
        Ok(RefitReport { version, mode, seconds: 0.0, bytes: 0, tensors: 0, checksum: None })
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }
}

/// Makes an engine of the hashing model with `VOCAB - 1` as its end of text and the byte tokenizer.
pub(in crate::engine) fn native(context: usize, config: &EngineConfig) -> Native<Hashing> {
    native_of(Hashing::new(context), config)
}

pub(in crate::engine) fn native_of(forward: Hashing, config: &EngineConfig) -> Native<Hashing> {
    let vocabulary = Vocabulary { eos: vec![VOCAB - 1], tokenizer: EngineModel::tiny(0).tokenizer };
    Native::new(forward, config, vocabulary).unwrap()
}

/// Makes a request; the prompt's tokens follow from its id.
pub(in crate::engine) fn request(id: u64, prompt_len: usize, sampling: &SamplingParams) -> Request {
    let token = |at: usize| (mix(id, at as u64) % u64::from(VOCAB)) as u32;
    let tokens: Vec<u32> = (0..prompt_len).map(token).collect();
    let prompt = Prompt { id: PromptId(id), tokens: tokens.into() };
    Request::new(prompt, sampling.clone())
}

/// Computes what a request must give, one sequence alone, without cache or batch.
pub(in crate::engine) fn expected(request: &Request, context: usize) -> Vec<Rollout> {
    (0..request.sampling.n).map(|sample| expected_sample(request, sample, context)).collect()
}

fn expected_sample(request: &Request, sample: u32, context: usize) -> Rollout {
    let (sampling, prompt) = (&request.sampling, &request.prompt);
    let version = WeightVersion(0);
    let mut rollout = Rollout {
        prompt: prompt.clone(),
        sample,
        completion: vec![],
        rollout_logprobs: vec![],
        raw_logprobs: sampling.raw_logprobs.then(Vec::new),
        stop: StopReason::Length,
        versions: vec![],
    };
    let mut sampler = Sampler::default();
    while rollout.completion.len() < sampling.max_new_tokens && rollout.sequence().len() < context {
        let history = rollout.sequence();
        let contents = history.iter().enumerate();
        let logits = logits_of(contents.map(|(at, &token)| key_value(token, at, version)));
        let position = rollout.completion.len();
        let early = position < sampling.min_new_tokens;
        let forbidden: &[u32] = if early { &[VOCAB - 1] } else { &[] };
        let key = Key { seed: sampling.seed, prompt: prompt.id, sample, position: position as u64 };
        let draw = Draw { logits: &logits, sampling, history: &history, forbidden, key };
        let drawn = sampler.draw(&draw).unwrap();
        rollout.completion.push(drawn.token);
        rollout.rollout_logprobs.push(drawn.logprob);
        if let Some(raw_logprobs) = &mut rollout.raw_logprobs {
            raw_logprobs.push(drawn.raw_logprob.unwrap());
        }
        if drawn.token == VOCAB - 1 {
            rollout.stop = StopReason::Token(drawn.token);
            break;
        }
    }
    let tokens = rollout.completion.len() as u32;
    rollout.versions.extend((tokens > 0).then_some(VersionSpan { version, tokens }));
    rollout
}

/// Steps a backend, puts its rollouts together and returns them by prompt and sample once it is idle.
pub(in crate::engine) struct Driver<B> {
    pub(in crate::engine) backend: B,
    open: BTreeMap<RequestId, Assembly>,
    pub(in crate::engine) finished: BTreeMap<(PromptId, u32), Rollout>,
    pub(in crate::engine) prompt_logprobs: BTreeMap<RequestId, Vec<f32>>,
}

impl<B: Backend> Driver<B> {
    pub(in crate::engine) fn new(backend: B) -> Self {
        let (open, finished) = (BTreeMap::new(), BTreeMap::new());
        Self { backend, open, finished, prompt_logprobs: BTreeMap::new() }
    }

    pub(in crate::engine) fn submit(&mut self, request: &Request) -> RequestId {
        let id = self.backend.submit(request.clone()).unwrap();
        self.open.insert(id, Assembly::new(request));
        id
    }

    pub(in crate::engine) fn cancel(&mut self, id: RequestId) {
        self.open.remove(&id);
        self.backend.cancel(id);
    }

    pub(in crate::engine) fn poll(&mut self) -> Result<(), Error> {
        let mut events = Vec::new();
        self.backend.poll(&mut events)?;
        for event in events {
            let (Event::PromptLogprobs { id, .. }
            | Event::Token { id, .. }
            | Event::Finished { id, .. }
            | Event::Failed { id, .. }) = event;
            let call = self.open.get_mut(&id).expect("no event of a cancelled request comes");
            match call.take(event).expect("no event of a sample that has ended comes")? {
                StreamEvent::Finished(rollout) => {
                    let key = (rollout.prompt.id, rollout.sample);
                    assert!(self.finished.insert(key, rollout).is_none());
                }
                StreamEvent::PromptLogprobs(scores) => {
                    assert!(self.prompt_logprobs.insert(id, scores).is_none());
                }
                StreamEvent::Token(_) => {}
            }
        }
        Ok(())
    }

    /// Polls until idle, which must not take for ever.
    pub(in crate::engine) fn finish(&mut self) {
        for _ in 0..100_000 {
            if !self.backend.is_busy() {
                return;
            }
            self.poll().unwrap();
        }
        panic!("the engine does not come to an end: {:?}", self.backend.stats());
    }
}

/// Makes sampling parameters for up to 8 tokens, with a change.
pub(in crate::engine) fn params(change: impl FnOnce(&mut SamplingParams)) -> SamplingParams {
    let mut sampling = SamplingParams { max_new_tokens: 8, ..SamplingParams::default() };
    change(&mut sampling);
    sampling
}
