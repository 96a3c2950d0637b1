//! SteerLM from rated completions to a policy that is told what to answer: regression, annotation, conversion, fine-tuning.

use std::{collections::BTreeMap, fs, path::Path};

use rollforge::{
    config::{ComputeDtype, RegressionConfig, RewardModelConfig},
    data::{self, Attributes, Form, Reading},
    engine::{Engine, EngineConfig, Request, SamplingParams},
    rollout::{Prompt, PromptId},
    run::{self, AnnotateOptions, RowPass, Scale, Silent, model_directory},
    trainer::config::Device,
};
use serde_json::Value;

use crate::world::{World, launch};

/// Writes completions that are the more verbose the larger the digit.
fn write_ratings(world: &World) {
    let row = |(prompt, completion): (usize, usize)| {
        format!(
            "{{\"prompt\": \"{prompt}\", \"completion\": \"{completion}\", \"verbosity\": {completion}}}\n"
        )
    };
    let all = (0..10).flat_map(|prompt| (0..10).map(move |completion| (prompt, completion)));
    fs::write(world.path("ratings.jsonl"), all.map(row).collect::<String>()).unwrap();
}

fn options(world: &World, model: &str, input: &str) -> AnnotateOptions {
    AnnotateOptions {
        rows: RowPass {
            model: world.path(model),
            input: world.path(input),
            output: world.path("annotated.jsonl"),
            replace: false,
            max_tokens: usize::MAX,
            truncate: false,
            append_eos: false,
            micro_batch_tokens: 64,
            device: Device::Cpu,
            dtype: ComputeDtype::F32,
            threads: 1,
        },
        rerate: false,
        scale: Scale { range: (0.0, 9.0), ..Scale::default() },
    }
}

fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Trains a model that rates verbosity.
fn rated(world: &World, more: &str) {
    write_ratings(world);
    let text = format!("data.train = 'ratings.jsonl'\ndata.append_eos = false\n{more}");
    let config = world.config::<RegressionConfig>("rated", "guess", &text);
    run::regression(&config, launch(&mut Silent)).unwrap();
}

/// Asks for ten answers to each digit, told to be so verbose as the digit three above, and returns the share of those that
/// are.
fn share_as_told(world: &World, policy: &str) -> f64 {
    let config = EngineConfig { threads: 1, ..EngineConfig::default() };
    let model = model_directory(&world.path(policy));
    let engine = Engine::builder().config(config).model_dir(model).build().unwrap();
    let sampling = SamplingParams { max_new_tokens: 1, n: 10, seed: 9, ..Default::default() };
    let sampling = std::sync::Arc::new(sampling);
    let told = |digit: u64| (digit + 3) % 10;
    let request = |digit: u64| {
        let attributes = Attributes::new([("verbosity".to_owned(), told(digit) as f64)]).unwrap();
        let tokens = engine.encode(&attributes.before(&digit.to_string())).unwrap().tokens;
        Request::new(Prompt { id: PromptId(digit), tokens }, sampling.clone())
    };
    let rollouts = engine.blocking().generate_all((0..10).map(request).collect()).unwrap();
    let obeys = |rollout: &&rollforge::rollout::Rollout| {
        engine.text(rollout).unwrap() == told(rollout.prompt.id.0).to_string()
    };
    rollouts.iter().filter(obeys).count() as f64 / rollouts.len() as f64
}

#[test]
fn a_policy_answers_as_it_is_told_to() {
    let world = World::of_digits();
    rated(
        &world,
        "regression.epochs = 80\nregression.batch_size = 50\noptimizer.lr = 0.01\nschedule.kind = 'linear'\n",
    );
    // `any` has each digit after each prompt, once.
    let annotated = run::annotate(&options(&world, "rated", "any.jsonl"), &mut Silent);
    assert_eq!(annotated.unwrap().report.used, 100);
    let (before, after) = (rows(&world.path("any.jsonl")), rows(&world.path("annotated.jsonl")));
    let mut right = 0;
    for (before, after) in before.iter().zip(&after) {
        let mut columns = after.as_object().unwrap().clone();
        let rating = columns.shift_remove("verbosity").unwrap();
        assert_eq!(Some(&columns), before.as_object(), "the row is the same otherwise");
        let digit: u64 = after["completion"].as_str().unwrap().parse().unwrap();
        right += usize::from(rating.as_u64() == Some(digit));
    }
    assert!(right > 80, "{right}");

    let steered = world.path("steered.jsonl");
    let reading = (Form::SteerLm, &Reading::default());
    data::convert(&world.path("annotated.jsonl"), &steered, reading, false).unwrap();
    let first = &rows(&steered)[0];
    let prompt = first["prompt"].as_str().unwrap();
    assert!(prompt.starts_with("verbosity:") && prompt.ends_with("\n0"), "{first}");
    let more = "data.train = 'steered.jsonl'\ndata.append_eos = false\nsft.epochs = 150\n\
                sft.batch_size = 50\noptimizer.lr = 0.005\n";
    world.sft("policy", "guess", more);
    let (told, untold) = (share_as_told(&world, "policy"), share_as_told(&world, "guess"));
    assert!(told > 0.5 && untold < 0.2, "{told} {untold}");
}

#[test]
fn what_cannot_be_annotated_is_refused_and_leaves_nothing() {
    let world = World::of_digits();
    rated(&world, "regression.max_steps = 1\n");
    let refused = |options: &AnnotateOptions| {
        let said = format!("{:#}", run::annotate(options, &mut Silent).unwrap_err());
        assert_eq!(said.lines().count(), 1, "{said}");
        let entries = fs::read_dir(world.0.path()).unwrap();
        let left = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(!left.into_iter().any(|name| name.contains("annotated")), "{said}");
        said
    };
    let good = options(&world, "rated", "any.jsonl");
    let over = |rows| AnnotateOptions { rows, ..good.clone() };
    let said = refused(&over(RowPass { model: world.path("guess"), ..good.rows.clone() }));
    assert!(said.ends_with("must have a score head, this is a language model"), "{said}");
    let said = refused(&over(RowPass { input: world.path("ratings.jsonl"), ..good.rows.clone() }));
    assert!(said.contains("ratings.jsonl:1: column \"verbosity\" must not be there yet"), "{said}");
    let said = refused(&over(RowPass { max_tokens: 1, ..good.rows.clone() }));
    assert!(said.contains("0 of 100 rows used; 100 not: longer than 1 tokens"), "{said}");
    let scale = Scale { step: -1.0, ..Scale::default() };
    assert!(refused(&AnnotateOptions { scale, ..good.clone() }).contains("from 0 up, got -1"));
    let said = refused(&over(RowPass { output: world.path("x.parquet"), ..good.rows.clone() }));
    assert!(said.contains("the name must end in .jsonl"), "{said}");
    fs::write(
        world.path("pairs.jsonl"),
        "{\"prompt\": \"1\", \"chosen\": \"1\", \"rejected\": \"2\"}\n",
    )
    .unwrap();
    let more = "data.train = 'pairs.jsonl'\nreward_model.max_steps = 1\n";
    let pairs = world.config::<RewardModelConfig>("pairs", "guess", more);
    run::reward_model(&pairs, launch(&mut Silent)).unwrap();
    let said = refused(&over(RowPass { model: world.path("pairs"), ..good.rows.clone() }));
    assert!(said.contains("its label must have a name"), "{said}");

    // A row that cannot be used is counted, and the others are rated.
    let text = fs::read_to_string(world.path("any.jsonl")).unwrap();
    fs::write(world.path("some.jsonl"), format!("{text}{{\"prompt\": \"1\"}}\n")).unwrap();
    let some = over(RowPass { input: world.path("some.jsonl"), ..good.rows.clone() });
    let annotated = run::annotate(&some, &mut Silent).unwrap();
    assert_eq!((annotated.report.used, annotated.report.rows), (100, 101));
    let means: BTreeMap<_, _> = annotated.means.into_iter().collect();
    assert!((0.0..=9.0).contains(&means["verbosity"]), "{means:?}");
    let said = format!("{:#}", run::annotate(&some, &mut Silent).unwrap_err());
    assert!(said.ends_with("annotated.jsonl: exists already"), "{said}");
}
