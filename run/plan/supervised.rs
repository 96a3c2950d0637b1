//! The memory plans of supervised fine-tuning and of reward model training: one model that learns.

use super::{
    Change, Facts, MemoryPlan, Planned,
    batch::{Batch, Length},
    ledger::Part,
    model::PlannedModel,
    phase::Phases,
};
use crate::{
    config::{ComputeDtype, ModelConfig, RewardModelConfig, SftConfig},
    data::{PairSample, SftSample, pack},
    model::Head,
    run::batches::Batches,
    trainer::config::Device,
};

/// Samples whose micro-batches are looked at; those of longer runs are taken to be alike.
const MOST_SAMPLES: u64 = 1 << 18;
/// How often the head of a language model holds its logits going forward, on a GPU: as they are, and as log-probs.
const COPIES: u64 = 2;

impl Planned for SftConfig {
    fn facts(&self) -> anyhow::Result<Facts> {
        Facts::assume(&self.model.path, &self.data, self.sft.batch_size)
    }

    fn lengths(&self) -> anyhow::Result<Vec<Length>> {
        let samples = super::samples::<SftSample>(&self.model.path, &self.data)?;
        Ok(samples.iter().map(Length::of_text).collect())
    }

    fn plan(&self, facts: &Facts) -> MemoryPlan {
        let options = &self.sft;
        let mut batches =
            Batches::new(&self.data, self.seed, facts.lengths.len(), options.batch_size);
        let steps = batches.total(options.epochs, options.max_steps);
        let micro_batches =
            (0..steps.min(MOST_SAMPLES / options.batch_size as u64 + 1)).flat_map(|_| {
                let lengths: Vec<Length> =
                    batches.deal().into_iter().map(|i| facts.lengths[i]).collect();
                if !options.packing {
                    return Batch::cut(&lengths, options.micro_batch_tokens);
                }
                let tokens: Vec<usize> = lengths.iter().map(|length| length.tokens).collect();
                let packed = pack(&tokens, options.micro_batch_tokens);
                packed
                    .into_iter()
                    .map(|members| Batch::of(members.into_iter().map(|i| lengths[i])))
                    .collect()
            });
        let batch = super::widest(micro_batches, (self.device, &facts.policy));
        let learner = learner((&self.model, self.device), Head::LanguageModel, facts);
        plan("sft", (self.device, batch), &learner, facts)
    }

    fn changes(&self) -> Vec<Change<Self>> {
        let model = |config: &mut Self, change| change_model(&mut config.model, change);
        let budget = |config: &mut Self, tokens| config.sft.micro_batch_tokens = tokens;
        let now = (&self.model, self.sft.micro_batch_tokens, self.data.max_tokens);
        changes(self, now, "sft", (model, budget))
    }
}

impl Planned for RewardModelConfig {
    fn facts(&self) -> anyhow::Result<Facts> {
        Facts::assume(&self.model.path, &self.data, 2 * self.reward_model.batch_size)
    }

    fn lengths(&self) -> anyhow::Result<Vec<Length>> {
        let samples = super::samples::<PairSample>(&self.model.path, &self.data)?;
        Ok(samples.iter().flat_map(Length::of_pair).collect())
    }

    fn plan(&self, facts: &Facts) -> MemoryPlan {
        let options = &self.reward_model;
        let pairs: Vec<[Length; 2]> = facts.lengths.as_chunks().0.to_vec();
        let mut batches = Batches::new(&self.data, self.seed, pairs.len(), options.batch_size);
        let steps = batches.total(options.epochs, options.max_steps);
        let micro_batches =
            (0..steps.min(MOST_SAMPLES / options.batch_size as u64 + 1)).flat_map(|_| {
                let pairs: Vec<[Length; 2]> =
                    batches.deal().into_iter().map(|i| pairs[i]).collect();
                Batch::cut_pairs(&pairs, options.micro_batch_tokens)
            });
        let batch = super::widest(micro_batches, (self.device, &facts.policy));
        let learner = learner((&self.model, self.device), Head::Score, facts);
        plan("rm", (self.device, batch), &learner, facts)
    }

    fn changes(&self) -> Vec<Change<Self>> {
        let model = |config: &mut Self, change| change_model(&mut config.model, change);
        let budget = |config: &mut Self, tokens| config.reward_model.micro_batch_tokens = tokens;
        let now = (&self.model, self.reward_model.micro_batch_tokens, 2 * self.data.max_tokens);
        changes(self, now, "reward_model", (model, budget))
    }
}

fn learner((config, device): (&ModelConfig, Device), head: Head, facts: &Facts) -> PlannedModel {
    PlannedModel {
        spec: facts.policy.with_head(head),
        file: facts.policy.dtype,
        compute: config.dtype.into(),
        checkpointing: config.activation_checkpointing,
        frozen: false,
        on_host: device == Device::Cpu,
    }
}

fn plan(
    stage: &'static str,
    (device, batch): (Device, Batch),
    learner: &PlannedModel,
    facts: &Facts,
) -> MemoryPlan {
    let mut phases = Phases::new(device, facts.process);
    phases.keep(Part::MappedFiles, learner.file_bytes());
    phases.keep(Part::Data, facts.data);
    learner.load_into(&mut phases);
    phases.add("load", &[(Part::Copies, learner.loading())]);
    learner.learn_in(&mut phases);
    let update = match learner.on_host {
        true => learner.training_room(batch).taken(),
        false => learner.train(batch, COPIES),
    };
    phases.add_pass("update", update);
    phases.add("optimizer", &[(Part::Copies, learner.stepping())]);
    phases.add("checkpoint", &[(Part::Copies, learner.saving())]);
    MemoryPlan::new(stage, device, batch, phases)
}

/// What can be changed about a model.
#[derive(Clone, Copy)]
enum ModelChange {
    Checkpointing,
    Bf16,
}

fn change_model(model: &mut ModelConfig, change: ModelChange) {
    match change {
        ModelChange::Checkpointing => model.activation_checkpointing = true,
        ModelChange::Bf16 => model.dtype = ComputeDtype::Bf16,
    }
}

/// Lists what can be changed, the cheapest first.
fn changes<C: Clone>(
    config: &C,
    (model, budget, longest): (&ModelConfig, usize, usize),
    section: &str,
    (set_model, set_budget): (impl Fn(&mut C, ModelChange), impl Fn(&mut C, usize)),
) -> Vec<Change<C>> {
    let mut changes = Vec::new();
    let mut change = |text: String, set: &dyn Fn(&mut C)| {
        let mut config = config.clone();
        set(&mut config);
        changes.push(Change { text, config });
    };
    if !model.activation_checkpointing {
        let text = "model.activation_checkpointing = true".into();
        change(text, &|config| set_model(config, ModelChange::Checkpointing));
    }
    for tokens in super::halves(budget, longest) {
        let text = format!("{section}.micro_batch_tokens = {tokens}");
        change(text, &|config| set_budget(config, tokens));
    }
    if model.dtype == ComputeDtype::F32 {
        let text = "model.dtype = \"bf16\"".into();
        change(text, &|config| set_model(config, ModelChange::Bf16));
    }
    changes
}
