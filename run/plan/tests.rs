//! Plans of small models, worked out by hand.

use super::{
    batch::{Batch, Length},
    model::{Learned, PlannedModel},
    pass::Taken,
    *,
};
use crate::{
    config::{self, DpoConfig, EmaConfig, MemoryConfig, PpoConfig, SftConfig},
    model::{Family, Head, Lora, LoraTarget},
    rollout::{Dtype, TensorSpec},
    trainer::config::Freeze,
};

/// Two layers of width 8, two heads of 4, a feed-forward width of 16, ten tokens, tied.
fn spec() -> ModelSpec {
    ModelSpec {
        family: Family::Llama,
        head: Head::LanguageModel,
        labels: Vec::new(),
        hidden_size: 8,
        intermediate_size: 16,
        num_layers: 2,
        num_heads: 2,
        num_kv_heads: 2,
        head_dim: 4,
        vocab_size: 10,
        max_positions: 64,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: None,
        sliding_window: None,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        tie_word_embeddings: true,
        dtype: Dtype::F32,
    }
}

/// On a GPU.
fn learner(compute: Dtype, checkpointing: bool) -> PlannedModel {
    let (spec, file) = (spec(), Dtype::F32);
    PlannedModel {
        spec,
        file,
        compute,
        checkpointing,
        frozen: false,
        learns: Learned::default(),
        on_host: false,
    }
}

fn host_learner(compute: Dtype, checkpointing: bool) -> PlannedModel {
    PlannedModel { on_host: true, ..learner(compute, checkpointing) }
}

/// 10 x 8 for the embedding; 4 x 8 x 8 + 3 x 8 x 16 + 2 x 8 in each layer; 8 for the last norm.
const PARAMETERS: u64 = 80 + 2 * (256 + 384 + 16) + 8;

#[test]
fn a_learner_holds_16_bytes_a_weight_and_more_in_bf16() {
    let held = |model: &PlannedModel| model.weights() + model.gradient() + model.moments();
    assert_eq!(held(&learner(Dtype::F32, false)), 16 * PARAMETERS);
    // A copy of weights and gradient of 2 bytes each.
    assert_eq!(held(&learner(Dtype::Bf16, false)), 20 * PARAMETERS);
    // On the host of the weights alone.
    assert_eq!(held(&host_learner(Dtype::F32, false)), 16 * PARAMETERS);
    assert_eq!(held(&host_learner(Dtype::Bf16, false)), 18 * PARAMETERS);
    let frozen = PlannedModel { frozen: true, ..learner(Dtype::Bf16, false) };
    assert_eq!(held(&frozen), 2 * PARAMETERS);
}

#[test]
fn an_adapter_has_gradient_moments_and_masters_of_its_own_alone() {
    let lora = Lora {
        rank: 2,
        alpha: 4.0,
        dropout: 0.0,
        rslora: false,
        targets: vec![LoraTarget::QProj, LoraTarget::DownProj],
    };
    // A and B in two layers: 2 x 8 and 8 x 2 beside q, 2 x 16 and 8 x 2 beside down.
    let adapter = 2 * ((16 + 16) + (32 + 16));
    let with = |compute, average| {
        let ema = EmaConfig { decay: if average { 0.9 } else { 0.0 } };
        let learns = Learned::of(&spec(), &Freeze::default(), Some(&lora), ema);
        PlannedModel { learns, ..host_learner(compute, false) }
    };
    let held = |model: &PlannedModel| model.weights() + model.gradient() + model.moments();
    assert_eq!(held(&with(Dtype::F32, false)), 4 * PARAMETERS + 16 * adapter);
    // Of the model only what passes read; of the adapter masters, a copy, a gradient and moments.
    assert_eq!(held(&with(Dtype::Bf16, false)), 2 * PARAMETERS + 18 * adapter);
    assert_eq!(with(Dtype::F32, false).merging(Dtype::F32), 4 * (PARAMETERS + adapter));
    assert_eq!(host_learner(Dtype::F32, false).merging(Dtype::F32), 0);
    let freeze = Freeze { names: vec!["model.norm.weight".into()], layers: 1 };
    let learns = Learned::of(&spec(), &freeze, None, EmaConfig::default());
    // Attention 4 x 64, the feed-forward part 3 x 128, two norms of 8; the embeddings of ten tokens, the last norm.
    assert_eq!(learns.frozen, 4 * 64 + 3 * 128 + 2 * 8 + 80 + 8);
}

#[test]
fn a_policy_with_an_adapter_is_its_own_reference() {
    let weights = |plan: &MemoryPlan| of(plan, "score", Part::Weights);
    let lora = Lora {
        rank: 2,
        alpha: 16.0,
        dropout: 0.0,
        rslora: false,
        targets: vec![LoraTarget::AllLinear],
    };
    let elements = |tensor: &TensorSpec| tensor.shape.iter().product::<usize>() as u64;
    let adapter: u64 = lora.tensors(&spec()).iter().map(elements).sum();
    // Policy, critic (a head of 8 more) and reference; then policy and critic, and what stands beside them.
    assert_eq!(weights(&ppo("")), 4 * (3 * PARAMETERS + 8));
    assert_eq!(weights(&ppo("lora.rank = 2\n")), 4 * (2 * PARAMETERS + 8 + 2 * adapter));
    let gradient = |plan: &MemoryPlan| of(plan, "update", Part::Gradients);
    // The critic's head learns, too.
    assert_eq!(gradient(&ppo("lora.rank = 2\n")), 4 * (2 * adapter + 8));
}

#[test]
fn a_training_pass_keeps_what_the_table_says() {
    let batch = Batch::of([Length { tokens: 3, rows: 2 }, Length { tokens: 3, rows: 2 }]);
    assert_eq!(batch, Batch { tokens: 6, grid: 6, rows: 4 });
    // Numbers of a token in the first layer: 3 norms' worth of 8 twice, q and k rotated, q k v as projected, the mixed
    // values, and 4 x 16; of attention 2 more, one per head.
    let first = 6 * (24 + 16 + 24 + 8 + 24 + 64 + 2);
    // In the last, attention's part for all six, the mixed rows and what follows for four.
    let last = 6 * (24 + 16 + 24 + 8 + 2) + 4 * (8 + 24 + 64);
    // With 10 words a layer's turn on the way back is the widest: gradients of up and gate, twice, and of the stream.
    let narrow = learner(Dtype::F32, false).train(batch, 4);
    let gradients = 6 * (64 + 2 * 8);
    assert_eq!((narrow.activations, narrow.logits), (4 * (first + last + gradients), 0));
    // With 100 it is the head: four copies of 4 x 100 logits, or three, which are as much as one and the matrix.
    let wide = |copies| {
        let spec = ModelSpec { vocab_size: 100, ..spec() };
        PlannedModel { spec, ..learner(Dtype::F32, false) }.train(batch, copies)
    };
    assert_eq!(wide(4).activations, 4 * (first + last + 4 * 24));
    assert_eq!((wide(4).logits, wide(2).logits), (4 * 4 * 400, 4 * (400 + 800)));
}

#[test]
fn padding_counts_where_attention_works_on_it() {
    let even = Batch::of([Length { tokens: 4, rows: 1 }; 2]);
    let uneven = Batch::of([Length { tokens: 7, rows: 1 }, Length { tokens: 1, rows: 1 }]);
    assert_eq!((even.tokens, uneven.tokens, even.grid, uneven.grid), (8, 8, 8, 14));
    let taken = |batch| learner(Dtype::F32, false).train(batch, 2).activations;
    // Six more places with q, k, q k v and mixed values in both layers; and the mixed values of the first layer's eight
    // tokens, moved out of the grid.
    assert_eq!(taken(uneven) - taken(even), 4 * (2 * 6 * (16 + 24 + 8 + 2) + 8 * 8));
}

#[test]
fn checkpointing_keeps_the_stream_and_one_layer() {
    let batch = Batch::of([Length { tokens: 100, rows: 10 }]);
    let taken = learner(Dtype::F32, true).train(batch, 2);
    let stream = 2 * 100 * 8 + 10 * 8;
    let layer = 100 * (24 + 16 + 24 + 8 + 24 + 64 + 2);
    let gradients = 100 * (64 + 16);
    assert_eq!(taken.activations, 4 * (stream + layer + gradients));
    assert!(taken.total() < learner(Dtype::F32, false).train(batch, 2).total());
}

fn six_tokens() -> Batch {
    Batch { tokens: 6, grid: 6, rows: 4 }
}

#[test]
fn on_the_host_training_has_room_for_what_the_table_says() {
    // Numbers of a token that layers share: the norm's output and the product, gated, heads; their derivatives, once more
    // where the last layer's rows are scattered; that of the stream, twice; those of q, k and v, twice.
    let shared = (8 + 8 + 16 + 8) + (8 + 48 + 8 + 8) + 2 * 8 + 2 * 24;
    // Of a wanted row: attention's output and input, and the last norm's output with its derivative.
    let wanted = 4 * 8;
    let streams = 2 * 6 * 8 + 4 * 8;
    // q, k and v, attention's output, two denominators, the stream, and up and gate; in the last layer of four rows.
    let first = 6 * (24 + 8 + 2 + 8 + 32);
    let last = 6 * (24 + 8 + 2) + 4 * (8 + 32);
    let all = |layers: u64| Taken {
        activations: 4 * (6 * shared + 4 * wanted + streams + layers),
        logits: 4 * 4 * 10,
    };
    let taken =
        |checkpointing| host_learner(Dtype::F32, checkpointing).training_room(six_tokens()).taken();
    assert_eq!(taken(false), all(first + last));
    assert_eq!(taken(true), all(first));
}

#[test]
fn on_the_host_the_stream_and_the_derivatives_of_heads_are_f32_in_bf16_too() {
    let shared = 2 * ((8 + 8 + 16 + 8) + (8 + 48 + 8 + 8) + 24) + 4 * (2 * 8 + 24);
    let wanted = 2 * 24 + 4 * 8;
    let streams = 4 * (2 * 6 * 8 + 4 * 8);
    let first = 6 * (2 * (24 + 8 + 32) + 4 * (2 + 8));
    let last = 6 * (2 * (24 + 8) + 4 * 2) + 4 * (2 * 32 + 4 * 8);
    // The gradient of up and gate, the largest of one weight.
    let weight = 2 * 32 * 8;
    let activations = 6 * shared + 4 * wanted + streams + first + last + weight;
    let taken = |spec| {
        let model = PlannedModel { spec, ..host_learner(Dtype::Bf16, false) };
        model.training_room(six_tokens()).taken()
    };
    assert_eq!(taken(spec()), Taken { activations, logits: 2 * 4 * 10 });
    // With 100 words it is the head's.
    let wide = taken(ModelSpec { vocab_size: 100, ..spec() });
    assert_eq!(wide.activations - activations, 2 * (100 - 32) * 8);
    // No more than 384 MiB of logits are held: here of three rows, each of 128 MiB.
    assert_eq!(taken(ModelSpec { vocab_size: 1 << 26, ..spec() }).logits, 3 << 27);
}

#[test]
fn on_the_host_scoring_has_two_streams_and_one_layer_and_padding_takes_nothing() {
    let taken = |batch| host_learner(Dtype::F32, false).scoring_room(batch).taken();
    let layer = 24 + 8 + 2 + 8 + 32;
    let activations = 4 * (6 * (8 + 8 + 16 + 8 + layer + 2 * 8) + 4 * 3 * 8);
    assert_eq!(taken(six_tokens()), Taken { activations, logits: 4 * 4 * 10 });
    assert_eq!(taken(Batch { grid: 12, ..six_tokens() }), taken(six_tokens()));
}

#[test]
fn models_share_buffers_which_are_as_large_as_any_needs_them() {
    let training = host_learner(Dtype::F32, false).training_room(six_tokens());
    let scoring = |spec| {
        let model = PlannedModel { spec, ..host_learner(Dtype::F32, false) };
        model.scoring_room(six_tokens())
    };
    assert_eq!(scoring(spec()).or(training.clone()), training);
    let wide = scoring(ModelSpec { intermediate_size: 64, ..spec() });
    // Gated, and up and gate of the only layer that scoring keeps.
    let more = 4 * 6 * (48 + 96);
    let both = wide.or(training.clone()).taken();
    assert_eq!(both.activations, training.taken().activations + more);
    // Micro-batches too.
    let [long, many] = [(9, 1), (6, 4)].map(|(tokens, rows)| Batch { tokens, grid: tokens, rows });
    let widest = |device| super::widest([many, long], (device, &spec()));
    assert_eq!(widest(Device::Cpu), Batch { tokens: 9, grid: 9, rows: 4 });
    assert_eq!(widest(Device::Cuda(0)), long);
}

fn facts(lengths: Vec<Length>) -> Facts {
    Facts {
        policy: spec(),
        reference: None,
        rewards: Vec::new(),
        lengths,
        data: 0,
        process: 1 << 20,
    }
}

fn parsed<C: config::Config>(more: &str) -> C {
    let text = format!("output_dir = 'run'\nmodel.path = 'base'\ndata.train = 'a.jsonl'\n{more}");
    config::parse("test.toml", text, "/project".as_ref(), &[]).expect("a configuration")
}

fn ppo(more: &str) -> MemoryPlan {
    let reward =
        "reward = { kind = 'exact_match', column = 'answer' }\nppo.value_init = 'policy'\n";
    let config: PpoConfig = parsed(&format!("{reward}engine.kv_cache_tokens = 64\n{more}"));
    config.plan(&facts(vec![Length { tokens: 4, rows: 0 }; 3]))
}

fn of(plan: &MemoryPlan, phase: &str, part: Part) -> u64 {
    let phase = plan.phases.iter().find(|found| found.name == phase).expect("the phase");
    phase.host.get(part) + phase.device.get(part)
}

#[test]
fn ppo_holds_policy_critic_and_reference() {
    let plan = ppo("");
    let critic = PARAMETERS + 8;
    assert_eq!(of(&plan, "update", Part::Weights), 4 * (2 * PARAMETERS + critic));
    assert_eq!(of(&plan, "update", Part::Optimizer), 8 * (PARAMETERS + critic));
    assert_eq!(of(&plan, "update", Part::Gradients), 4 * (PARAMETERS + critic));
    assert_eq!(of(&plan, "checkpoint", Part::Copies), 8 * critic);
    assert_eq!(of(&plan, "generate", Part::KvCache), 64 * 2 * 2 * 8 * 4);
    assert_eq!(of(&plan, "generate", Part::Refit), 0);
    let without = ppo("ppo.kl_coef = 0.0\n");
    assert_eq!(of(&without, "update", Part::Weights), 4 * (PARAMETERS + critic));
    let alone = ppo("ppo.preset = 'grpo'\nppo.samples_per_prompt = 2\n");
    assert_eq!(of(&alone, "update", Part::Weights), 4 * PARAMETERS);
    assert_eq!(of(&alone, "update", Part::Optimizer), 8 * PARAMETERS);
    assert_eq!(of(&alone, "update", Part::Gradients), 4 * PARAMETERS);
    assert_eq!(of(&alone, "checkpoint", Part::Copies), 8 * PARAMETERS);
}

#[test]
fn what_passes_took_stays_on_the_host_alone() {
    let once = "ppo.iterations = 1\n";
    let held = |plan: &MemoryPlan, part| {
        let phases = ["load", "generate", "score", "update", "checkpoint"];
        phases.map(|phase| of(plan, phase, part))
    };
    let plan = ppo(once);
    let [load, generate, score, update, checkpoint] = held(&plan, Part::Activations);
    assert_eq!((load, generate, checkpoint), (0, 0, update));
    assert!(score > 0 && update > score);
    // In the second iteration it is there from the start.
    assert_eq!(
        held(&ppo("ppo.iterations = 2\n"), Part::Activations),
        [0, update, update, update, update]
    );
    // No page of the moments is there before it is written to, and a step makes nothing that it drops.
    let moments = of(&plan, "update", Part::Optimizer);
    assert_eq!(held(&plan, Part::Optimizer), [0, 0, 0, moments, moments]);
    assert_eq!(of(&plan, "optimizer", Part::Copies), 0);

    let plan = ppo(&format!("{once}device = 'cuda'\n"));
    let [_, generate, score, update, checkpoint] = held(&plan, Part::Activations);
    assert_eq!((generate, checkpoint), (0, 0));
    assert!(score > 0 && update > score);
    assert_eq!(held(&plan, Part::Optimizer), [moments; 5]);
    assert!(of(&plan, "optimizer", Part::Copies) > 0);
}

#[test]
fn a_reward_model_has_room_of_its_own() {
    let text = "reward = { kind = 'model', path = 'judge' }\n";
    let config: PpoConfig = parsed(&format!("{text}engine.kv_cache_tokens = 64\n"));
    let facts = facts(vec![Length { tokens: 4, rows: 0 }; 3]);
    let alone = config.plan(&facts);
    let judged = config.plan(&Facts { rewards: vec![spec()], ..facts });
    let [tokens, grid, rows] = judged.micro_batch;
    let judge = PlannedModel { frozen: true, ..host_learner(Dtype::F32, false) };
    let room = judge.scoring_room(Batch { tokens, grid, rows }).taken().activations;
    let held = |plan| of(plan, "update", Part::Activations);
    assert_eq!(held(&judged), held(&alone) + room);
}

#[test]
fn an_engine_that_runs_beside_the_trainer_has_two_copies_of_the_weights() {
    assert_eq!(of(&ppo("queue.mode = 'async'\n"), "update", Part::Refit), 2 * 4 * PARAMETERS);
    // bf16 in the trainer, which the engine reads where it is; f32 too, for that is the master.
    let bf16 = "model.dtype = 'bf16'\n";
    assert_eq!(of(&ppo(bf16), "refit", Part::Refit), 0);
    assert_eq!(of(&ppo(&format!("{bf16}engine.dtype = 'f32'\n")), "refit", Part::Copies), 0);
    let other = ppo("engine.dtype = 'bf16'\n");
    assert_eq!((of(&other, "generate", Part::Refit), of(&other, "refit", Part::Copies)), {
        let copy = 2 * PARAMETERS;
        (copy, copy)
    });
}

#[test]
fn a_reference_is_never_there_beside_the_policy() {
    let dpo = |more: &str, reference: Option<ModelSpec>| {
        let config: DpoConfig = parsed(more);
        config.plan(&Facts { reference, ..facts(vec![Length { tokens: 16, rows: 9 }; 8]) })
    };
    let names = |plan: &MemoryPlan| plan.phases.iter().map(|phase| phase.name).collect::<Vec<_>>();
    let trained = ["update", "optimizer", "checkpoint"];
    // The policy as it starts is its own reference: nothing but what a pass takes comes on top.
    let own = dpo("", None);
    assert_eq!(names(&own), [&["load", "reference"], &trained[..]].concat());
    assert_eq!(of(&own, "reference", Part::Weights), 4 * PARAMETERS);
    assert_eq!(of(&own, "update", Part::Weights), 4 * PARAMETERS);
    assert!(of(&own, "reference", Part::Activations) > 0);
    let batch = Batch { tokens: 8 * 16, grid: 8 * 16, rows: 8 * 9 };
    let training = host_learner(Dtype::F32, false).training_room(batch).taken();
    assert_eq!(of(&own, "update", Part::Activations), training.activations);
    // Another one is gone before the policy comes.
    let other = dpo("model.reference = 'other'\n", Some(spec()));
    assert_eq!(names(&other), [&["load reference", "reference", "load"], &trained[..]].concat());
    assert_eq!(of(&other, "reference", Part::Weights), 4 * PARAMETERS);
    assert_eq!(of(&other, "load", Part::Weights), 4 * PARAMETERS);
    assert_eq!(other.peak(), own.peak());
    // Some losses have none.
    assert_eq!(names(&dpo("dpo.loss = 'orpo'\n", None)), [&["load"], &trained[..]].concat());
}

#[test]
fn on_a_gpu_the_trainer_leaves_the_host() {
    let plan = ppo("device = 'cuda'\n");
    let update = &plan.phases[3];
    assert_eq!((update.name, update.host.get(Part::Weights)), ("update", 0));
    assert!(update.device.get(Part::Weights) > 0 && update.host.get(Part::KvCache) > 0);
    assert!(plan.device_needed() > 0 && ppo("").device_needed() == 0);
}

#[test]
fn advice_is_found_by_trying() {
    let config: SftConfig = parsed("sft.batch_size = 64\nsft.micro_batch_tokens = 1024\n");
    let facts = facts(vec![Length { tokens: 16, rows: 15 }; 64]);
    let needed = config.plan(&facts).needed();
    let advice = advise(&config, &facts, needed - 1, MemoryPlan::needed);
    let set: Vec<&str> = advice.iter().map(|advice| advice.set[0].as_str()).collect();
    assert_eq!(set, ["model.activation_checkpointing = true", "model.dtype = \"bf16\""]);
    assert!(advice.iter().all(|advice| advice.fits && advice.needed < needed));
    let impossible = advise(&config, &facts, 1 << 20, MemoryPlan::needed);
    assert_eq!(impossible.len(), 1);
    assert!(!impossible[0].fits && impossible[0].needed > 1 << 20);
}

#[test]
fn a_run_that_does_not_fit_is_told_what_to_change() {
    let limit = Some("1MiB".parse().expect("a size"));
    let memory = MemoryConfig { limit, ..MemoryConfig::default() };
    assert_eq!(memory.check, config::MemoryCheck::Stop);
    let plan = ppo("");
    assert!(plan.needed() > 1 << 20 && plan.peak() >= plan.needed());
}
