//! Several responses to each prompt, rated.

use std::{fmt::Write, fs};

use rollforge::{
    config::SteerLm2Config,
    run::{self, Silent},
};

use crate::world::{World, column, launch};

/// Writes prompts, each a digit, with all ten digits as responses, which a policy without attributes and the one that sampled
/// them find equally probable. The reward model prefers the digit itself; or, where it is to say nothing, none.
pub(crate) fn rows(prompts: usize, prefers: bool) -> String {
    let mut rows = String::new();
    for prompt in 0..prompts {
        let response = |digit: usize| {
            let rated = if prefers && digit == prompt % 10 { -0.1 } else { -4.0 };
            serde_json::json!({
                "completion": digit.to_string(),
                "log_attributes": rated,
                "log(P(y|x))": -2.3,
                "log_proposal": -2.3,
            })
        };
        let responses: Vec<_> = (0..10).map(response).collect();
        let row =
            serde_json::json!({ "prompt": (prompt % 10).to_string(), "responses": responses });
        writeln!(rows, "{row}").unwrap();
    }
    rows
}

fn config(world: &World, name: &str, more: &str) -> SteerLm2Config {
    let text = format!(
        "data.train = 'rated.jsonl'\ndata.eval = 'rated.jsonl'\ndata.append_eos = false\n\
         steerlm2.batch_size = 10\n{more}"
    );
    world.config(name, "guess", &text)
}

#[test]
fn a_policy_comes_to_choose_as_the_reward_model_would_and_stays_where_it_has_no_choice() {
    let world = World::of_digits();
    let learn = |name: &str, prefers: bool| {
        fs::write(world.path("rated.jsonl"), rows(10, prefers)).unwrap();
        let config = config(&world, name, "steerlm2.epochs = 60\noptimizer.lr = 0.005\n");
        let outcome = run::steerlm2(&config, launch(&mut Silent)).unwrap();
        (column(&world.metrics(name), "distance")[0], outcome.evaluation.unwrap())
    };
    let (before, after) = learn("steerlm2", true);
    assert!(before > 1.0 && after.distance < 0.3, "{before}, {after:?}");
    let (_, control) = learn("control", false);
    assert!(control.distance < 0.05 && control.nll > 2.0, "{control:?}");
}

#[test]
fn rows_that_cannot_be_used_are_named() {
    let world = World::of_digits();
    let refusal = |row: &str| {
        fs::write(world.path("rated.jsonl"), format!("{row}\n")).unwrap();
        let refused = config(&world, "refused", "");
        let said = format!("{:#}", run::steerlm2(&refused, launch(&mut Silent)).unwrap_err());
        assert!(!world.path("refused").exists());
        said
    };
    let table = [
        (r#"{"prompt": "1", "completion": "1"}"#, "\"responses\""),
        (r#"{"prompt": "1", "responses": "1"}"#, "must be a list of objects"),
        (r#"{"prompt": "1", "responses": [{"completion": "1"}]}"#, "at least 2 responses"),
        (
            r#"{"prompt": "1", "responses": [{"completion": "1"}, {"completion": "2"}]}"#,
            "neither \"log_attributes\" nor \"log(P(a|x,y))\"",
        ),
        (
            r#"{"prompt": "1", "responses": [{"value": "1", "log_attributes": "high"}, {"value": "2"}]}"#,
            "must be a finite number",
        ),
    ];
    for (row, expected) in table {
        let said = refusal(row);
        assert!(said.contains(expected), "{said}");
    }
}
