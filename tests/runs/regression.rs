//! Reward models that rate several attributes: how they are trained, what they are used for, what is refused.

use std::{collections::BTreeMap, fmt::Write, fs};

use rollforge::{
    config::{ComputeDtype, PpoConfig, RegressionConfig, RewardModelConfig},
    run::{
        self, Earlier, Launch, RegressionOutcome, RewardServer, RewardServerOptions, Silent, Stop,
    },
    trainer::config::Device,
};
use serde_json::{Value, json};

use crate::{
    resume::stopped,
    world::{World, column, launch, ppo_of_digits},
};

/// Writes completions that are helpful (4) where they repeat their prompt and not (0) where they do not, and the more verbose
/// the larger the digit (0 to 4.5), which only every other row says. Or, where ratings are to say nothing, those of other
/// rows.
fn write_ratings(world: &World, name: &str, say_nothing: bool) {
    let mut rows = String::new();
    for (prompt, offset) in (0..10).flat_map(|prompt| (0..8).map(move |o| (prompt, o))) {
        // As many good ones as bad ones.
        let completion = if offset % 2 == 0 { prompt } else { (prompt + offset) % 10 };
        let (helpful, verbose) = match say_nothing {
            // Of neither prompt nor completion.
            true => (offset / 2 % 2 == 0, (offset / 2 * 3) as f64 / 2.0),
            false => (completion == prompt, completion as f64 / 2.0),
        };
        let verbosity = if (prompt + offset) % 3 == 0 { Value::Null } else { json!(verbose) };
        let row = json!({
            "prompt": prompt.to_string(),
            "completion": completion.to_string(),
            "verbosity": verbosity,
            "helpfulness": if helpful { 4 } else { 0 },
        });
        writeln!(rows, "{row}").unwrap();
    }
    fs::write(world.path(name), rows).unwrap();
}

fn world() -> World {
    let world = World::of_digits();
    write_ratings(&world, "ratings.jsonl", false);
    write_ratings(&world, "nothing.jsonl", true);
    world
}

const LEARN: &str = "regression.epochs = 100\nregression.batch_size = 40\noptimizer.lr = 0.01\n";

/// `from model: ` before the options names another model to begin with.
fn config(world: &World, name: &str, more: &str) -> RegressionConfig {
    let (from, more) = match more.strip_prefix("from ").and_then(|more| more.split_once(": ")) {
        Some((from, more)) => (from, more),
        None => ("guess", more),
    };
    let data = if more.contains("data.train") { "" } else { "data.train = 'ratings.jsonl'\n" };
    let text = format!("{data}data.eval = 'ratings.jsonl'\ndata.append_eos = false\n{more}");
    world.config(name, from, &text)
}

fn learn(world: &World, name: &str, more: &str) -> RegressionOutcome {
    run::regression(&config(world, name, more), launch(&mut Silent)).unwrap()
}

fn refusal(world: &World, more: &str) -> String {
    let error = run::regression(&config(world, "refused", more), launch(&mut Silent)).unwrap_err();
    assert!(!world.path("refused").exists());
    let said = format!("{error:#}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_model_learns_to_rate_and_ratings_that_say_nothing_teach_nothing() {
    let world = world();
    let learned = learn(&world, "rated", LEARN);
    let stats = learned.evaluation.unwrap();
    assert_eq!(*stats.attributes, ["helpfulness", "verbosity"].map(String::from));
    let fits: Vec<_> = stats.fits.iter().map(|fit| fit.unwrap()).collect();
    assert!(fits.iter().all(|fit| fit.correlation.unwrap() > 0.9), "{fits:?}");
    assert!(stats.loss < 0.5 && (fits[0].ratings, stats.masked) == (80, 27.0 / 160.0), "{stats:?}");
    let lines = world.metrics("rated");
    let last = lines.last().unwrap();
    assert_eq!(last["eval/mse/helpfulness"].as_f64(), Some(fits[0].mse));
    assert!(column(&lines, "loss")[0] > 2.0, "{}", lines[0]);

    let text = fs::read_to_string(learned.reward_model.join("config.json")).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(written["id2label"], json!({"0": "helpfulness", "1": "verbosity"}));
    assert_eq!(written["label2id"], json!({"helpfulness": 0, "verbosity": 1}));
    assert_eq!(
        (&written["num_labels"], &written["problem_type"]),
        (&json!(2), &json!("regression"))
    );
    let resolved = fs::read_to_string(world.path("rated/config.resolved.toml")).unwrap();
    assert!(resolved.contains("attributes = [\"helpfulness\", \"verbosity\"]"), "{resolved}");

    let more = format!("{LEARN}data.train = 'nothing.jsonl'\n");
    let control = learn(&world, "control", &more).evaluation.unwrap();
    let found = control.fits[0].unwrap().correlation.unwrap_or_default();
    assert!(found.abs() < 0.5 && control.loss > 2.0, "{control:?}");
}

#[test]
fn it_goes_on_where_it_stopped_from_its_own_labels_and_with_an_adapter() {
    let world = world();
    let more = "regression.epochs = 2\nregression.batch_size = 16\nschedule.kind = 'linear'\n";
    learn(&world, "whole", more);
    let halves = config(&world, "halves", more);
    stopped(3, |launch| run::regression(&halves, launch));
    let mut observer = Silent;
    let resumed =
        Launch { earlier: Earlier::Resume, observer: &mut observer, stop: Stop::default() };
    run::regression(&halves, resumed).unwrap();
    assert_eq!(world.checksum("halves"), world.checksum("whole"));
    assert_eq!(world.learned("halves"), world.learned("whole"));

    // The head that is there is kept: the loss goes on where it was.
    let more = "from whole: regression.max_steps = 1\n";
    let before = world.metrics("whole").last().unwrap()["eval/loss"].as_f64().unwrap();
    let after = learn(&world, "further", &format!("{more}regression.batch_size = 80\n"));
    assert!((column(&world.metrics("further"), "loss")[0] - before).abs() < 1e-4);
    assert_ne!(after.evaluation.unwrap().loss, before);

    let more = "lora.rank = 2\nregression.max_steps = 1\n";
    learn(&world, "adapter", more);
    let adapter = world.path("adapter/checkpoints/step_1/adapter/adapter_config.json");
    assert!(fs::read_to_string(adapter).unwrap().contains("SEQ_CLS"));
    learn(
        &world,
        "again",
        "lora.adapter = 'adapter/checkpoints/step_1/adapter'\nregression.max_steps = 1\n",
    );
}

#[test]
fn what_cannot_be_learned_from_is_named() {
    let world = world();
    let bad = |rows: &str, more: &str| {
        fs::write(world.path("bad.jsonl"), rows).unwrap();
        refusal(&world, &format!("data.train = 'bad.jsonl'\n{more}"))
    };
    let row = "{\"prompt\": \"1\", \"completion\": \"1\", \"helpfulness\": \"good\"}\n";
    let said = bad(row, "");
    let reason = "column \"helpfulness\" must be a finite number";
    assert!(said.contains("bad.jsonl:1") && said.contains(reason), "{said}");
    let said = bad("{\"prompt\": \"1\", \"completion\": \"1\"}\n", "");
    assert!(said.contains("bad.jsonl: no row rates any of quality, toxicity"), "{said}");
    let named = "regression.attributes = ['helpfulness']\n";
    let said = bad("{\"prompt\": \"1\", \"completion\": \"1\"}\n", named);
    assert!(said.contains("has no rating") && said.contains("bad.jsonl:1"), "{said}");
    let said = refusal(&world, "regression.attributes = ['helpfulness', 'fluency']\n");
    assert!(
        said.ends_with("ratings.jsonl: no row rates \"fluency\" (regression.attributes)"),
        "{said}"
    );

    learn(&world, "rated", "regression.max_steps = 1\n");
    let said = refusal(&world, "from rated: regression.attributes = ['verbosity']\n");
    let rule = "its labels must be regression.attributes (verbosity), got helpfulness, verbosity";
    assert!(said.ends_with(rule), "{said}");
    let pairs = "{\"prompt\": \"1\", \"chosen\": \"1\", \"rejected\": \"2\"}\n";
    fs::write(world.path("pairs.jsonl"), pairs).unwrap();
    let pairs = world.config::<RewardModelConfig>("pairs", "rated", "data.train = 'pairs.jsonl'\n");
    let said = run::reward_model(&pairs, launch(&mut Silent)).unwrap_err().to_string();
    assert!(
        said.contains("must have one label, this model has 2: helpfulness, verbosity"),
        "{said}"
    );
}

/// PPO whose rewards are those of an attribute model.
fn ppo(world: &World, name: &str, weights: &str) -> anyhow::Result<()> {
    let more =
        format!("ppo.iterations = 2\nreward = {{ kind = 'model', path = 'rated'{weights} }}\n");
    let position = "reward = { kind = 'position_match', column = 'answer' }\n";
    let text = ppo_of_digits("any", &more).replacen(position, "", 1);
    let text = text.replacen("ppo.value_init = 'policy'", "ppo.value_init = 'reward_model'", 1);
    run::ppo(&world.config::<PpoConfig>(name, "guess", &text), launch(&mut Silent)).map(drop)
}

#[test]
fn attributes_are_a_reward_by_their_weights() {
    let world = world();
    learn(&world, "rated", LEARN);
    ppo(&world, "rewarded", ", weights = { helpfulness = 0.65, verbosity = -0.4 }").unwrap();
    let lines = world.metrics("rewarded");
    let mean = |name: &str| column(&lines, &format!("reward/model/{name}mean"));
    let (all, helpful, verbose) = (mean(""), mean("helpfulness/"), mean("verbosity/"));
    for ((all, helpful), verbose) in all.iter().zip(&helpful).zip(&verbose) {
        assert!((all - (0.65 * helpful - 0.4 * verbose)).abs() < 1e-5, "{}", lines[0]);
    }
    assert!((0.1..1.5).contains(&helpful[0]) && (1.0..3.5).contains(&verbose[0]), "{}", lines[0]);
    // One that is not named adds nothing, and the critic begins at the same sum.
    ppo(&world, "helpful", ", weights = { helpfulness = 1 }").unwrap();
    let lines = world.metrics("helpful");
    assert_eq!(lines[0]["reward/model/mean"], lines[0]["reward/model/helpfulness/mean"]);

    let refused = |weights: &str| {
        let said = format!("{:#}", ppo(&world, "refused", weights).unwrap_err());
        assert!(!world.path("refused").exists() && said.lines().count() == 1, "{said}");
        said
    };
    let said = refused("");
    assert!(
        said.contains("must have one label, this model has 2: helpfulness, verbosity"),
        "{said}"
    );
    let said = refused(", weights = { fluency = 1.0 }");
    let rule = "weights must name labels of the model (helpfulness, verbosity), got \"fluency\"";
    assert!(said.ends_with(rule), "{said}");
    let said = refused(", standardize = true");
    assert!(said.contains("must have one label"), "{said}");
}

#[test]
fn a_server_weighs_attributes_as_a_run_does() {
    let world = world();
    learn(&world, "rated", LEARN);
    let serve = |weights: &[(&str, f64)]| {
        let weights = weights.iter().map(|&(name, weight)| (name.to_owned(), weight));
        RewardServer::start(RewardServerOptions {
            model: world.path("rated"),
            standardize: false,
            weights: weights.collect::<BTreeMap<_, _>>(),
            listen: "127.0.0.1:0".parse().unwrap(),
            token: None,
            device: Device::Cpu,
            dtype: ComputeDtype::F32,
            threads: 1,
        })
    };
    let said = serve(&[]).unwrap_err().to_string();
    assert!(said.contains("must have one label, this model has 2"), "{said}");
    let score = |weights: &[(&str, f64)], completion: &str| {
        let server = serve(weights).unwrap();
        let asked = json!({"completions": [{"prompt": "3", "completion": completion}]});
        let mut answer = ureq::post(&server.url()).send(asked.to_string()).unwrap();
        let answer: Value =
            serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        answer["scores"][0].as_f64().unwrap()
    };
    let helpful = [("helpfulness", 1.0)];
    assert!(score(&helpful, "3") > 2.5 && score(&helpful, "8") < 1.5);
    let both = score(&[("helpfulness", 0.5), ("verbosity", -1.0)], "3");
    let parts = 0.5 * score(&helpful, "3") - score(&[("verbosity", 1.0)], "3");
    assert!((both - parts).abs() < 1e-5, "{both} and {parts}");
}
