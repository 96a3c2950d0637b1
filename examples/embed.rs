//! The generation engine as a library: `cargo run --no-default-features --example embed [MODEL_DIR]`.
//!
//! Without a model directory it babbles with a tiny random model whose tokens are bytes.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::io::Write;

use rollforge::engine::{Engine, EngineModel, Error, Request, SamplingParams, StreamEvent};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let builder = Engine::builder();
    let engine = match std::env::args().nth(1) {
        Some(dir) => builder.model_dir(dir).build()?,
        None => builder.model(EngineModel::tiny(0)).build()?,
    };

    // All samples of a prompt at once: they share its keys and values.
    let sampling =
        SamplingParams { max_new_tokens: 32, n: 4, top_p: 0.9, ..SamplingParams::default() };
    for rollout in engine.generate(Request::new(engine.encode("I bought")?, sampling)).await? {
        let total: f32 = rollout.rollout_logprobs.iter().sum();
        println!("{}: {:?}, log-prob {total:.2}", rollout.sample, engine.text(&rollout)?);
    }

    // One sample, token by token.
    let sampling = SamplingParams { max_new_tokens: 32, seed: 1, ..SamplingParams::default() };
    let mut stream = engine.stream(Request::new(engine.encode("I bought")?, sampling)).await?;
    let mut text = engine.tokenizer().expect("both models have one").stream(true);
    while let Some(event) = stream.next().await {
        if let StreamEvent::Token(sampled) = event? {
            print!("{}", text.push(sampled.token).unwrap_or_default());
            std::io::stdout().flush().ok();
        }
    }
    println!("\n{:.0} tokens/s", engine.stats().tokens_per_second());
    Ok(())
}
