//! Constitutional AI's data: a model that was taught what to say, so that what must come of it is known.

use std::fs;

use rollforge::{
    config::{ConstitutionConfig, DpoConfig, PrinciplesSource, SftConfig, parse},
    run::{
        self, Signal, Silent, Stop,
        constitution::{ConstitutionOutcome, constitution},
    },
};
use serde_json::{Value, json};

use crate::world::{World, launch};

const PRINCIPLES: &str = r#"[{"critique": "Flaw?", "revision": "Again.", "comparison": "Which?"}]"#;

/// A model that says "a" or "b" to a digit, finds "a" bad whatever it said, says "b" when asked again, and prefers "b".
fn world() -> World {
    let mut rows = Vec::new();
    for digit in 0..10 {
        for said in ["a", "b"] {
            let asked = format!("\n\nHuman: {digit}\n\nAssistant:");
            rows.push((asked.clone(), format!(" {said}")));
            let flaw = format!("{asked} {said}\n\nHuman: Flaw?\n\nAssistant:");
            rows.push((flaw.clone(), " bad".to_owned()));
            rows.push((format!("{flaw} bad\n\nHuman: Again.\n\nAssistant:"), " b".to_owned()));
        }
        for (a, b, better) in [("a", "b", "B"), ("b", "a", "A")] {
            let question = format!(
                "\n\nHuman: Consider the following conversation:\n\nHuman: {digit}\n\nWhich?\n\n(A) {a}\n(B) {b}\n\n\
                 The answer is:\n\nAssistant: ("
            );
            rows.push((question, better.to_owned()));
        }
    }
    let corpus: Vec<&str> = rows.iter().flat_map(|(p, c)| [p.as_str(), c.as_str()]).collect();
    let world = World::new(&corpus.join(""));
    let row = |(prompt, completion): &(String, String)| {
        format!("{}\n", json!({ "prompt": prompt, "completion": completion }))
    };
    fs::write(world.path("taught.jsonl"), rows.iter().map(row).collect::<String>()).unwrap();
    world.sft(
        "talks",
        "model",
        "data.train = 'taught.jsonl'\nsft.epochs = 40\nsft.batch_size = 20\noptimizer.lr = 0.005\nthreads = 2\n",
    );
    let prompts: String = (0..10).map(|i| format!("{{\"prompt\": \"{i}\"}}\n")).collect();
    fs::write(world.path("prompts.jsonl"), prompts).unwrap();
    fs::write(world.path("principles.json"), PRINCIPLES).unwrap();
    world
}

fn config(world: &World, more: &str) -> ConstitutionConfig {
    let text = format!(
        "output_dir = 'cai'\nthreads = 2\nmodel.path = 'talks'\ndata.prompts = 'prompts.jsonl'\n\
         constitution.principles = 'principles.json'\n{more}"
    );
    let new_tokens = ["sampling.max_new_tokens=8".to_owned()];
    let overrides = if more.contains("max_new_tokens") { &[] } else { &new_tokens[..] };
    parse("cai.toml", text, world.0.path(), overrides).unwrap_or_else(|error| panic!("{error}"))
}

fn make(world: &World, more: &str) -> Result<ConstitutionOutcome, String> {
    let made = constitution(&config(world, more), &mut Silent, (&Stop::default(), false));
    made.map_err(|error| format!("{error:#}"))
}

fn rows(world: &World, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(world.path("cai").join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn answers_are_revised_and_compared_as_the_model_was_taught_to() {
    let world = world();
    let outcome = make(&world, "").unwrap();
    let (revisions, pairs) = (rows(&world, "revisions.jsonl"), rows(&world, "pairs.jsonl"));
    assert_eq!(outcome.files[0].1, 10);
    assert_eq!(revisions.len(), 10);
    for (i, row) in revisions.iter().enumerate() {
        assert_eq!(row["prompt"], format!("\n\nHuman: {i}\n\nAssistant:"));
        assert_eq!((&row["completion"], &row["critiques"]), (&json!(" b"), &json!(["bad"])));
    }
    assert!((2..9).contains(&pairs.len()), "the first answer was to be either: {pairs:?}");
    assert_eq!(outcome.without_pair["revised to the same"], 10 - pairs.len());
    assert!(pairs.iter().all(|row| row["chosen"] == " b" && row["rejected"] == " a"), "{pairs:?}");

    let said = make(&world, "").unwrap_err();
    assert!(said.ends_with("revisions.jsonl: exists already"), "{said}");
    fs::remove_dir_all(world.path("cai")).unwrap();
    let again = make(&world, "constitution.revisions = 2\n").unwrap();
    assert_eq!(rows(&world, "revisions.jsonl")[0]["critiques"], json!(["bad", "bad"]));
    assert_eq!(again.without_pair, outcome.without_pair, "the first answers are the same");

    fs::remove_dir_all(world.path("cai")).unwrap();
    let compared = make(&world, "constitution.stage = 'compare'\n").unwrap();
    let pairs = rows(&world, "pairs.jsonl");
    assert!(!world.path("cai/revisions.jsonl").exists());
    assert_eq!(compared.without_pair["answered twice the same"], 10 - pairs.len());
    assert!(!pairs.is_empty());
    for row in &pairs {
        assert_eq!((&row["chosen"], &row["rejected"]), (&json!(" b"), &json!(" a")));
        assert!(row["log_odds"].as_f64().unwrap() > 0.5, "{row}");
    }

    // What was written is what the next stages read.
    let dpo = "data.train = 'cai/pairs.jsonl'\ndpo.max_steps = 1\n";
    run::dpo(&world.config::<DpoConfig>("dpo", "talks", dpo), launch(&mut Silent)).unwrap();
    fs::remove_dir_all(world.path("cai")).unwrap();
    make(&world, "").unwrap();
    let sft = "data.train = 'cai/revisions.jsonl'\nsft.max_steps = 1\n";
    run::sft(&world.config::<SftConfig>("sft", "talks", sft), launch(&mut Silent)).unwrap();
}

#[test]
fn what_cannot_be_talked_about_is_refused_and_nothing_is_written() {
    let world = World::new("Human Assistant 0123456789");
    fs::rename(world.path("model"), world.path("talks")).unwrap();
    fs::write(world.path("prompts.jsonl"), "{\"prompt\": \"1\"}\n").unwrap();
    fs::write(world.path("principles.json"), PRINCIPLES).unwrap();
    fs::write(world.path("bare.json"), "[{\"critique\": \"Flaw?\"}]").unwrap();
    fs::write(world.path("turns.jsonl"), "{\"messages\": [{\"role\": \"user\"}]}\n").unwrap();
    for (more, wanted) in [
        ("constitution.format = 'chat'\n", "constitution.format must be \"plain\""),
        ("constitution.examples = 'turns.jsonl'\n", "turns.jsonl:1: column \"messages\" must be"),
        ("sampling.max_new_tokens = 256\n", "must be below the model's context of 256, got 256"),
        (
            "engine.max_batch = 1\nsampling.max_new_tokens = 255\n",
            "no prompt gave a pair: 1 without an answer",
        ),
    ] {
        let said = make(&world, more).unwrap_err();
        assert!(said.contains(wanted), "{said}");
        assert!(!world.path("cai").exists());
    }
    let text = "output_dir = 'cai'\nmodel.path = 'talks'\ndata.prompts = 'prompts.jsonl'\n\
                [[constitution.principles]]\ncritic = 'Flaw?'\n";
    let said = parse::<ConstitutionConfig>("cai.toml", text.into(), world.0.path(), &[]);
    let said = said.unwrap_err().to_string();
    assert!(
        said.starts_with("cai.toml:4:1: constitution.principles: must be a JSON file, or"),
        "{said}"
    );
    let mut bare = config(&world, "");
    bare.constitution.principles = PrinciplesSource::File(world.path("bare.json"));
    let stop = Stop::default();
    let said = constitution(&bare, &mut Silent, (&stop, false)).unwrap_err().to_string();
    assert!(said.ends_with("bare.json: principle 1 must have \"revision\""), "{said}");
    stop.request(Signal::Interrupt);
    let said = constitution(&config(&world, ""), &mut Silent, (&stop, false)).unwrap_err();
    assert!(said.to_string().contains("nothing was written"), "{said}");
}
