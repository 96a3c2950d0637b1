//! Self-play fine-tuning (Chen et al., 2024), as runs of preference optimisation one after the other.
//!
//! ```text
//! for each iteration
//!     opponent = policy
//!     pairs    = (what the data say, what the opponent says) for every prompt
//!     policy follows  -ln sigmoid(beta gap)  against the opponent as reference          equation 4.7
//! ```
//!
//! Each iteration is a folder: `pairs.jsonl`, which `rollforge dpo` reads as it reads any, and `dpo`, the run on it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    DpoOutcome, Earlier, Launch, RunDirectory, dpo, durable, model_directory, models, samples,
};
use crate::{
    config::SpinConfig,
    data::DemonstrationSample,
    engine::{Engine, EngineConfig, Request},
    rollout::{Prompt, PromptId},
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct SpinOutcome {
    /// The policy's model directory, as the last iteration left it.
    pub policy: PathBuf,
    /// The last iteration.
    pub last: DpoOutcome,
}

/// Lets a policy play against itself, and writes a run directory for each iteration.
///
/// A run that goes on begins with the iteration it was in, on the pairs that are there.
///
/// # Errors
/// As [`super::dpo`]; when the data hold no demonstration, or the engine cannot answer.
pub fn spin(config: &SpinConfig, launch: Launch<'_>) -> Result<SpinOutcome> {
    let Launch { earlier, observer, stop } = launch;
    let step = "a run of spin goes on where it stood, in whatever iteration that was; name no step";
    ensure!(!matches!(earlier, Earlier::ResumeFrom(_)), step);
    let folder = |iteration: u64| config.output_dir.join(format!("iteration_{iteration}"));
    let run = |iteration: u64| folder(iteration).join("dpo");
    let pairs = |iteration: u64| folder(iteration).join("pairs.jsonl");
    let first = match earlier.resumes() {
        true => (1..=config.spin.iterations).rev().find(|&i| pairs(i).exists()).unwrap_or(1),
        false => 1,
    };
    let mut policy = match first {
        1 => config.model.path.clone(),
        _ => model_directory(&run(first - 1)),
    };
    let mut last = None;
    for iteration in first..=config.spin.iterations {
        let (run, pairs) = (run(iteration), pairs(iteration));
        let has_played = earlier.resumes() && iteration == first && pairs.exists();
        // The iterations after the one that goes on, and one that was stopped before it learned, have left nothing.
        let is_new = earlier.resumes() && (iteration > first || has_played && !run.exists());
        let earlier = if is_new { Earlier::Refuse } else { earlier };
        RunDirectory::check(&run, earlier)?;
        if !has_played {
            let answered = play(config, &policy, iteration, &pairs)?;
            observer
                .note(&format!("iteration {iteration}: the opponent answered {answered} prompts"));
        }
        let stage = config.iteration(run, policy, pairs);
        let launch = Launch { earlier, observer: &mut *observer, stop: stop.clone() };
        let outcome = dpo(&stage, launch)?;
        policy = outcome.policy.clone();
        last = Some(outcome);
    }
    let last = last.context("spin.iterations is at least 1")?;
    Ok(SpinOutcome { policy, last })
}

/// Has the policy answer every prompt, and writes what the data say beside what it says. Returns how many there are.
fn play(config: &SpinConfig, policy: &Path, iteration: u64, pairs: &Path) -> Result<usize> {
    let model = models::open(policy)?;
    let demonstrations = samples::read::<DemonstrationSample>(&config.data, &model)?.train;
    let threads = match config.engine.threads {
        0 => config.threads,
        threads => threads,
    };
    let options = EngineConfig { threads, ..config.engine.clone() };
    let engine = Engine::builder().config(options).model_dir(model.checkpoint.dir()).build()?;
    // Another iteration draws other answers.
    let sampling = Arc::new(config.sampling.params(config.seed.wrapping_add(iteration), 1));
    let request = |(id, one): (usize, &DemonstrationSample)| {
        let prompt = Prompt { id: PromptId(id as u64), tokens: one.tokens.clone() };
        Request::new(prompt, sampling.clone())
    };
    let requests = demonstrations.iter().enumerate().map(request).collect();
    let mut rows = String::new();
    for (one, rollout) in demonstrations.iter().zip(engine.blocking().generate_all(requests)?) {
        let text = engine.text(&rollout)?;
        let rejected = match &one.completion {
            Value::String(_) => json!(text),
            _ => json!([{ "role": "assistant", "content": text }]),
        };
        let row = json!({ "prompt": one.prompt, "chosen": one.completion, "rejected": rejected });
        rows += &format!("{row}\n");
    }
    let folder = pairs.parent().unwrap_or(pairs);
    std::fs::create_dir_all(folder)
        .and_then(|()| durable::replace_file(pairs, rows.as_bytes()))
        .with_context(|| format!("cannot write {}", pairs.display()))?;
    Ok(demonstrations.len())
}
