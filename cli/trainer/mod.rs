//! What the trainer is asked for. Builds without it answer in a sentence.

#[cfg(not(feature = "libtorch"))]
mod disabled;
#[cfg(feature = "libtorch")]
mod enabled;

#[cfg(not(feature = "libtorch"))]
pub(super) use disabled::{
    annotate, bench_ppo, bench_train, demo, distill, dpo, eval, kto, logprobs, ppo, regression,
    reward_model, serve_rm, sft, spin, steerlm2, teach,
};
#[cfg(feature = "libtorch")]
pub(super) use enabled::{
    annotate, bench_ppo, bench_train, demo, distill, dpo, eval, kto, logprobs, ppo, regression,
    reward_model, serve_rm, sft, spin, steerlm2, teach,
};
