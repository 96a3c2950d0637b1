//! The memory plan of PPO.

use super::{
    Change, Facts, Length, MemoryPlan, Planned,
    batch::Batch,
    engine::PlannedEngine,
    facts,
    ledger::Part,
    model::{Learned, PlannedModel},
    pass::Taken,
    phase::Phases,
    room::Room,
};
use crate::{
    config::{ComputeDtype, Mode, PpoConfig},
    data::PromptSample,
    engine::BackendKind,
    model::{Head, ModelSpec},
    rollout::Dtype,
    trainer::config::{Device, ValueInit},
};

/// Bytes that a token of a rollout takes, about: its id and what is known of it, from the engine to the loss.
const ROLLOUT_TOKEN: u64 = 64;

/// The models of a run of PPO.
struct Models {
    policy: PlannedModel,
    critic: Option<PlannedModel>,
    reference: Option<PlannedModel>,
    rewards: Vec<PlannedModel>,
}

impl Models {
    fn new(config: &PpoConfig, facts: &Facts) -> Self {
        let of = |spec: &ModelSpec, head, frozen: bool| PlannedModel {
            file: spec.dtype,
            learns: if frozen { Learned::default() } else { learned(config, spec, head) },
            spec: spec.with_head(head),
            compute: config.model.dtype.into(),
            checkpointing: config.model.activation_checkpointing && !frozen,
            frozen,
            on_host: config.device == Device::Cpu,
        };
        let reference = facts.reference.as_ref().unwrap_or(&facts.policy);
        let first_values = match (config.ppo.value_init, &facts.rewards[..]) {
            (ValueInit::RewardModel, [reward]) => reward,
            _ => &facts.policy,
        };
        Self {
            policy: of(&facts.policy, Head::LanguageModel, false),
            critic: config
                .ppo
                .has_critic()
                .then(|| of(&first_values.with_labels(&[]), Head::Score, false)),
            reference: (config.ppo.has_reference() && !config.is_own_reference())
                .then(|| of(reference, Head::LanguageModel, true)),
            rewards: facts.rewards.iter().map(|spec| of(spec, Head::Score, true)).collect(),
        }
    }

    fn learners(&self) -> impl Iterator<Item = &PlannedModel> + Clone {
        std::iter::once(&self.policy).chain(&self.critic)
    }

    fn all(&self) -> impl Iterator<Item = &PlannedModel> {
        self.learners().chain(&self.reference).chain(&self.rewards)
    }

    /// Returns what scoring and training take on a GPU.
    fn passes(&self, batch: Batch, trains_entropy: bool) -> (Taken, Taken) {
        let copies = if trains_entropy { 6 } else { 4 };
        let train = self.learners().map(|model| model.train(batch, copies));
        (largest(self.all().map(|model| model.forward(batch))), largest(train))
    }

    /// Returns what scoring takes on the host, and what it and training do: one room for the trainer's thread, another for
    /// that of each reward model.
    fn rooms(&self, batch: Batch) -> (Taken, Taken) {
        let trainer = self.learners().chain(&self.reference);
        let scoring = Room::of_all(trainer.map(|model| model.scoring_room(batch)));
        let training = self.learners().map(|model| model.training_room(batch));
        let rewards = self.rewards.iter().map(|model| model.scoring_room(batch).taken());
        let reward = rewards.fold(Taken::default(), Taken::and);
        let score = scoring.taken().and(reward);
        (score, Room::of_all(training).or(scoring).taken().and(reward))
    }
}

impl Planned for PpoConfig {
    fn facts(&self) -> anyhow::Result<Facts> {
        let mut facts = Facts::assume(&self.model.path, &self.data, 1)?;
        let other = self.model.reference.as_ref().filter(|path| **path != self.model.path);
        facts.reference = other.map(|path| facts::shape(path)).transpose()?;
        facts.rewards = self.reward.models().map(facts::shape).collect::<anyhow::Result<_>>()?;
        Ok(facts)
    }

    fn lengths(&self) -> anyhow::Result<Vec<Length>> {
        let samples = super::samples::<PromptSample>(&self.model.path, &self.data)?;
        Ok(samples.iter().map(Length::of_prompt).collect())
    }

    fn plan(&self, facts: &Facts) -> MemoryPlan {
        let models = Models::new(self, facts);
        let batch = largest_batch(self, facts);
        let mut phases = Phases::new(self.device, facts.process);
        phases.keep(Part::MappedFiles, models.policy.file_bytes());
        let longest = (longest_prompt(facts) + self.sampling.max_new_tokens) as u64;
        phases.keep(Part::Data, facts.data + waiting(self) as u64 * longest * ROLLOUT_TOKEN);
        load(&models, &mut phases);
        let refit = start_engine(self, &models.policy, &mut phases);
        let (score, update) = match self.device {
            Device::Cpu => models.rooms(batch),
            Device::Cuda(_) => models.passes(batch, self.ppo.entropy_coef > 0.0),
        };
        let learners = models.learners();
        let learn = |phases: &mut Phases| learners.clone().for_each(|model| model.learn_in(phases));
        if self.ppo.iterations > 1 {
            learn(&mut phases);
            phases.keep_room(update);
        }
        phases.add("generate", &[]);
        phases.add_pass("score", score);
        if self.ppo.iterations == 1 {
            learn(&mut phases);
        }
        phases.add_pass("update", update);
        let most = |of: fn(&PlannedModel) -> u64| learners.clone().map(of).max().unwrap_or(0);
        phases.add("optimizer", &[(Part::Copies, most(PlannedModel::stepping))]);
        phases.add("refit", &[(Part::Copies, refit)]);
        phases.add("checkpoint", &[(Part::Copies, most(PlannedModel::saving))]);
        MemoryPlan::new("ppo", self.device, batch, phases)
    }

    fn changes(&self) -> Vec<Change<Self>> {
        let mut changes = Vec::new();
        let mut change = |text: String, config: Self| changes.push(Change { text, config });
        if !self.model.activation_checkpointing {
            let mut config = self.clone();
            config.model.activation_checkpointing = true;
            change("model.activation_checkpointing = true".into(), config);
        }
        let longest = self.data.max_tokens + self.sampling.max_new_tokens;
        for tokens in super::halves(self.ppo.micro_batch_tokens, longest) {
            let mut config = self.clone();
            config.ppo.micro_batch_tokens = tokens;
            change(format!("ppo.micro_batch_tokens = {tokens}"), config);
        }
        if self.engine.backend == BackendKind::Native {
            // One sequence must fit, and what runs at once need not.
            let running = self.engine.max_batch.min(self.ppo.rollout_batch());
            let full = running.saturating_mul(longest);
            for tokens in std::iter::once(full).chain(super::halves(full, longest)) {
                let mut config = self.clone();
                config.engine.kv_cache_tokens = tokens;
                change(format!("engine.kv_cache_tokens = {tokens}"), config);
            }
        }
        if self.queue.mode != Mode::Sync {
            let mut config = self.clone();
            config.queue = Default::default();
            change("queue.mode = \"sync\"".into(), config);
        }
        if self.model.dtype == ComputeDtype::F32 {
            let mut config = self.clone();
            config.model.dtype = ComputeDtype::Bf16;
            change("model.dtype = \"bf16\"".into(), config);
        }
        changes
    }
}

/// Returns what of a policy or of a critic learns.
fn learned(config: &PpoConfig, spec: &ModelSpec, head: Head) -> Learned {
    let spec = spec.with_head(head);
    let lora = super::model::adapter(&config.lora, &spec);
    match head {
        Head::LanguageModel => {
            Learned::of(&spec, &config.model.freeze(), lora.as_ref(), config.ema)
        }
        Head::Score => Learned::of(&spec, &Default::default(), lora.as_ref(), Default::default()),
    }
}

/// Adds the phase in which models are loaded, one after the other; what is mapped of the others' files is gone after it.
fn load(models: &Models, phases: &mut Phases) {
    models.all().for_each(|model| model.load_into(phases));
    let others = models.all().skip(1).map(PlannedModel::file_bytes).max().unwrap_or(0);
    let copies = models.all().map(PlannedModel::loading).max().unwrap_or(0);
    phases.add("load", &[(Part::MappedFiles, others), (Part::Copies, copies)]);
}

/// Enters what the engine has of its own, and returns what a refit holds on top.
fn start_engine(config: &PpoConfig, policy: &PlannedModel, phases: &mut Phases) -> u64 {
    let dtype = config.engine.dtype.resolve(policy.compute);
    let engine = PlannedEngine {
        config: &config.engine,
        spec: &policy.spec,
        dtype,
        threads: config.engine.resolve_threads(),
        sequences: waiting(config),
    };
    if config.engine.backend == BackendKind::TensorRtLlm {
        // Its KV cache is a share of what is free then (engine.tensorrt_llm.kv_free_fraction).
        phases.keep_in_trainer(Part::Refit, engine.weights());
        return 0;
    }
    phases.keep(Part::KvCache, engine.kv_cache());
    phases.keep(Part::Engine, engine.buffers());
    let is_there = dtype == Dtype::F32 || dtype == policy.compute;
    let merging = policy.merging(dtype);
    let aliased = config.device == Device::Cpu && is_there && merging == 0;
    let lent = if aliased { 0 } else { engine.weights() };
    if config.queue.overlaps() {
        // One serves while the next is written.
        phases.keep(Part::Refit, 2 * engine.weights());
    } else {
        phases.keep(Part::Refit, lent);
    }
    lent.max(merging)
}

/// Returns how many rollouts there are at once, at most.
fn waiting(config: &PpoConfig) -> usize {
    config.ppo.rollout_batch().saturating_mul(1 + config.queue.max_staleness())
}

/// Returns the largest micro-batch: that of the longest prompts, every completion as long as it may be.
fn largest_batch(config: &PpoConfig, facts: &Facts) -> Batch {
    let mut prompts: Vec<usize> = facts.lengths.iter().map(|length| length.tokens).collect();
    prompts.sort_unstable_by(|a, b| b.cmp(a));
    let rollouts = config.ppo.rollout_batch().div_ceil(config.ppo.mini_batches);
    let context = facts.policy.max_positions;
    let rollout = |prompt: usize| {
        let tokens = prompt.saturating_add(config.sampling.max_new_tokens).min(context);
        Length { tokens, rows: tokens - prompt.min(tokens) }
    };
    let longest: Vec<Length> = prompts
        .iter()
        .cycle()
        .flat_map(|&prompt| std::iter::repeat_n(rollout(prompt), config.ppo.samples_per_prompt))
        .take(rollouts)
        .collect();
    let micro_batches = Batch::cut(&longest, config.ppo.micro_batch_tokens);
    super::widest(micro_batches, (config.device, &facts.policy))
}

fn longest_prompt(facts: &Facts) -> usize {
    facts.lengths.iter().map(|length| length.tokens).max().unwrap_or_default()
}

fn largest(passes: impl Iterator<Item = Taken>) -> Taken {
    passes.max_by_key(|taken| taken.total()).unwrap_or_default()
}
