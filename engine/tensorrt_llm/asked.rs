//! A request in TensorRT-LLM's words.

use crate::{
    engine::{Error, Request, SamplingParams, config::rule},
    ffi::tensorrt_llm::{self as ffi, Capabilities},
    rollout::{PromptId, WeightVersion},
};

/// Most likely tokens that TensorRT-LLM's sampling kernel can keep.
const TOP_K_MAX: usize = 1024;

/// What requests are checked against.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Token ids below this one mean something; above there is padding.
    pub(super) vocab_size: usize,
    /// Longest prompt.
    pub(super) max_input_len: usize,
    /// Longest sequence: prompt and completion.
    pub(super) max_seq_len: usize,
    /// Positions of the KV cache, where that was set.
    pub(super) kv_tokens: Option<usize>,
    /// Positions in one of its blocks.
    pub(super) tokens_per_block: usize,
    /// The model's own end-of-sequence ids.
    pub(super) eos: Vec<u32>,
    /// Whether stop strings can be heeded.
    pub(super) has_tokenizer: bool,
    /// What the library can do.
    pub(super) capabilities: Capabilities,
}

/// A request that was checked.
#[derive(Debug)]
pub(super) struct Asked {
    /// As it came.
    pub(super) request: Request,
    /// Ids that end a completion, sorted.
    pub(super) stop_ids: Vec<u32>,
    /// Longest completion.
    pub(super) max_tokens: usize,
}

impl Rules {
    /// Returns the KV blocks that a sequence takes, and those there are.
    fn blocks(&self, tokens: usize) -> (usize, usize) {
        let total = self.kv_tokens.map_or(usize::MAX, |tokens| tokens / self.tokens_per_block);
        (tokens.div_ceil(self.tokens_per_block), total)
    }
}

impl Asked {
    /// Checks a request.
    ///
    /// # Errors
    /// Names the field that breaks a rule, or asks for what TensorRT-LLM cannot do.
    pub(super) fn new(request: Request, rules: &Rules) -> Result<Self, Error> {
        request.sampling.validate()?;
        let prompt = request.prompt.tokens.ids();
        rule(!prompt.is_empty(), "prompt", "at least one token", "none")?;
        let below = format!("token ids below {}", rules.vocab_size);
        for (field, ids) in
            [("prompt", prompt), ("stop_token_ids", &request.sampling.stop_token_ids)]
        {
            let bad = ids.iter().find(|&&id| id as usize >= rules.vocab_size);
            rule(bad.is_none(), field, &below, bad.copied().unwrap_or_default())?;
        }
        if prompt.len() > rules.max_input_len || prompt.len() >= rules.max_seq_len {
            let context = rules.max_input_len.min(rules.max_seq_len);
            return Err(Error::PromptTooLong { tokens: prompt.len(), context });
        }
        let max_tokens = request.sampling.max_new_tokens.min(rules.max_seq_len - prompt.len());
        let (needed, total) = rules.blocks(prompt.len() + max_tokens);
        if needed > total {
            return Err(Error::KvCacheTooSmall { needed, total });
        }
        let asked = Self { stop_ids: stop_ids(&request.sampling, rules), max_tokens, request };
        asked.check_able(rules)?;
        Ok(asked)
    }

    /// Checks that TensorRT-LLM can do what is asked.
    fn check_able(&self, rules: &Rules) -> Result<(), Error> {
        let sampling = self.sampling();
        let without = "empty where the engine has no tokenizer";
        rule(
            rules.has_tokenizer || sampling.stop.is_empty(),
            "stop",
            without,
            sampling.stop.len(),
        )?;
        let top_k = sampling.top_k;
        rule(top_k <= TOP_K_MAX, "top_k", "at most 1024 with TensorRT-LLM", top_k)?;
        let min_p = sampling.min_p == 0.0 || rules.capabilities.contains(Capabilities::MIN_P);
        rule(min_p, "min_p", "0 with this version of TensorRT-LLM", sampling.min_p)?;
        rule(
            !sampling.prompt_logprobs,
            "prompt_logprobs",
            "false: TensorRT-LLM's executor does not score prompts, the trainer does",
            true,
        )?;
        // It keeps away an end id, which is not what we give it (see `to_executor`), and stop words not at all.
        rule(
            sampling.min_new_tokens == 0 || self.stop_ids.is_empty(),
            "min_new_tokens",
            "0 with TensorRT-LLM where there are stop ids",
            sampling.min_new_tokens,
        )?;
        let tempered = sampling.temperature == 1.0 || sampling.temperature == 0.0;
        rule(
            !sampling.raw_logprobs || (tempered && sampling.repetition_penalty == 1.0),
            "raw_logprobs",
            "false with TensorRT-LLM, unless temperature is 0 or 1 and repetition_penalty 1",
            true,
        )
    }

    /// Returns how tokens are drawn.
    pub(super) fn sampling(&self) -> &SamplingParams {
        &self.request.sampling
    }

    /// Says whether the most likely token is taken each time.
    pub(super) fn is_greedy(&self) -> bool {
        self.sampling().temperature == 0.0
    }

    /// Returns how many of the samples one request of TensorRT-LLM may stand for. One where each must be stopped by itself.
    pub(super) fn together(&self, capabilities: Capabilities, room: u32) -> u32 {
        let several = capabilities.contains(Capabilities::RETURN_SEQUENCES);
        if several && self.sampling().stop.is_empty() { room.max(1) } else { 1 }
    }

    /// Writes down `count` samples from `first` on, as they are drawn under weights of this version.
    pub(super) fn to_executor(
        &self,
        (first, count): (u32, u32),
        version: WeightVersion,
        cache_salt: u64,
    ) -> ffi::Request {
        let sampling = self.sampling();
        let greedy = self.is_greedy();
        let sampled = |value: f32, greedy_value: f32| if greedy { greedy_value } else { value };
        let ids = || self.stop_ids.iter().map(|&id| id as i32);
        ffi::Request {
            prompt: self.request.prompt.tokens.ids().iter().map(|&id| id as i32).collect(),
            max_tokens: self.max_tokens as i32,
            streaming: true,
            num_return_sequences: count as i32,
            return_log_probs: true,
            seed: seed(sampling.seed, self.request.prompt.id, version).wrapping_add(first.into()),
            temperature: sampled(sampling.temperature, 1.0),
            top_k: if greedy { 1 } else { sampling.top_k as i32 },
            top_p: sampled(sampling.top_p, 1.0),
            min_p: sampled(sampling.min_p, 0.0),
            repetition_penalty: sampling.repetition_penalty,
            min_tokens: sampling.min_new_tokens as i32,
            // An end id is left out of TensorRT-LLM's output, a stop word is part of it; and the trainer needs the token
            // that ended a completion, with its log-prob.
            end_id: None,
            pad_id: ids().next().unwrap_or(0),
            stop_words: ids().map(|id| vec![id]).collect(),
            cache_salt,
            allotted_ms: 0,
        }
    }
}

/// Returns the ids that end a completion: as the embedded engine does, those beyond the vocabulary left out.
fn stop_ids(sampling: &SamplingParams, rules: &Rules) -> Vec<u32> {
    let eos: &[u32] = if sampling.ignore_eos { &[] } else { &rules.eos };
    let mut ids: Vec<u32> = eos.iter().chain(&sampling.stop_token_ids).copied().collect();
    ids.retain(|&id| (id as usize) < rules.vocab_size);
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Returns the seed of a prompt's first sample under weights of this version: the first eight bytes of a BLAKE3 hash.
///
/// The same request under the same weights is answered the same; a refit changes every seed. Sample `k` has this seed
/// plus `k`: so TensorRT-LLM itself seeds the sequences of one request, whence samples do not depend on how they are cut
/// into requests.
fn seed(seed: u64, prompt: PromptId, version: WeightVersion) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("rollforge sampling seed for TensorRT-LLM");
    for number in [seed, prompt.0, version.0] {
        hasher.update(&number.to_le_bytes());
    }
    let hash = hasher.finalize();
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Prompt;

    fn rules() -> Rules {
        Rules {
            vocab_size: 16,
            max_input_len: 8,
            max_seq_len: 10,
            kv_tokens: None,
            tokens_per_block: 4,
            eos: vec![3, 40],
            has_tokenizer: false,
            capabilities: Capabilities::default(),
        }
    }

    fn asked(tokens: usize, change: impl FnOnce(&mut SamplingParams)) -> Result<Asked, Error> {
        let mut sampling = SamplingParams::default();
        change(&mut sampling);
        let prompt = Prompt { id: PromptId(7), tokens: vec![1; tokens].into() };
        Asked::new(Request::new(prompt, sampling), &rules())
    }

    #[test]
    fn greedy_is_one_most_likely_token_at_temperature_one() {
        let asked = asked(2, |s| (s.temperature, s.top_p) = (0.0, 0.5)).unwrap();
        let request = asked.to_executor((0, 1), WeightVersion(0), 0);
        assert_eq!((request.top_k, request.temperature, request.top_p), (1, 1.0, 1.0));
        assert_eq!((request.max_tokens, request.streaming), (8, true));
    }

    #[test]
    fn stop_ids_are_stop_words_so_that_they_are_part_of_the_output() {
        let free = asked(2, |s| s.stop_token_ids = vec![9]).unwrap();
        let request = free.to_executor((0, 1), WeightVersion(0), 0);
        assert_eq!((request.end_id, request.stop_words), (None, vec![vec![3], vec![9]]));
        let endless = asked(2, |s| (s.min_new_tokens, s.ignore_eos) = (2, true)).unwrap();
        let request = endless.to_executor((0, 1), WeightVersion(0), 0);
        assert!(request.end_id.is_none() && request.stop_words.is_empty());
    }

    #[test]
    fn seeds_change_with_seed_prompt_version_and_sample() {
        let asked = asked(2, |_| {}).unwrap();
        let of = |first, version| asked.to_executor((first, 1), WeightVersion(version), 0).seed;
        assert_eq!(of(0, 1), of(0, 1));
        assert_eq!(of(3, 1), of(0, 1).wrapping_add(3));
        assert_ne!(of(0, 1), of(0, 2));
        assert_ne!(seed(1, PromptId(2), WeightVersion(0)), seed(2, PromptId(1), WeightVersion(0)));
    }

    #[test]
    fn what_tensorrt_llm_cannot_do_is_refused_by_name() {
        let refused = |tokens, change: fn(&mut SamplingParams)| {
            asked(tokens, change).unwrap_err().to_string()
        };
        assert_eq!(refused(9, |_| {}), "prompt of 9 tokens does not fit the model's context of 8");
        assert_eq!(
            refused(2, |s| s.min_p = 0.1),
            "min_p must be 0 with this version of TensorRT-LLM, got 0.1"
        );
        assert!(
            refused(2, |s| s.prompt_logprobs = true).starts_with("prompt_logprobs must be false")
        );
        assert!(refused(2, |s| s.top_k = 2000).starts_with("top_k must be at most 1024"));
        let held = refused(2, |s| s.min_new_tokens = 1);
        assert!(held.starts_with("min_new_tokens must be 0 with TensorRT-LLM"), "{held}");
        for change in
            [(|s| s.temperature = 0.5) as fn(&mut SamplingParams), |s| s.repetition_penalty = 1.1]
        {
            let mut sampling = SamplingParams { raw_logprobs: true, ..SamplingParams::default() };
            change(&mut sampling);
            let error = asked(2, |s| *s = sampling).unwrap_err().to_string();
            assert!(error.starts_with("raw_logprobs must be false with TensorRT-LLM"), "{error}");
        }
        asked(2, |s| (s.raw_logprobs, s.temperature) = (true, 0.0)).unwrap();
    }
}
