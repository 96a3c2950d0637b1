//! What a trainer keeps beside its models, so that a run goes on as if it had never stopped.
//!
//! No generator has a state: samples, prompts, mini-batches and tokens are drawn by counters, which follow from the step.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::Path,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Checkpoint;
use crate::{
    model::{read_tensors, write_tensors},
    rollout::Weights,
    run::offline::Algorithm,
    trainer::{
        offline::OfflineTrainer,
        ppo::{Ppo, PpoState},
        torch::{AdamWState, LearningModel},
    },
};

/// The folder in a checkpoint.
const FOLDER: &str = "trainer";
const STATE: &str = "trainer/state.json";
/// A state has a few numbers for each step's window; a larger one is not ours.
const MOST_BYTES: u64 = 1 << 26;

/// A trainer that can go on where another one of the same configuration stood.
pub(crate) trait Resumable {
    /// All it knows that is neither a weight nor a moment of one.
    type State: Serialize + DeserializeOwned;

    fn state(&self) -> Self::State;
    fn resume(&mut self, state: Self::State);

    /// Returns the models that learn, by name.
    fn learners(&self) -> Vec<(&'static str, &LearningModel)>;

    /// Hands each of them to `restore`.
    fn restore_learners(&mut self, restore: Restore<'_>) -> Result<()>;
}

/// Restores the model of a name.
pub(crate) type Restore<'a> = &'a mut dyn FnMut(&str, &mut LearningModel) -> Result<()>;

/// Where a trainer stands that only counts its optimizer steps.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Steps {
    steps: u64,
}

impl Resumable for Ppo<LearningModel, LearningModel> {
    type State = PpoState;

    fn state(&self) -> PpoState {
        self.state().clone()
    }

    fn resume(&mut self, state: PpoState) {
        self.restore(state);
    }

    fn learners(&self) -> Vec<(&'static str, &LearningModel)> {
        let critic = self.critic().map(|critic| ("value", critic));
        [("policy", self.policy())].into_iter().chain(critic).collect()
    }

    fn restore_learners(&mut self, restore: Restore<'_>) -> Result<()> {
        restore("policy", self.policy_mut())?;
        self.critic_mut().map_or(Ok(()), |critic| restore("value", critic))
    }
}

impl<A: Algorithm> Resumable for OfflineTrainer<LearningModel, A> {
    type State = Steps;

    fn state(&self) -> Steps {
        Steps { steps: self.steps() }
    }

    fn resume(&mut self, state: Steps) {
        self.resume_at(state.steps);
    }

    fn learners(&self) -> Vec<(&'static str, &LearningModel)> {
        vec![(A::MODEL, self.model())]
    }

    fn restore_learners(&mut self, restore: Restore<'_>) -> Result<()> {
        restore(A::MODEL, self.model_mut())
    }
}

/// `trainer/state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile<S> {
    trainer: S,
    /// Of each model that learns.
    optimizer_steps: BTreeMap<String, u64>,
}

/// Writes a trainer's state into a checkpoint that is being made.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn save<T: Resumable>(checkpoint: &Path, trainer: &T) -> Result<()> {
    let folder = checkpoint.join(FOLDER);
    fs::create_dir(&folder).with_context(|| format!("cannot write {}", folder.display()))?;
    let mut optimizer_steps = BTreeMap::new();
    for (name, learner) in trainer.learners() {
        optimizer_steps.insert(name.to_owned(), save_learner(&folder, name, learner)?);
    }
    let path = checkpoint.join(STATE);
    let state = StateFile { trainer: trainer.state(), optimizer_steps };
    fs::write(&path, serde_json::to_string_pretty(&state)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn save_learner(folder: &Path, name: &str, learner: &LearningModel) -> Result<u64> {
    let state = learner.optimizer.state(&learner.model)?;
    // The master weights: those of the checkpoint's model may be of fewer bits, and have an adapter merged.
    let weights = learner.model.learned()?;
    let files =
        [("weights", &weights), ("exp_avg", &state.exp_avg), ("exp_avg_sq", &state.exp_avg_sq)];
    let average = learner.average()?;
    let files = files.into_iter().chain(average.as_ref().map(|average| ("ema", average)));
    for (kind, tensors) in files {
        write_tensors(&folder.join(format!("{name}.{kind}.safetensors")), tensors)?;
    }
    Ok(state.steps)
}

/// Puts a checkpoint's state into a trainer of the same configuration.
///
/// # Errors
/// One line that names the file, where it is of another trainer or another model.
pub(crate) fn restore<T: Resumable>(checkpoint: &Checkpoint, trainer: &mut T) -> Result<()> {
    let path = checkpoint.file(STATE)?;
    let mut text = String::new();
    File::open(&path)
        .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", path.display()))?;
    let state: StateFile<T::State> = serde_json::from_str(&text)
        .with_context(|| format!("{} is not the state of such a run", path.display()))?;
    trainer.restore_learners(&mut |name, learner| {
        let steps = state.optimizer_steps.get(name);
        let steps = steps.with_context(|| format!("{} lacks the {name}", path.display()))?;
        restore_learner(checkpoint, (name, *steps), learner)
    })?;
    trainer.resume(state.trainer);
    Ok(())
}

fn restore_learner(
    checkpoint: &Checkpoint,
    (name, steps): (&str, u64),
    learner: &mut LearningModel,
) -> Result<()> {
    let read = |kind: &str| -> Result<Weights> {
        Ok(read_tensors(&checkpoint.file(&format!("{FOLDER}/{name}.{kind}.safetensors"))?)?)
    };
    learner.model.replace_learned(&read("weights")?)?;
    if learner.keeps_average() {
        learner.restore_average(&read("ema")?)?;
    }
    let state = AdamWState { steps, exp_avg: read("exp_avg")?, exp_avg_sq: read("exp_avg_sq")? };
    Ok(learner.optimizer.restore(&learner.model, &state)?)
}
