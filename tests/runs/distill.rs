//! Knowledge distillation.

use std::fs;

use rollforge::{
    config::{self, ComputeDtype, DistillConfig},
    model::{NewModelSpec, new_model},
    run::{self, DistillOutcome, Earlier, Launch, RowPass, Silent, Stop, TeachOptions},
    trainer::config::Device,
};
use serde_json::{Value, json};

use crate::{
    resume::stopped,
    world::{World, column, launch},
};

/// A model that answers any digit, a teacher that answers with the same one, and texts that say nothing of it.
fn world() -> World {
    let world = World::of_digits();
    world.digits("same", |prompt, _| prompt);
    let more = "data.train = 'same.jsonl'\ndata.append_eos = false\nsft.epochs = 30\n\
                sft.batch_size = 50\noptimizer.lr = 0.005\n";
    world.sft("teacher", "guess", more);
    world
}

fn config(world: &World, name: &str, more: &str) -> DistillConfig {
    let asks = !more.contains("model.teacher") && !more.contains("data.train");
    let teacher = if asks { "model.teacher = 'teacher'\n" } else { "" };
    let data = match more.contains("data.train") {
        true => "",
        false => "data.train = 'any.jsonl'\ndata.eval = 'any.jsonl'\n",
    };
    let text = format!(
        "{teacher}{data}data.append_eos = false\ndistill.batch_size = 50\n{}{more}",
        if more.contains("top_k") { "" } else { "distill.top_k = 12\n" }
    );
    world.config(name, "guess", &text)
}

fn distilled(world: &World, name: &str, more: &str) -> DistillOutcome {
    run::distill(&config(world, name, more), launch(&mut Silent)).unwrap()
}

/// Writes the teacher's answers to the texts.
fn teach(world: &World, model: &str, input: &str, top_k: usize) -> Result<String, String> {
    let options = TeachOptions {
        rows: RowPass {
            model: world.path(model),
            input: world.path(input),
            output: world.path("cache.jsonl"),
            replace: true,
            max_tokens: usize::MAX,
            truncate: false,
            append_eos: false,
            micro_batch_tokens: 100,
            device: Device::Cpu,
            dtype: ComputeDtype::F32,
            threads: 1,
        },
        top_k,
    };
    let taught = run::teach(&options, &mut Silent).map_err(|error| format!("{error:#}"))?;
    Ok(taught.to_string())
}

fn refusal(world: &World, more: &str) -> String {
    let error = run::distill(&config(world, "refused", more), launch(&mut Silent)).unwrap_err();
    assert!(!world.path("refused").exists());
    let said = format!("{error:#}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_student_learns_from_its_teacher_what_the_texts_do_not_say_and_nothing_from_itself() {
    let world = world();
    for kl in ["forward", "backward", "js"] {
        let more = format!("distill.kl = '{kl}'\ndistill.epochs = 40\noptimizer.lr = 0.005\n");
        let stats = distilled(&world, kl, &more).evaluation.unwrap();
        assert!(stats.top_agreement > 0.95, "{kl}: {stats:?}");
        let lines = world.metrics(kl);
        let losses = column(&lines, "kd_loss");
        assert!(losses[losses.len() - 1] < 0.3 * losses[0], "{kl}: {losses:?}");
        assert!(column(&lines, "teacher_mass").iter().all(|mass| *mass > 0.5));
    }
    let more = "model.teacher = 'guess'\ndistill.epochs = 4\noptimizer.lr = 0.005\n";
    distilled(&world, "itself", more);
    let losses = column(&world.metrics("itself"), "kd_loss");
    assert!(losses[0].abs() < 1e-6, "{losses:?}");
    let plan = fs::read_to_string(world.path("itself/plan.json")).unwrap();
    assert!(plan.contains("load reference"), "{plan}");
}

#[test]
fn a_run_that_was_asked_to_stop_asks_its_teacher_again_and_goes_on() {
    let world = world();
    let more = "distill.epochs = 4\ndistill.renormalize = false\ndistill.temperature = 1.5\n\
                distill.sft_weight = 0.2\nschedule.kind = 'linear'\ndistill.eval_every = 3\n";
    distilled(&world, "whole", more);
    let halves = config(&world, "halves", more);
    stopped(3, |launch| run::distill(&halves, launch));
    let mut observer = Silent;
    let resumed =
        Launch { earlier: Earlier::Resume, observer: &mut observer, stop: Stop::default() };
    run::distill(&halves, resumed).unwrap();
    assert_eq!(world.checksum("halves"), world.checksum("whole"));
    assert_eq!(world.learned("halves"), world.learned("whole"));
}

#[test]
fn teachers_that_cannot_be_used_are_named() {
    let world = world();
    let said = refusal(&world, "distill.top_k = 5000\n");
    assert!(said.contains("distill.top_k must be at most the vocabulary of"), "{said}");
    assert!(said.contains("guess") && said.ends_with("got 5000"), "{said}");
    let said = refusal(&world, "model.teacher = 'nowhere'\n");
    assert!(said.contains("nowhere"), "{said}");
    let spec = NewModelSpec {
        vocab_size: 300,
        hidden_size: 32,
        intermediate_size: 64,
        num_layers: 1,
        num_heads: 2,
        max_positions: 256,
        ..NewModelSpec::default()
    };
    let text = ["teach the teacher to teach".to_owned()];
    new_model(&spec, text.into_iter(), &world.path("stranger")).unwrap();
    let said = refusal(&world, "model.teacher = 'stranger'\n");
    assert!(said.contains("guess") && said.contains("stranger"), "{said}");
    assert!(said.ends_with("must have the same tokenizer, theirs differ"), "{said}");
}

#[test]
fn answers_that_rows_carry_teach_what_the_teacher_itself_would() {
    let world = world();
    assert_eq!(teach(&world, "teacher", "any.jsonl", 40).unwrap(), "100 of 100 rows used");
    let cached = "data.train = 'cache.jsonl'\ndata.eval = 'cache.jsonl'\n";
    for (name, more) in [
        ("plain", ""),
        ("tail", "distill.renormalize = false\ndistill.kl = 'js'\ndistill.sft_weight = 0.5\n"),
        ("warm", "distill.temperature = 2.0\ndistill.kl = 'backward'\n"),
    ] {
        let more = format!("{more}distill.epochs = 2\n");
        distilled(&world, &format!("{name}_asked"), &more);
        distilled(&world, &format!("{name}_cached"), &format!("{cached}{more}"));
        let [asked, read] = ["asked", "cached"].map(|how| world.metrics(&format!("{name}_{how}")));
        for metric in ["loss", "kd_loss", "top_agreement", "grad_norm", "num_tokens"] {
            let pairs = column(&asked, metric).into_iter().zip(column(&read, metric));
            for (asked, read) in pairs {
                let near = (asked - read).abs() < 2e-5 * read.abs().max(1.0);
                assert!(near, "{name}, {metric}: {asked} and {read}");
            }
        }
        let told = read.iter().all(|line| line.get("teacher_mass").is_some());
        assert_eq!(told, name != "warm", "at another temperature it is not known");
    }
    let plan = fs::read_to_string(world.path("plain_cached/plan.json")).unwrap();
    assert!(!plan.contains("load reference"), "{plan}");
}

#[test]
fn a_cache_is_written_whole_or_not_at_all() {
    let world = world();
    let said = teach(&world, "teacher", "any.jsonl", 281).unwrap_err();
    assert!(said.contains("--top-k must be at most the vocabulary of"), "{said}");
    assert_eq!(
        teach(&world, "teacher", "any.jsonl", 0).unwrap_err(),
        "top_k must be at least 1, got 0"
    );
    fs::write(world.path("bad.jsonl"), "{\"x\": 1}\n").unwrap();
    let said = teach(&world, "teacher", "bad.jsonl", 3).unwrap_err();
    assert!(said.contains("bad.jsonl"), "{said}");
    assert!(!world.path("cache.jsonl").exists());
    teach(&world, "teacher", "any.jsonl", 3).unwrap();
    let text = fs::read_to_string(world.path("cache.jsonl")).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let length = |name: &str| first[name].as_array().unwrap().len();
    assert!(
        ["labels", "loss_mask", "topk_logits", "topk_token_ids", "log_sum_exp_logits"]
            .iter()
            .all(|name| length(name) == length("tokens"))
    );
    assert_eq!(first["topk_logits"][0].as_array().unwrap().len(), 3);
}

/// Two tokens with two answers each, the second of which is to be learned.
fn good() -> Value {
    json!({
        "tokens": [50, 51], "labels": [51, 52], "loss_mask": [0, 1.0],
        "topk_logits": [[2.0, 1.0], [1.5, 0.5]], "topk_token_ids": [[52, 53], [60, 52]],
        "log_sum_exp_logits": [2.5, 2.0], "index": 7,
    })
}

#[test]
fn answers_that_cannot_be_used_are_named() {
    let world = world();
    let write = |row: &Value| fs::write(world.path("rows.jsonl"), format!("{row}\n")).unwrap();
    let more = "data.train = 'rows.jsonl'\ndistill.top_k = 2\n";
    // Padding after the last label that counts may be anything.
    let mut padded = good();
    for (column, value) in [
        ("tokens", json!(0)),
        ("labels", json!(9)),
        ("loss_mask", json!(false)),
        ("topk_logits", json!([0.0, 0.0])),
        ("topk_token_ids", json!([0, 1])),
        ("log_sum_exp_logits", json!(1)),
    ] {
        padded[column].as_array_mut().unwrap().push(value);
    }
    write(&padded);
    let found = run::distill(&config(&world, "padded", more), launch(&mut Silent));
    found.unwrap();
    assert_eq!(column(&world.metrics("padded"), "num_tokens"), [1.0]);

    let broken = |column: &str, value: Value, rule: &str| {
        let mut row = good();
        row[column] = value;
        write(&row);
        let said = refusal(&world, more);
        assert!(said.contains("rows.jsonl:1") && said.contains(rule), "{said}");
    };
    broken("labels", json!([51]), "columns differ in how many tokens they have");
    broken("labels", json!([50, 52]), "a label is not the next token");
    broken("loss_mask", json!([0, 0]), "no token to train on");
    broken("loss_mask", json!([0, 2]), "column \"loss_mask\" must hold 0 and 1");
    broken("tokens", json!([50, -1]), "column \"tokens\" must hold token ids");
    broken("tokens", json!("50"), "column \"tokens\" must be a list");
    broken("topk_logits", json!([[2.0, 1.0], [1.5]]), "a token has not as many logits as ids");
    broken(
        "topk_logits",
        json!([[2.0], [1.5, null]]),
        "column \"topk_logits\" must hold finite numbers",
    );
    broken("topk_token_ids", json!([[1, 2], [60, 60]]), "the same id twice");
    broken("log_sum_exp_logits", json!([2.5, 0.0]), "add up to more than");
    broken(
        "topk_token_ids",
        json!([[1, 2], [60, 280]]),
        "topk_token_ids must be below the vocabulary of 259, got 280",
    );
    broken("labels", json!([51, 300]), "tokens must be below the vocabulary of 259, got 300");
    let mut empty = good();
    (empty["topk_logits"], empty["topk_token_ids"]) = (json!([[], []]), json!([[], []]));
    write(&empty);
    let said = refusal(&world, more);
    assert!(said.contains("tokens must have one number of answers, at least 1"), "{said}");

    write(&good());
    let said = refusal(&world, &more.replace("top_k = 2", "top_k = 3"));
    assert!(said.contains("rows.jsonl:1: distill.top_k must be at most the 2 answers"), "{said}");
    let said = refusal(&world, "data.train = 'any.jsonl'\n");
    assert!(said.contains("any.jsonl") && said.contains("\"tokens\""), "{said}");
    let text = "output_dir = 'o'\nmodel.path = 'guess'\ndata.train = 'rows.jsonl'\n\
                distill.temperature = 2.0\ndistill.renormalize = false\n";
    let error = config::parse::<DistillConfig>("x.toml", text.into(), world.0.path(), &[]);
    let said = error.unwrap_err().to_string();
    assert!(said.contains("distill.renormalize must be true where rows carry"), "{said}");
}
