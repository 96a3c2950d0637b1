//! How tokens are drawn, as arguments.

use crate::{engine::SamplingParams, model::GenerationConfig};

/// What is not given is as the model's generation_config.json says, or else drawn from the model's own distribution.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArguments {
    /// Divides the logits; 0 takes the most likely token
    #[arg(long, short, value_name = "T")]
    temperature: Option<f32>,
    /// Keeps the K most likely tokens; 0 keeps all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keeps the most likely tokens up to this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keeps tokens at least this share as likely as the most likely one
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Weakens tokens already seen; 1 is off
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// Longest completion, in tokens
    #[arg(long, short = 'm', default_value_t = 128, value_name = "N")]
    max_new_tokens: usize,
    /// No end before this many tokens
    #[arg(long, default_value_t = 0, value_name = "N")]
    min_new_tokens: usize,
    /// A text that ends a completion; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on past the model's own end of a text
    #[arg(long)]
    ignore_eos: bool,
    /// Completions per prompt
    #[arg(long, short = 'n', default_value_t = 1, value_name = "N")]
    samples: u32,
    /// The same seed gives the same completions
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SamplingArguments {
    /// Returns what the engine is asked for.
    pub(super) fn params(&self, model: &GenerationConfig, raw_logprobs: bool) -> SamplingParams {
        let base = SamplingParams::default();
        let number = |given: Option<f32>, said: Option<f64>, default: f32| {
            given.or(said.map(|value| value as f32)).unwrap_or(default)
        };
        SamplingParams {
            temperature: number(self.temperature, model.temperature, base.temperature),
            top_k: self.top_k.or(model.top_k).unwrap_or(base.top_k),
            top_p: number(self.top_p, model.top_p, base.top_p),
            min_p: number(self.min_p, model.min_p, base.min_p),
            repetition_penalty: number(
                self.repetition_penalty,
                model.repetition_penalty,
                base.repetition_penalty,
            ),
            seed: self.seed,
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: self.min_new_tokens,
            ignore_eos: self.ignore_eos,
            stop: self.stop.clone(),
            n: self.samples,
            raw_logprobs,
            ..base
        }
    }
}
