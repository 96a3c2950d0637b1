//! Several sources of rewards in whole runs.

use std::fs;

use rollforge::{
    config::{ComputeDtype, PpoConfig, RewardModelConfig},
    run::{self, RewardServer, RewardServerOptions, Silent},
    trainer::config::Device,
};
use serde_json::Value;

use crate::world::{World, column, launch};

fn world() -> World {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    world
}

/// Runs GRPO on two samples of each digit under a `[reward]` section.
fn grpo(world: &World, name: &str, reward: &str) -> Vec<Value> {
    let config = config(world, name, reward);
    run::ppo(&config, launch(&mut Silent)).unwrap();
    world.metrics(name)
}

fn config(world: &World, name: &str, reward: &str) -> PpoConfig {
    let more = format!(
        "data.train = 'echo.jsonl'\nsampling.max_new_tokens = 2\nppo.preset = 'grpo'\n\
         ppo.prompts_per_iteration = 50\nppo.samples_per_prompt = 2\nppo.iterations = 2\n{reward}"
    );
    world.config(name, "guess", &more)
}

/// Whether the first digit is the right one, and whether it is a low one.
const FIRST: &str =
    "[[reward.sources]]\nname = 'first'\nkind = 'regex'\npattern = '^(\\d)'\ncolumn = 'answer'\n";
const LOW: &str = "[[reward.sources]]\nname = 'low'\nkind = 'regex'\npattern = '^[0-4]'\n";

#[test]
fn the_reward_is_the_weighted_sum_and_each_source_has_its_metrics() {
    let world = world();
    let length = "[[reward.sources]]\nkind = 'length'\ntarget_tokens = 4\nweight = 3\n";
    let lines =
        grpo(&world, "several", &format!("{FIRST}weight = 2\n{LOW}weight = -0.5\n{length}"));
    let of = |name: &str| column(&lines, name);
    let (first, low) = (of("reward/first/mean"), of("reward/low/mean"));
    for ((total, first), low) in of("objective/scores").into_iter().zip(first).zip(low) {
        assert!(first > 0.0 && low > 0.0, "{first} {low}");
        // Each completion has the two tokens that it may have.
        let expected = 2.0 * first - 0.5 * low - 1.5;
        assert!((total - expected).abs() < 1e-6, "{total} is not {expected}");
    }
    assert!(of("reward/low/std").iter().all(|std| *std > 0.0));
    assert!(of("timing_s/reward/length").iter().all(|seconds| *seconds >= 0.0));
}

#[test]
fn a_source_with_weight_0_is_measured_and_changes_no_bit() {
    let world = world();
    let alone = FIRST.replace("[[reward.sources]]", "[reward]");
    grpo(&world, "alone", &alone);
    let both = format!("{LOW}weight = 0\n{FIRST}weight = 1\n");
    let lines = grpo(&world, "both", &both);
    assert_eq!(world.checksum("alone"), world.checksum("both"));
    assert!(column(&lines, "reward/low/mean").iter().all(|mean| *mean > 0.0));
    let mut learned = world.learned("both");
    for line in &mut learned {
        line.as_object_mut().unwrap().retain(|name, _| !name.starts_with("reward/low/"));
    }
    assert_eq!(learned, world.learned("alone"));
    grpo(&world, "paid", &both.replace("weight = 0", "weight = 1"));
    assert_ne!(world.checksum("paid"), world.checksum("both"));
}

#[test]
fn what_is_scored_while_others_are_generated_is_scored_as_after_it() {
    let world = world();
    let reward = format!("{FIRST}{LOW}");
    // One sequence after the other, or all at once: prompts are finished at other times.
    let slow = format!("engine.max_batch = 1\n{reward}");
    grpo(&world, "slow", &slow);
    grpo(&world, "fast", &reward);
    assert_eq!(world.learned("slow"), world.learned("fast"));
    assert_eq!(world.checksum("slow"), world.checksum("fast"));
}

#[test]
fn a_program_that_judges_is_as_good_as_a_rule_and_ends_with_the_run() {
    let world = world();
    // Compares the first character of the completion with that of the answer.
    let judge = r#"echo $$ > own
        while IFS= read -r line; do
            id=${line#*:}; text=${line#*completion\":\"}; answer=${line#*answer\":\"}; score=0
            if [ "${text%"${text#?}"}" = "${answer%"${answer#?}"}" ]; then score=1; fi
            echo "{\"id\":${id%%,*},\"score\":$score}"
        done
    "#;
    fs::write(world.path("judge.sh"), judge).unwrap();
    let program = "[reward]\nkind = 'program'\nname = 'first'\ncommand = ['sh', 'judge.sh']\n";
    grpo(&world, "program", program);
    grpo(&world, "rule", &FIRST.replace("[[reward.sources]]", "[reward]"));
    assert_eq!(world.learned("program"), world.learned("rule"));
    let own = fs::read_to_string(world.path("own")).unwrap();
    assert!(!world.path(&format!("/proc/{}", own.trim())).exists(), "it is still there");
}

#[test]
fn a_prompt_that_lacks_a_column_is_refused_before_the_run() {
    let world = world();
    let refused = |reward: &str| {
        let config = config(&world, "refused", reward);
        let said = format!("{:#}", run::ppo(&config, launch(&mut Silent)).unwrap_err());
        assert!(said.lines().count() == 1 && !world.path("refused").exists(), "{said}");
        said
    };
    let said = refused("[reward]\nkind = 'numeric'\ncolumn = 'number'\n");
    let expected = "echo.jsonl:1: lacks the column \"number\" that the reward needs";
    assert!(said.ends_with(expected), "{said}");
    let schema = "[[reward.sources]]\nkind = 'json_schema'\nschema_file = 'none.json'\n";
    let said = refused(&format!("{FIRST}{schema}"));
    let expected = "reward source \"json_schema\": reward.schema_file: cannot read ";
    assert!(said.starts_with(expected), "{said}");
}

/// Serves the reward model of a directory on a free port.
fn serve(world: &World, model: &str, token: Option<&str>) -> RewardServer {
    RewardServer::start(RewardServerOptions {
        weights: Default::default(),
        model: world.path(model),
        standardize: false,
        listen: "127.0.0.1:0".parse().unwrap(),
        token: token.map(str::to_owned),
        device: Device::Cpu,
        dtype: ComputeDtype::F32,
        threads: 1,
    })
    .unwrap()
}

/// Trains a reward model that likes one digit better than another.
fn train_judge(world: &World) {
    let pair = "{\"prompt\": \"1\", \"chosen\": \"1\", \"rejected\": \"2\"}\n";
    fs::write(world.path("pairs.jsonl"), pair.repeat(8)).unwrap();
    let more = "data.train = 'pairs.jsonl'\nreward_model.max_steps = 2\n";
    let config = world.config::<RewardModelConfig>("judge", "model", more);
    run::reward_model(&config, launch(&mut Silent)).unwrap();
}

#[test]
fn a_reward_model_that_is_served_says_what_it_says_in_the_process() {
    let world = world();
    train_judge(&world);
    let near = "[[reward.sources]]\nkind = 'model'\npath = 'judge'\n";
    let server = serve(&world, "judge", None);
    let far = format!(
        "[[reward.sources]]\nkind = 'http'\nurl = '{}'\nbatch = 7\nweight = 0\n",
        server.url()
    );
    let lines = grpo(&world, "both", &format!("{near}{far}"));
    for statistic in ["mean", "std"] {
        let of = |name: &str| column(&lines, &format!("reward/{name}/{statistic}"));
        for (near, far) in of("model").into_iter().zip(of("http")) {
            assert!(near != 0.0 && (near - far).abs() < 1e-5, "{near} {far}");
        }
    }
    // What one completion earns does not depend on those it is sent with, so runs repeat.
    let alone = |batch: usize| {
        format!("reward = {{ kind = 'http', url = '{}', batch = {batch} }}\n", server.url())
    };
    grpo(&world, "by_one", &alone(1));
    grpo(&world, "by_many", &alone(64));
    assert_eq!(world.checksum("by_one"), world.checksum("by_many"));
}

#[test]
fn a_server_refuses_strangers_and_tokens_of_another_tokenizer() {
    let world = world();
    train_judge(&world);
    let ends = |name: &str, token| {
        let server = serve(&world, "judge", token);
        let more = format!(
            "data.train = 'echo.jsonl'\nppo.preset = 'grpo'\nppo.samples_per_prompt = 2\nppo.iterations = 1\n\
             ppo.prompts_per_iteration = 2\nsampling.max_new_tokens = 1\n\
             reward = {{ kind = 'http', url = '{}' }}\n",
            server.url()
        );
        let config = world.config::<PpoConfig>(name, "guess", &more);
        let said = format!("{:#}", run::ppo(&config, launch(&mut Silent)).unwrap_err());
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let said = ends("stranger", Some("secret"));
    assert!(
        said.starts_with("the reward source failed in iteration 1: http://127.0.0.1:"),
        "{said}"
    );
    assert!(
        said.ends_with("it answered 401 Unauthorized: the token is missing or another"),
        "{said}"
    );
    // Two digits change places: another tokenizer of the same size.
    let path = run::model_directory(&world.path("judge")).join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let (one, two) = (vocabulary["1"].clone(), vocabulary["2"].clone());
    (vocabulary["1"], vocabulary["2"]) = (two, one);
    fs::write(&path, tokenizer.to_string()).unwrap();
    let said = ends("other", None);
    assert!(said.contains("422") && said.contains("tokens are of another tokenizer"), "{said}");
}
