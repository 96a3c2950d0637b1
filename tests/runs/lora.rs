//! Adapters in place of a model, frozen layers, and averages of weights, in whole runs.

use std::{f64::consts::LN_2, fs};

use rollforge::{
    config::{DpoConfig, PpoConfig, RewardModelConfig, SftConfig},
    model::{Model, read_adapter},
    rollout::Dtype,
    run::{self, Earlier, Launch, Silent, model_directory},
};
use serde_json::Value;

use crate::{
    resume::stopped,
    world::{World, column, files, launch, ppo_of_digits},
};

const LORA: &str = "lora.rank = 4\nlora.alpha = 8.0\n";
const SFT: &str = "data.train = 'echo.jsonl'\ndata.eval = 'echo.jsonl'\ndata.append_eos = false\n\
                   sft.batch_size = 50\n";

fn world() -> World {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    let pairs: String = (0..40)
        .map(|row| {
            let (right, other) = (row % 10, (row + 1 + row / 10) % 10);
            format!(
                "{{\"prompt\": \"{right}\", \"chosen\": \"{right}\", \"rejected\": \"{other}\"}}\n"
            )
        })
        .collect();
    fs::write(world.path("pairs.jsonl"), pairs).unwrap();
    world
}

fn resume(observer: &mut Silent) -> Launch<'_> {
    Launch { earlier: Earlier::Resume, ..launch(observer) }
}

fn last(lines: &[Value], name: &str) -> f64 {
    lines.iter().rev().find_map(|line| line.get(name)).unwrap().as_f64().unwrap()
}

/// What one model of a run's latest checkpoint, in the folder of a name, says of held-out data: another run measures it.
fn eval_loss(world: &World, name: &str, model: &str, more: &str) -> f64 {
    let more = format!("{SFT}sft.max_steps = 1\nsft.eval_every = 1\noptimizer.lr = 0.0\n{more}");
    world.sft(name, model, &more);
    last(&world.metrics(name), "eval/loss")
}

#[test]
fn sft_of_an_adapter_learns_and_leaves_the_adapter_and_the_merged_model() {
    let world = world();
    // Its matrices must know digits from each other: an adapter moves no embedding.
    world.digits("next", |prompt, _| (prompt + 1) % 10);
    let base = format!("{}sft.epochs = 20\n", SFT.replace("echo", "next"));
    world.sft("base", "model", &base);
    let more = format!("{SFT}{LORA}sft.epochs = 30\nsft.eval_every = 30\n");
    world.sft("run", "base", &more);
    let learned = last(&world.metrics("run"), "eval/loss");
    assert!(learned < 0.1, "{learned}");
    // The control: an adapter at rate 0 is the model that answers with the next digit.
    world.sft("control", "base", &format!("{more}optimizer.lr = 0.0\n"));
    let control = last(&world.metrics("control"), "eval/loss");
    assert!(control > 2.0, "{control}");
    assert_eq!(world.checksum("control"), world.checksum("base"), "merged, it changes no bit");

    let checkpoint = model_directory(&world.path("run")).parent().unwrap().to_owned();
    assert_eq!(
        files(&checkpoint.join("adapter")),
        ["adapter_config.json", "adapter_model.safetensors"]
    );
    let spec = Model::open(&world.path("model")).unwrap().spec().clone();
    let adapter = read_adapter(&checkpoint.join("adapter"), &spec).unwrap();
    assert_eq!((adapter.lora.rank, adapter.lora.scale()), (4, 2.0));
    // The merged model, and the adapter on the model it came from, are the same to rounding.
    let merged = eval_loss(&world, "merged", "run", "");
    let base = world.path("base");
    let path = format!("lora.adapter = '{}'\n", checkpoint.join("adapter").display());
    let applied = eval_loss(&world, "applied", base.to_str().unwrap(), &path);
    for again in [merged, applied] {
        assert!((again - learned).abs() < 1e-4 * (1.0 + learned), "{again} and {learned}");
    }
}

#[test]
fn sft_of_an_adapter_with_an_average_goes_on_bit_for_bit() {
    let world = world();
    let more = format!("{SFT}{LORA}ema.decay = 0.9\nsft.epochs = 4\n");
    world.sft("whole", "guess", &more);
    let config = world.config::<SftConfig>("halves", "guess", &more);
    stopped(3, |launch| run::sft(&config, launch));
    run::sft(&config, resume(&mut Silent)).unwrap();
    assert_eq!(world.learned("halves"), world.learned("whole"));
    let checkpoint = |run: &str| model_directory(&world.path(run)).parent().unwrap().to_owned();
    let (halves, whole) = (checkpoint("halves"), checkpoint("whole"));
    for file in [
        "policy/model.safetensors",
        "policy_ema/model.safetensors",
        "adapter/adapter_model.safetensors",
        "trainer/policy.weights.safetensors",
        "trainer/policy.exp_avg.safetensors",
        "trainer/policy.ema.safetensors",
    ] {
        let read = |dir: &std::path::Path| fs::read(dir.join(file)).unwrap();
        assert!(read(&halves) == read(&whole), "{file}");
    }
    let read = |name: &str| fs::read(whole.join(name).join("model.safetensors")).unwrap();
    assert!(read("policy") != read("policy_ema"));
    // What a checkpoint keeps of the trainer is the adapter's alone.
    let size = |path: &str| fs::metadata(whole.join(path)).unwrap().len();
    let (kept, model) =
        (size("trainer/policy.weights.safetensors"), size("policy/model.safetensors"));
    assert!(4 * kept < model, "{kept} and {model}");
}

#[test]
fn ppo_of_an_adapter_learns_against_itself_without_the_adapter() {
    let world = world();
    // One of three digits, so that a third of the answers is right.
    world.digits("three", |prompt, row| (prompt + row / 10 % 3) % 10);
    let base = format!("{}sft.epochs = 40\n", SFT.replace("echo", "three"));
    world.sft("base", "guess", &base);
    let more = format!("{LORA}ppo.iterations = 12\nppo.kl_coef = 0.01\noptimizer.lr = 0.01\n");
    world.ppo_of_digits("run", "base", "echo", &more);
    let lines = world.metrics("run");
    assert_eq!(column(&lines, "objective/kl")[0], 0.0, "the adapter changes nothing yet");
    assert!(last(&lines, "objective/kl") > 0.1);
    let end = |run: &str| {
        let scores = column(&world.metrics(run), "objective/scores");
        scores[8..].iter().sum::<f64>() / 4.0
    };
    assert!(end("run") > 0.65, "{}", end("run"));
    world.ppo_of_digits("control", "base", "echo", &more.replace("lr = 0.01", "lr = 0.0"));
    assert!(end("control") < 0.5, "{}", end("control"));
}

#[test]
fn ppo_of_adapters_goes_on_from_its_checkpoint_in_every_mode() {
    let world = world();
    for mode in ["sync", "async"] {
        let more = format!("{LORA}ema.decay = 0.5\nppo.kl_coef = 0.05\nqueue.mode = '{mode}'\n");
        let config = |name: &str, iterations: usize| {
            let text = ppo_of_digits("echo", &format!("ppo.iterations = {iterations}\n{more}"));
            let text = text.replace("iteration = 100\n", "iteration = 30\n");
            world.config::<PpoConfig>(name, "guess", &text)
        };
        let (whole, halves) = (format!("{mode}_whole"), format!("{mode}_halves"));
        run::ppo(&config(&whole, 4), launch(&mut Silent)).unwrap();
        run::ppo(&config(&halves, 2), launch(&mut Silent)).unwrap();
        run::ppo(&config(&halves, 4), resume(&mut Silent)).unwrap();
        assert_eq!(world.checksum(&halves), world.checksum(&whole), "{mode}");
        assert_eq!(world.learned(&halves), world.learned(&whole), "{mode}");
        let checkpoint = model_directory(&world.path(&whole)).parent().unwrap().to_owned();
        for dir in ["adapter", "value_adapter", "policy", "policy_ema", "value"] {
            assert!(checkpoint.join(dir).is_dir(), "{dir}");
        }
    }
}

#[test]
fn the_first_loss_of_dpo_with_an_adapter_is_exactly_ln_2() {
    let world = world();
    for dtype in ["f32", "bf16"] {
        let more = format!(
            "data.train = 'pairs.jsonl'\ndata.append_eos = false\ndpo.batch_size = 10\ndpo.max_steps = 3\n\
             model.dtype = '{dtype}'\n{LORA}"
        );
        let config = world.config::<DpoConfig>(dtype, "guess", &more);
        run::dpo(&config, launch(&mut Silent)).unwrap();
        let lines = world.metrics(dtype);
        assert!((column(&lines, "loss")[0] - LN_2).abs() < 1e-15, "{dtype}");
        let kl = column(&lines, "kl");
        assert!(kl[0] == 0.0 && kl[1] > 0.0, "{kl:?}");
    }
    // An adapter that has learned is no part of its reference.
    let adapter = model_directory(&world.path("f32")).parent().unwrap().join("adapter");
    let more = format!(
        "data.train = 'pairs.jsonl'\ndata.append_eos = false\ndpo.batch_size = 10\ndpo.max_steps = 1\n\
         lora.adapter = '{}'\n",
        adapter.display()
    );
    run::dpo(&world.config::<DpoConfig>("again", "guess", &more), launch(&mut Silent)).unwrap();
    assert!(column(&world.metrics("again"), "kl")[0] > 0.0);
}

#[test]
fn a_reward_model_of_an_adapter_learns_its_head_too() {
    let world = world();
    let more = format!(
        "data.train = 'pairs.jsonl'\nreward_model.batch_size = 10\nreward_model.epochs = 20\n{LORA}"
    );
    let config = world.config::<RewardModelConfig>("rm", "guess", &more);
    let outcome = run::reward_model(&config, launch(&mut Silent)).unwrap();
    assert!(outcome.evaluation.accuracy > 0.8, "{:?}", outcome.evaluation);
    let spec = Model::open(&outcome.reward_model).unwrap().spec().clone();
    let adapter =
        read_adapter(&outcome.reward_model.parent().unwrap().join("adapter"), &spec).unwrap();
    assert!(adapter.tensors.get("score.weight").is_some());
}

#[test]
fn frozen_layers_leave_a_run_as_they_came() {
    let world = world();
    let more = format!("{SFT}sft.max_steps = 2\nmodel.freeze_layers = 1\n");
    let more = format!("{more}model.freeze = ['model.norm.weight', 'model.layers.1.mlp.*']\n");
    world.sft("run", "guess", &more);
    let weights = |name: &str| {
        let model = Model::open(&model_directory(&world.path(name))).unwrap();
        model.checkpoint.weights(Dtype::F32).unwrap()
    };
    let (before, after) = (weights("guess"), weights("run"));
    let reading = before.lease().read(std::time::Duration::from_secs(1)).unwrap();
    let other = after.lease().read(std::time::Duration::from_secs(1)).unwrap();
    for (name, tensor) in before.iter() {
        let frozen = name.contains("layers.0.") || name.contains("layers.1.mlp.");
        let frozen = frozen || ["model.norm.weight", "model.embed_tokens.weight"].contains(&name);
        let same = tensor.memory.bytes(&reading) == after.get(name).unwrap().memory.bytes(&other);
        assert_eq!(same, frozen, "{name}");
    }
}

#[test]
fn what_contradicts_an_adapter_is_refused_by_key() {
    let world = world();
    let refused = |more: &str| {
        let text = format!("output_dir = 'r'\nmodel.path = 'guess'\n{SFT}{more}");
        let read = rollforge::config::parse::<SftConfig>("run.toml", text, world.0.path(), &[]);
        read.unwrap_err().to_string()
    };
    for (more, said) in [
        (
            "lora.rank = 4\nmodel.freeze_layers = 1\n",
            "model.freeze_layers must be unset with [lora]",
        ),
        ("lora.rank = 4\nlora.adapter = 'a'\n", "lora.rank must be 0 where lora.adapter names one"),
        ("lora.rank = 4\nlora.alpha = 0.0\n", "lora.alpha must be above 0, got 0"),
        (
            "lora.rank = 4\nlora.target_modules = []\n",
            "lora.target_modules must be at least one matrix",
        ),
        ("lora.target_modules = ['router']\n", "router"),
        ("ema.decay = 1.0\n", "ema.decay must be from 0 to below 1, got 1"),
    ] {
        let error = refused(more);
        assert!(error.contains(said) && error.starts_with("run.toml:"), "{error}");
    }
}
