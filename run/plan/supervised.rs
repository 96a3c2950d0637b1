//! The memory plans of supervised fine-tuning, reward model training and preference optimisation: one model that learns.

use super::{
    Change, Facts, MemoryPlan, Planned,
    batch::{Batch, Length},
    facts,
    ledger::Part,
    model::{Learned, PlannedModel},
    phase::Phases,
};
use crate::{
    config::{
        ComputeDtype, DpoConfig, EmaConfig, KtoConfig, LoraConfig, ModelConfig, RegressionConfig,
        RewardModelConfig, SftConfig, SteerLm2Config,
    },
    data::{DataConfig, LabeledSample, PairSample, RatedSample, ResponsesSample, SftSample, pack},
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
        let passes = (options.epochs, options.max_steps, options.batch_size);
        let cut = (options.packing, options.micro_batch_tokens);
        let micro_batches = packed((&self.data, self.seed), &facts.lengths, passes, cut);
        let batch = super::widest(micro_batches, (self.device, &facts.policy));
        let Self { model, device, .. } = self;
        let learner = learner((model, *device), (&self.lora, self.ema), Head::LanguageModel, facts);
        let mut phases = begin(&learner, *device, facts);
        train(&learner, batch, &mut phases);
        MemoryPlan::new("sft", *device, batch, phases)
    }

    fn changes(&self) -> Vec<Change<Self>> {
        let longest = self.data.max_tokens;
        changes(self, ("sft", longest), |config| Knobs {
            checkpointing: &mut config.model.activation_checkpointing,
            dtype: &mut config.model.dtype,
            budget: &mut config.sft.micro_batch_tokens,
        })
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
        let lengths = facts.lengths.iter().map(|length| length.scored()).collect();
        let pairs = Pairs { data: &self.data, seed: self.seed, lengths };
        let steps = (options.batch_size, options.epochs, options.max_steps);
        let micro_batches = pairs.micro_batches(steps, options.micro_batch_tokens);
        let batch = super::widest(micro_batches, (self.device, &facts.policy));
        let Self { model, device, .. } = self;
        let learner = learner((model, *device), (&self.lora, self.ema), Head::Score, facts);
        let mut phases = begin(&learner, *device, facts);
        train(&learner, batch, &mut phases);
        MemoryPlan::new("rm", *device, batch, phases)
    }

    fn changes(&self) -> Vec<Change<Self>> {
        let longest = 2 * self.data.max_tokens;
        changes(self, ("reward_model", longest), |config| Knobs {
            checkpointing: &mut config.model.activation_checkpointing,
            dtype: &mut config.model.dtype,
            budget: &mut config.reward_model.micro_batch_tokens,
        })
    }
}

impl Planned for RegressionConfig {
    fn facts(&self) -> anyhow::Result<Facts> {
        let facts = Facts::assume(&self.model.path, &self.data, self.regression.batch_size)?;
        Ok(Facts { policy: facts.policy.with_labels(&self.regression.attributes), ..facts })
    }

    fn lengths(&self) -> anyhow::Result<Vec<Length>> {
        let samples = super::samples::<RatedSample>(&self.model.path, &self.data)?;
        Ok(samples.iter().map(Length::of_rated).collect())
    }

    fn plan(&self, facts: &Facts) -> MemoryPlan {
        let options = &self.regression;
        let lengths: Vec<Length> = facts.lengths.iter().map(|length| length.scored()).collect();
        let singles = Singles { data: &self.data, seed: self.seed, lengths: &lengths };
        let steps = (options.batch_size, options.epochs, options.max_steps);
        let micro_batches = singles.micro_batches(steps, options.micro_batch_tokens);
        let batch = super::widest(micro_batches, (self.device, &facts.policy));
        let Self { model, device, .. } = self;
        let learner = learner((model, *device), (&self.lora, self.ema), Head::Score, facts);
        let mut phases = begin(&learner, *device, facts);
        train(&learner, batch, &mut phases);
        MemoryPlan::new("regression", *device, batch, phases)
    }

    fn changes(&self) -> Vec<Change<Self>> {
        let longest = self.data.max_tokens;
        changes(self, ("regression", longest), |config| Knobs {
            checkpointing: &mut config.model.activation_checkpointing,
            dtype: &mut config.model.dtype,
            budget: &mut config.regression.micro_batch_tokens,
        })
    }
}

impl Planned for DpoConfig {
    fn facts(&self) -> anyhow::Result<Facts> {
        let facts = Facts::assume(&self.model.path, &self.data, 2 * self.dpo.batch_size)?;
        let reference = self.other_reference().map(facts::shape).transpose()?;
        Ok(Facts { reference, ..facts })
    }

    fn lengths(&self) -> anyhow::Result<Vec<Length>> {
        let samples = super::samples::<PairSample>(&self.model.path, &self.data)?;
        Ok(samples.iter().flat_map(Length::of_pair).collect())
    }

    fn plan(&self, facts: &Facts) -> MemoryPlan {
        let options = &self.dpo;
        let pairs = Pairs { data: &self.data, seed: self.seed, lengths: facts.lengths.clone() };
        let steps = (options.batch_size, options.epochs, options.max_steps);
        let micro_batches = pairs.micro_batches(steps, options.micro_batch_tokens);
        let batch = super::widest(micro_batches, (self.device, &facts.policy));
        let Self { model, device, .. } = self;
        let (model, beside) = (model.trained(), (&self.lora, self.ema));
        let learner = learner((&model, *device), beside, Head::LanguageModel, facts);
        let phases = referred((&learner, options.loss.has_reference()), batch, *device, facts);
        MemoryPlan::new("dpo", *device, batch, phases)
    }

    fn changes(&self) -> Vec<Change<Self>> {
        let longest = 2 * self.data.max_tokens;
        changes(self, ("dpo", longest), |config| Knobs {
            checkpointing: &mut config.model.activation_checkpointing,
            dtype: &mut config.model.dtype,
            budget: &mut config.dpo.micro_batch_tokens,
        })
    }
}

impl Planned for KtoConfig {
    fn facts(&self) -> anyhow::Result<Facts> {
        let facts = Facts::assume(&self.model.path, &self.data, self.kto.batch_size)?;
        let reference = self.model.other_reference().map(facts::shape).transpose()?;
        Ok(Facts { reference, ..facts })
    }

    fn lengths(&self) -> anyhow::Result<Vec<Length>> {
        let samples = super::samples::<LabeledSample>(&self.model.path, &self.data)?;
        Ok(samples.iter().map(Length::of_labeled).collect())
    }

    fn plan(&self, facts: &Facts) -> MemoryPlan {
        let options = &self.kto;
        let singles = Singles { data: &self.data, seed: self.seed, lengths: &facts.lengths };
        let steps = (options.batch_size, options.epochs, options.max_steps);
        let micro_batches = singles.micro_batches(steps, options.micro_batch_tokens);
        let batch = super::widest(micro_batches, (self.device, &facts.policy));
        let Self { model, device, .. } = self;
        let (model, beside) = (model.trained(), (&self.lora, self.ema));
        let learner = learner((&model, *device), beside, Head::LanguageModel, facts);
        let phases = referred((&learner, true), batch, *device, facts);
        MemoryPlan::new("kto", *device, batch, phases)
    }

    fn changes(&self) -> Vec<Change<Self>> {
        let longest = self.data.max_tokens;
        changes(self, ("kto", longest), |config| Knobs {
            checkpointing: &mut config.model.activation_checkpointing,
            dtype: &mut config.model.dtype,
            budget: &mut config.kto.micro_batch_tokens,
        })
    }
}

impl Planned for SteerLm2Config {
    fn facts(&self) -> anyhow::Result<Facts> {
        Facts::assume(&self.model.path, &self.data, self.steerlm2.batch_size)
    }

    fn lengths(&self) -> anyhow::Result<Vec<Length>> {
        let samples = super::samples::<ResponsesSample>(&self.model.path, &self.data)?;
        Ok(samples.iter().map(Length::of_responses).collect())
    }

    fn plan(&self, facts: &Facts) -> MemoryPlan {
        let options = &self.steerlm2;
        let singles = Singles { data: &self.data, seed: self.seed, lengths: &facts.lengths };
        let steps = (options.batch_size, options.epochs, options.max_steps);
        let micro_batches = singles.micro_batches(steps, options.micro_batch_tokens);
        let batch = super::widest(micro_batches, (self.device, &facts.policy));
        let Self { model, device, .. } = self;
        let beside = (&self.lora, self.ema);
        let learner = learner((model, *device), beside, Head::LanguageModel, facts);
        let phases = referred((&learner, false), batch, *device, facts);
        MemoryPlan::new("steerlm2", *device, batch, phases)
    }

    fn changes(&self) -> Vec<Change<Self>> {
        let longest = self.data.max_tokens;
        changes(self, ("steerlm2", longest), |config| Knobs {
            checkpointing: &mut config.model.activation_checkpointing,
            dtype: &mut config.model.dtype,
            budget: &mut config.steerlm2.micro_batch_tokens,
        })
    }
}

/// Samples, and the order in which they are dealt.
struct Singles<'a> {
    data: &'a DataConfig,
    seed: u64,
    lengths: &'a [Length],
}

impl Singles<'_> {
    /// Returns the micro-batches of a run of so many samples a step, epochs, and steps at most.
    fn micro_batches(
        &self,
        (batch_size, epochs, max_steps): (usize, usize, u64),
        budget: usize,
    ) -> impl Iterator<Item = Batch> {
        let (data, steps) = ((self.data, self.seed), (epochs, max_steps, batch_size));
        packed(data, self.lengths, steps, (false, budget))
    }
}

/// Returns the micro-batches of a run of so many epochs, steps at most, and sequences a step, which are packed or go by length.
pub(super) fn packed<'a>(
    (data, seed): (&DataConfig, u64),
    lengths: &'a [Length],
    (epochs, max_steps, batch_size): (usize, u64, usize),
    (packing, budget): (bool, usize),
) -> impl Iterator<Item = Batch> + use<'a> {
    let mut batches = Batches::new(data, seed, lengths.len(), batch_size);
    let steps = batches.total(epochs, max_steps);
    (0..steps.min(MOST_SAMPLES / batch_size as u64 + 1)).flat_map(move |_| {
        let lengths: Vec<Length> = batches.deal().into_iter().map(|i| lengths[i]).collect();
        if !packing {
            return Batch::cut(&lengths, budget);
        }
        let tokens: Vec<usize> = lengths.iter().map(|length| length.tokens).collect();
        let packed = pack(&tokens, budget).into_iter();
        packed.map(|members| Batch::of(members.into_iter().map(|i| lengths[i]))).collect()
    })
}

/// Pairs, and the order in which they are dealt.
struct Pairs<'a> {
    data: &'a DataConfig,
    seed: u64,
    /// Of chosen and rejected in turn.
    lengths: Vec<Length>,
}

impl Pairs<'_> {
    /// Returns the micro-batches of a run of so many pairs a step, epochs, and steps at most.
    fn micro_batches(
        &self,
        (batch_size, epochs, max_steps): (usize, usize, u64),
        budget: usize,
    ) -> impl Iterator<Item = Batch> {
        let pairs: &[[Length; 2]] = self.lengths.as_chunks().0;
        let mut batches = Batches::new(self.data, self.seed, pairs.len(), batch_size);
        let steps = batches.total(epochs, max_steps).min(MOST_SAMPLES / batch_size as u64 + 1);
        (0..steps).flat_map(move |_| {
            let pairs: Vec<[Length; 2]> = batches.deal().into_iter().map(|i| pairs[i]).collect();
            Batch::cut_pairs(&pairs, budget)
        })
    }
}

pub(super) fn learner(
    (model, device): (&ModelConfig, Device),
    (lora, ema): (&LoraConfig, EmaConfig),
    head: Head,
    facts: &Facts,
) -> PlannedModel {
    let (dtype, checkpointing) = (model.dtype, model.activation_checkpointing);
    let spec = facts.policy.with_head(head);
    let lora = super::model::adapter(lora, &spec);
    PlannedModel {
        learns: Learned::of(&spec, &model.freeze(), lora.as_ref(), ema),
        spec,
        file: facts.policy.dtype,
        compute: dtype.into(),
        checkpointing,
        frozen: false,
        on_host: device == Device::Cpu,
    }
}

/// Enters what a run holds from its start, and the phase in which its model is loaded.
fn begin(learner: &PlannedModel, device: Device, facts: &Facts) -> Phases {
    let mut phases = Phases::new(device, facts.process);
    phases.keep(Part::MappedFiles, learner.file_bytes());
    phases.keep(Part::Data, facts.data);
    load(learner, &mut phases);
    phases
}

fn load(learner: &PlannedModel, phases: &mut Phases) {
    learner.load_into(phases);
    phases.add("load", &[(Part::Copies, learner.loading())]);
}

/// Returns the phases of a run whose reference, if it has one, is asked before the first optimizer step.
pub(super) fn referred(
    (learner, has_reference): (&PlannedModel, bool),
    batch: Batch,
    device: Device,
    facts: &Facts,
) -> Phases {
    let mut phases = Phases::new(device, facts.process);
    phases.keep(Part::MappedFiles, learner.file_bytes());
    phases.keep(Part::Data, facts.data);
    if let Some(reference) = &facts.reference {
        // It is gone before the policy is loaded.
        let frozen = PlannedModel {
            spec: reference.with_head(Head::LanguageModel),
            file: reference.dtype,
            checkpointing: false,
            frozen: true,
            ..learner.clone()
        };
        let there = [(Part::MappedFiles, frozen.file_bytes()), (Part::Weights, frozen.weights())];
        phases.add("load reference", &[there[0], there[1], (Part::Copies, frozen.loading())]);
        score(&frozen, batch, &there, &mut phases);
    }
    load(learner, &mut phases);
    if has_reference && facts.reference.is_none() {
        score(learner, batch, &[], &mut phases);
    }
    train(learner, batch, &mut phases);
    phases
}

/// Adds the phase in which a reference's log-probs are computed, and what is there beside only now.
fn score(model: &PlannedModel, batch: Batch, beside: &[(Part, u64)], phases: &mut Phases) {
    let taken = match model.on_host {
        true => model.scoring_room(batch).taken(),
        false => model.forward(batch),
    };
    phases.add_pass_beside("reference", taken, beside);
}

/// Adds the phases of an optimizer step and of a checkpoint.
fn train(learner: &PlannedModel, batch: Batch, phases: &mut Phases) {
    learner.learn_in(phases);
    let update = match learner.on_host {
        true => learner.training_room(batch).taken(),
        false => learner.train(batch, COPIES),
    };
    phases.add_pass("update", update);
    phases.add("optimizer", &[(Part::Copies, learner.stepping())]);
    phases.add("checkpoint", &[(Part::Copies, learner.saving())]);
}

/// What can be changed.
pub(super) struct Knobs<'a> {
    pub(super) checkpointing: &'a mut bool,
    pub(super) dtype: &'a mut ComputeDtype,
    /// Tokens of a micro-batch.
    pub(super) budget: &'a mut usize,
}

/// Lists what can be changed, the cheapest first. `longest` is how long a sample may be.
pub(super) fn changes<C: Clone>(
    config: &C,
    (section, longest): (&str, usize),
    knobs: impl Fn(&mut C) -> Knobs<'_>,
) -> Vec<Change<C>> {
    let mut changes = Vec::new();
    let mut change = |text: String, set: &dyn Fn(Knobs<'_>)| {
        let mut config = config.clone();
        set(knobs(&mut config));
        changes.push(Change { text, config });
    };
    let mut now = config.clone();
    let Knobs { checkpointing, dtype, budget } = knobs(&mut now);
    if !*checkpointing {
        let text = "model.activation_checkpointing = true".into();
        change(text, &|knobs| *knobs.checkpointing = true);
    }
    for tokens in super::halves(*budget, longest) {
        let text = format!("{section}.micro_batch_tokens = {tokens}");
        change(text, &|knobs| *knobs.budget = tokens);
    }
    if *dtype == ComputeDtype::F32 {
        let text = "model.dtype = \"bf16\"".into();
        change(text, &|knobs| *knobs.dtype = ComputeDtype::Bf16);
    }
    changes
}
