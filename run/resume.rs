//! What a checkpoint of PPO keeps beside the models, so that a run goes on as if it had never stopped.
//!
//! Nothing here is random: prompts, samples and mini-batches are drawn by counters, which follow from the iteration.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    model::{read_tensors, write_tensors},
    rollout::{Dtype, WeightVersion},
    trainer::{
        ppo::{Ppo, PpoState},
        torch::{AdamWState, LearningModel},
    },
};

/// The folder in a checkpoint.
const FOLDER: &str = "trainer";
const STATE: &str = "state.json";
/// Grows when what is kept changes.
const FORMAT: u32 = 1;

/// `trainer/state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    ppo: PpoState,
    policy: Learner,
    value: Learner,
}

/// A model that learns: its optimizer steps, and the BLAKE3 hash of each file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Learner {
    optimizer_steps: u64,
    weights: String,
    exp_avg: String,
    exp_avg_sq: String,
}

/// Writes the trainer's state into a checkpoint that is being made.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn save(checkpoint: &Path, trainer: &Ppo<LearningModel, LearningModel>) -> Result<()> {
    let folder = checkpoint.join(FOLDER);
    fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let state = State {
        format: FORMAT,
        ppo: trainer.state().clone(),
        policy: save_learner(&folder, "policy", trainer.policy())?,
        value: save_learner(&folder, "value", trainer.critic())?,
    };
    let path = folder.join(STATE);
    fs::write(&path, serde_json::to_string_pretty(&state)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn save_learner(folder: &Path, name: &str, learner: &LearningModel) -> Result<Learner> {
    let state = learner.optimizer.state(&learner.model)?;
    // The master weights: those of the checkpoint's model may be of fewer bits.
    let weights = learner.model.weights(WeightVersion::default(), Dtype::F32)?;
    let write = |kind: &str, tensors| -> Result<String> {
        let path = folder.join(format!("{name}.{kind}.safetensors"));
        write_tensors(&path, tensors)?;
        hash(&path)
    };
    Ok(Learner {
        optimizer_steps: state.steps,
        weights: write("weights", &weights)?,
        exp_avg: write("exp_avg", &state.exp_avg)?,
        exp_avg_sq: write("exp_avg_sq", &state.exp_avg_sq)?,
    })
}

/// Puts a checkpoint's state into a trainer of the same configuration. Returns the iterations that are over.
///
/// # Errors
/// One line that names the file: it is missing, damaged, or of another model.
pub(super) fn restore(
    checkpoint: &Path,
    trainer: &mut Ppo<LearningModel, LearningModel>,
) -> Result<u64> {
    let folder = checkpoint.join(FOLDER);
    let path = folder.join(STATE);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot resume from {}", path.display()))?;
    let state: State = serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged or of another version", path.display()))?;
    ensure!(
        state.format == FORMAT,
        "{}: format must be {FORMAT}, this is {}",
        path.display(),
        state.format
    );
    restore_learner(&folder, "policy", &state.policy, trainer.policy_mut())?;
    restore_learner(&folder, "value", &state.value, trainer.critic_mut())?;
    let iteration = state.ppo.iteration;
    trainer.restore(state.ppo);
    Ok(iteration)
}

fn restore_learner(
    folder: &Path,
    name: &str,
    state: &Learner,
    learner: &mut LearningModel,
) -> Result<()> {
    let read = |kind: &str, expected: &str| {
        let path = folder.join(format!("{name}.{kind}.safetensors"));
        let found = hash(&path)?;
        ensure!(
            found == expected,
            "{} is damaged: its BLAKE3 must be {expected}, is {found}; an earlier checkpoint may be whole: put its \
             name into LATEST",
            path.display()
        );
        Ok(read_tensors(&path)?)
    };
    learner.model.replace_weights(&read("weights", &state.weights)?)?;
    let optimizer = AdamWState {
        steps: state.optimizer_steps,
        exp_avg: read("exp_avg", &state.exp_avg)?,
        exp_avg_sq: read("exp_avg_sq", &state.exp_avg_sq)?,
    };
    Ok(learner.optimizer.restore(&learner.model, &optimizer)?)
}

fn hash(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    File::open(path)
        .and_then(|file| hasher.update_reader(file).map(drop))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}
