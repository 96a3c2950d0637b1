//! Whole configurations of runs.

use std::path::Path;

use super::*;
use crate::trainer::config::{Apply, Device};

const SFT: &str = r#"
output_dir = "runs/sft"
[model]
path = "base"
[data]
train = "train.jsonl"
"#;

const PPO: &str = r#"
output_dir = "runs/ppo"
device = "cuda:1"
[model]
path = "sft"
[data]
train = ["a.jsonl", "b.parquet"]
[reward]
kind = "model"
path = "rm"
[ppo]
prompts_per_iteration = 6
samples_per_prompt = 2
mini_batches = 5
"#;

fn read<T: Config>(text: &str, overrides: &[&str]) -> Result<T, Error> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    parse("run.toml", text.into(), Path::new("/base"), &overrides)
}

fn refusal<T: Config + std::fmt::Debug>(text: &str, overrides: &[&str]) -> String {
    let message = read::<T>(text, overrides).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message.rsplit_once("\": ").map(|(_, message)| message.into()).unwrap_or(message)
}

#[test]
fn a_short_file_is_a_whole_configuration() {
    let config: SftConfig = read(SFT, &[]).unwrap();
    assert_eq!(config.data.train, [Path::new("/base/train.jsonl")]);
    assert_eq!(config.model.path, Path::new("/base/base"));
    let config: PpoConfig = read(PPO, &[]).unwrap();
    assert_eq!(config.device, Device::Cuda(1));
    assert_eq!(config.data.train.len(), 2);
    assert_eq!(config.reward.models().collect::<Vec<_>>(), [Path::new("/base/rm")]);
}

#[test]
fn what_is_printed_reads_back_with_every_default_spelled_out() {
    let config: PpoConfig = read(PPO, &[]).unwrap();
    let text = to_toml(&config);
    for line in
        ["epochs = 4\n", "gae_lambda = 0.95\n", "reference = \"/base/sft\"\n", "top_p = 1.0\n"]
    {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert_eq!(read::<PpoConfig>(&text, &[]).unwrap(), config);
    let config: SftConfig = read(SFT, &[]).unwrap();
    assert_eq!(read::<SftConfig>(&to_toml(&config), &[]).unwrap(), config);
    let config: RewardModelConfig = read(SFT, &[]).unwrap();
    assert_eq!(read::<RewardModelConfig>(&to_toml(&config), &[]).unwrap(), config);
}

#[test]
fn the_batch_arithmetic_is_spelled_out() {
    let config: PpoConfig = read(PPO, &[]).unwrap();
    let text = to_toml(&config);
    let top: Vec<&str> = text.lines().take(3).collect();
    assert_eq!(
        top,
        [
            "# rollout batch: 6 prompts x 2 samples = 12 rollouts",
            "# optimizer steps: 4 epochs x 5 mini-batches of 2 to 3 rollouts = 20 an iteration, 2000 in 100 iterations",
            "# micro-batch: up to 8192 tokens, at least 7 of the longest rollouts (1024 + 128 = 1152 tokens)",
        ]
    );
}

#[test]
fn arithmetic_beyond_all_numbers_saturates() {
    let huge = ["ppo.epochs=9223372036854775807", "sampling.max_new_tokens=9223372036854775807"];
    let config: PpoConfig = read(PPO, &huge).unwrap();
    assert!(to_toml(&config).contains("= 18446744073709551615 an iteration"));
}

#[test]
fn options_of_every_section_are_checked_and_named() {
    assert_eq!(
        refusal::<SftConfig>(SFT, &["sft.batch_size=0"]),
        "sft.batch_size must be at least 1, got 0"
    );
    assert_eq!(
        refusal::<RewardModelConfig>(SFT, &["reward_model.center_coef=-1.0"]),
        "reward_model.center_coef must be a number from 0 up, got -1"
    );
    assert_eq!(
        refusal::<DpoConfig>(SFT, &["dpo.beta=0.0"]),
        "dpo.beta must be a number above 0, got 0"
    );
    assert!(
        refusal::<DpoConfig>(SFT, &["dpo.loss=rpo_square"]).contains("did you mean \"rpo_sq\"?")
    );
    assert_eq!(
        refusal::<PpoConfig>(PPO, &["optimizer.lr=nan"]),
        "optimizer.lr must be a number from 0 up, got NaN"
    );
    assert_eq!(
        refusal::<PpoConfig>(PPO, &["sampling.top_p=0.0"]),
        "sampling.top_p must be above 0 and at most 1, got 0"
    );
    assert_eq!(
        refusal::<PpoConfig>(PPO, &["device=gpu"]),
        "device: device must be `cpu`, `cuda` or `cuda:N`, got `gpu`"
    );
    assert_eq!(
        refusal::<SftConfig>(SFT, &["data.train=[]"]),
        "data.train must be at least one file, got none"
    );
    assert_eq!(
        refusal::<SftConfig>(SFT, &["data.train=3"]),
        "data.train: invalid type: integer `3`, expected a path or a list of paths"
    );
}

#[test]
fn preference_optimisation_spells_out_its_reference_where_the_loss_has_one() {
    let config: DpoConfig = read(SFT, &[]).unwrap();
    assert_eq!(config.model.reference.as_ref(), Some(&config.model.path));
    assert_eq!(
        (config.other_reference(), read::<DpoConfig>(&to_toml(&config), &[]).unwrap()),
        (None, config.clone())
    );
    for loss in ["orpo", "simpo"] {
        let set = format!("dpo.loss={loss}");
        let config: DpoConfig = read(SFT, &[&set]).unwrap();
        assert_eq!(config.model.reference, None);
        assert_eq!(read::<DpoConfig>(&to_toml(&config), &[]).unwrap(), config);
        assert_eq!(
            refusal::<DpoConfig>(SFT, &[&set, "model.reference=base"]),
            "model.reference must be unset where dpo.loss has no reference, got base"
        );
    }
}

#[test]
fn contradictions_between_sections_are_refused() {
    assert_eq!(
        refusal::<SftConfig>(SFT, &["output_dir=base"]),
        "output_dir must be another folder than model.path, got base"
    );
    assert_eq!(
        refusal::<SftConfig>(SFT, &["sft.eval_every=10"]),
        "sft.eval_every must be 0 where data.eval names no file, got 10"
    );
    assert_eq!(
        refusal::<PpoConfig>(PPO, &["reward={kind = 'exact_match', column = 'answer'}"]),
        "run.toml:11:2: ppo.value_init must be \"policy\" where reward.kind is \"exact_match\", got \"reward_model\""
    );
    assert_eq!(
        refusal::<PpoConfig>(PPO, &["ppo.old_logprobs=rollout", "sampling.top_k=5"]),
        "ppo.old_logprobs must be \"recompute\" where sampling has top_k, top_p, min_p, repetition_penalty or \
         min_new_tokens, got \"rollout\""
    );
    assert!(
        refusal::<PpoConfig>(PPO, &["ppo.old_logprobs=rollout", "sampling.min_new_tokens=2"])
            .starts_with("ppo.old_logprobs must be \"recompute\"")
    );
    let two_temperatures =
        ["ppo.old_logprobs=rollout", "ppo.logprob_temperature=one", "sampling.temperature=0.7"];
    assert_eq!(
        refusal::<PpoConfig>(PPO, &two_temperatures),
        "ppo.logprob_temperature must be \"sampling\" where ppo.old_logprobs is \"rollout\", got \"one\""
    );
    assert_eq!(
        refusal::<PpoConfig>(PPO, &["ppo.missing_eos_penalty=1.0", "sampling.ignore_eos=true"]),
        "ppo.missing_eos_penalty must be 0 where sampling.ignore_eos is true, got 1"
    );
    assert_eq!(
        refusal::<PpoConfig>(PPO, &["sampling.min_new_tokens=200"]),
        "sampling.min_new_tokens must be at most max_new_tokens (128), got 200"
    );
    assert_eq!(
        refusal::<PpoConfig>(PPO, &["ppo.kl_in=loss"]),
        "run.toml:11:2: ppo.kl_estimator must be abs, k2 or k3 where kl_in is `loss`, got k1"
    );
}

#[test]
fn an_override_replaces_a_table_within_a_section() {
    let file = format!("{SFT}columns = {{ text = \"body\" }}\n");
    let config: SftConfig = read(&file, &["data.columns={prompt = 'question'}"]).unwrap();
    assert_eq!(
        (config.data.columns.text, config.data.columns.prompt),
        (None, Some("question".into()))
    );
    let config: SftConfig = read(&file, &["data.columns.prompt=question"]).unwrap();
    assert_eq!(config.data.columns.text, Some("body".into()));
}

#[test]
fn the_engine_takes_its_threads_from_the_run_unless_told() {
    let threads = |overrides: &[&str]| read::<PpoConfig>(PPO, overrides).unwrap().engine.threads;
    assert_eq!(threads(&["threads=3"]), 3);
    assert_eq!(threads(&["threads=3", "engine.threads=2"]), 2);
    assert_eq!(
        refusal::<PpoConfig>(PPO, &["engine.block_size=0"]),
        "engine.block_size must be at least 1, got 0"
    );
}

#[test]
fn every_example_is_a_valid_configuration() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let folders = [examples.clone(), examples.join("demo")];
    let files = folders.iter().flat_map(|folder| folder.read_dir().unwrap());
    for path in files.map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = match ["[ppo]", "[reward_model]", "[sft]", "[dpo]"]
            .map(|section| text.contains(section))
        {
            [true, ..] => load::<PpoConfig>(&path, &[]).map(drop),
            [_, true, ..] => load::<RewardModelConfig>(&path, &[]).map(drop),
            [_, _, true, _] => load::<SftConfig>(&path, &[]).map(drop),
            [.., true] => load::<DpoConfig>(&path, &[]).map(drop),
            _ => continue,
        };
        loaded.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_section_of_another_task_is_refused_by_name() {
    assert!(
        refusal::<SftConfig>(SFT, &["ppo.clip_range=0.1"])
            .starts_with("unknown key \"ppo\", expected one of")
    );
}

#[test]
fn the_tensorrt_llm_sections_are_checked_and_spelled_out() {
    let text = format!(
        "{PPO}[engine]\nbackend = \"tensorrt-llm\"\n[engine.tensorrt_llm]\nengine_dir = \"engine\"\n\
         refit = \"in_place\"\n[engine.canary]\nthreshold = 0.01\n"
    );
    let config: PpoConfig = read(&text, &[]).unwrap();
    assert_eq!(config.engine.tensorrt_llm.engine_dir.as_deref(), Some(Path::new("/base/engine")));
    assert_eq!(read::<PpoConfig>(&to_toml(&config), &[]).unwrap(), config);
    for (key, said) in [
        ("engine.tensorrt_llm.engin_dir=a", "did you mean \"engine_dir\"?"),
        ("engine.tensorrt_llm.refit=in-place", "did you mean \"in_place\"?"),
        ("engine.canary.prompt=3", "did you mean \"prompts\"?"),
        ("engine.canary.threshold=0.0", "engine.canary.threshold must be above 0"),
        (
            "engine.tensorrt_llm.kv_free_fraction=1.5",
            "tensorrt_llm.kv_free_fraction must be from 0 to 1",
        ),
        ("engine.refit_in_flight=recompute", "engine.refit_in_flight must be \"drain\""),
        ("engine.backend=tensorrt", "did you mean \"tensorrt-llm\"?"),
    ] {
        let refused = refusal::<PpoConfig>(&text, &[key]);
        assert!(refused.contains(said), "{key}: {refused}");
    }
    let refused = refusal::<PpoConfig>(PPO, &["engine.backend=tensorrt-llm"]);
    assert!(refused.contains("engine.tensorrt_llm.engine_dir must be the directory"), "{refused}");
}

#[test]
fn weights_act_in_every_iteration_where_samples_are_stale() {
    let applied = |overrides: &[&str]| {
        let config: PpoConfig = read(PPO, overrides).unwrap();
        let text = to_toml(&config);
        assert_eq!(read::<PpoConfig>(&text, &[]).unwrap(), config, "{text}");
        assert!(text.contains("[ppo.correction]\napply = \"") && text.contains("[mismatch]\n"));
        config.ppo.correction.apply.unwrap()
    };
    assert_eq!(applied(&[]), Apply::OnMismatch);
    for mode in ["one_step_off", "async"] {
        let mode = format!("queue.mode={mode}");
        assert_eq!(applied(&[&mode, "threads=2"]), Apply::Always);
        let unweighted = "ppo.correction.apply=on_mismatch";
        assert_eq!(applied(&[&mode, "threads=2", unweighted]), Apply::OnMismatch);
        // The ratio itself starts from what sampled.
        assert_eq!(applied(&[&mode, "threads=2", "ppo.old_logprobs=rollout"]), Apply::OnMismatch);
    }
}

#[test]
fn corrections_and_gates_are_checked_and_named() {
    let table: [(&[&str], &str); 7] = [
        (&["ppo.correction.high=0.9"], "ppo.correction.high must be a number from 1 up, got 0.9"),
        (
            &["ppo.correction.level=geometric"],
            "ppo.correction.rule must be mask where correction.level is `geometric`, got truncate",
        ),
        (
            &["ppo.old_logprobs=rollout", "ppo.correction.apply=always"],
            "ppo.correction.apply must be on_mismatch where old_logprobs is `rollout`, got always",
        ),
        (&["mismatch.kl=-1.0"], "mismatch.kl must be a number from 0 up, got -1"),
        (
            &["mismatch.mult_prob_error=0.5"],
            "mismatch.mult_prob_error must be a number from 1 up, or 0 for off, got 0.5",
        ),
        (&["mismatch.ess=2.0"], "mismatch.ess must be from 0 to 1, got 2"),
        (
            &["mismatch.action=stop", "ppo.old_logprobs=rollout"],
            "mismatch.action must be \"warn\" where ppo.old_logprobs is \"rollout\", for nothing can be compared then, \
             got \"stop\"",
        ),
    ];
    for (overrides, said) in table {
        assert_eq!(refusal::<PpoConfig>(PPO, overrides), said);
    }
    let hot = ["ppo.logprob_temperature=one", "sampling.temperature=0.7"];
    for reason in [&hot[..], &["sampling.top_k=5"]] {
        assert!(read::<PpoConfig>(PPO, reason).unwrap().not_comparable().is_some());
        let stop = [reason, &["mismatch.action=stop"]].concat();
        assert!(refusal::<PpoConfig>(PPO, &stop).starts_with("mismatch.action must be \"warn\""));
    }
    assert_eq!(read::<PpoConfig>(PPO, &["mismatch.action=stop"]).unwrap().not_comparable(), None);
}

#[test]
fn what_is_exact_is_looked_at_and_what_is_not_only_where_asked_for() {
    let of = |overrides: &[&str]| read::<PpoConfig>(PPO, overrides).unwrap().invariants;
    let looked_at = |overrides: &[&str]| (of(overrides).ratio, of(overrides).kl);
    let (stop, off) = (Some(OnBreak::Stop), Some(OnBreak::Off));
    assert_eq!(looked_at(&[]), (stop, stop));
    assert_eq!(looked_at(&["model.reference=other"]), (stop, off));
    assert_eq!(looked_at(&["ppo.old_logprobs=rollout"]), (off, off));
    let asked = ["ppo.old_logprobs=rollout", "invariants.ratio=warn"];
    assert_eq!(looked_at(&asked), (Some(OnBreak::Warn), off));
    assert_eq!(of(&["invariants.reward_min=-1"]).reward_range(), (-1.0, f64::INFINITY));
    let broken = |overrides: &[&str]| refusal::<PpoConfig>(PPO, overrides);
    let said = broken(&["invariants.reward_min=1", "invariants.reward_max=0"]);
    assert_eq!(said, "invariants.reward_max must be at least invariants.reward_min (1), got 0");
    let said = refusal::<SftConfig>(SFT, &["invariants.max_skipped_steps=0"]);
    assert_eq!(said, "invariants.max_skipped_steps must be at least 1, got 0");
    assert!(broken(&["invariants.ratio_tolerance=nan"]).contains("at least 0 and finite"));
}

#[test]
fn the_trainer_waits_longer_for_rollouts_than_the_engine_for_a_step() {
    let config: PpoConfig = read(PPO, &["engine.deadline_seconds=20"]).unwrap();
    assert_eq!(config.deadlines.rollouts_seconds, Some(50.0));
    for key in ["rollouts_seconds", "reward_seconds", "trainer_seconds"] {
        let said = refusal::<PpoConfig>(PPO, &[&format!("deadlines.{key}=0")]);
        assert_eq!(said, format!("deadlines.{key} must be above 0, at most 1e9, got 0"));
    }
}

#[cfg(feature = "fault-injection")]
#[test]
fn faults_are_no_part_of_what_is_printed_and_unknown_ones_are_refused() {
    let config: PpoConfig = read(PPO, &["faults=['reward:hang@3']"]).unwrap();
    assert_eq!(config.faults[0].to_string(), "reward:hang@3");
    assert!(!to_toml(&config).contains("faults"));
    for bad in ["reward:sulk@3", "reward:hang@x", "reward:hang"] {
        let said = refusal::<PpoConfig>(PPO, &[&format!("faults=['{bad}']")]);
        assert!(said.contains("a fault must be one of checkpoint:error, "), "{said}");
    }
}
