//! `rollforge eval`.

use std::fs;

use serde_json::Value;

use crate::{World, answer, refusal, rollforge, text};

const ROWS: &str = "{\"prompt\": \"the lid\", \"completion\": \" is good\", \"answer\": \"x\"}\n\
                    {\"prompt\": \"is\", \"completion\": \" good\", \"answer\": \"y\"}\n";

#[test]
fn perplexity_needs_no_configuration() {
    let world = World::new();
    let (model, rows) = (world.path("model"), world.file("rows.jsonl", ROWS));
    let arguments =
        ["eval", "perplexity", "--model", text(&model), "--data", text(&rows), "--json"];
    let report: Value = serde_json::from_str(&answer(&arguments)).unwrap();
    assert_eq!((&report["measure"], &report["rows"]), (&"perplexity".into(), &2.into()));
    // A vocabulary of 300, and weights that know nothing.
    let perplexity = report["values"]["perplexity"].as_f64().unwrap();
    assert!((150.0..400.0).contains(&perplexity), "{report}");
    let table = answer(&arguments[..6]);
    assert!(table.contains("2 of 2 rows used") && table.contains("perplexity"), "{table}");
    let shown = answer(&[&arguments[..6], &["--dry-run"]].concat());
    assert!(shown.contains("measure = \"perplexity\""), "{shown}");
}

#[test]
fn a_curve_is_printed_written_and_drawn() {
    let world = World::new();
    world.file("rows.jsonl", ROWS);
    let config = world.file(
        "eval.toml",
        "model.path = 'model'\ndata.eval = 'rows.jsonl'\nsampling.max_new_tokens = 3\n\
         reward = { kind = 'exact_match', column = 'answer' }\n[eval]\nmeasure = 'best_of_n'\n",
    );
    let (json, svg) = (world.path("report.json"), world.path("curve.svg"));
    let arguments = ["eval", "-c", text(&config), "--samples", "4"];
    let files = ["--json", text(&json), "--plot", text(&svg)];
    let table = answer(&[&arguments[..], &files].concat());
    assert!(table.contains("pass@n") && table.contains("KL at most"), "{table}");
    let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(report["curve"].as_array().unwrap().len(), 4);
    assert!(fs::read_to_string(&svg).unwrap().starts_with("<svg"));

    let before = world.names();
    let refuse = |more: &[&str]| refusal(&[&arguments[..], more].concat());
    assert!(refuse(&["--set", "eval.measure=accuracy", "--plot", text(&svg)]).contains("--plot"));
    assert!(refuse(&["--plot", text(&world.path("no/x.svg"))]).contains("there is no folder"));
    assert!(refuse(&["--set", "eval.mesure=x"]).contains("did you mean \"measure\"?"));
    let said = refusal(&["eval", "accuracy", "--model", "m", "--data", "d.jsonl"]);
    assert!(said.contains("reward must be set"), "{said}");
    assert_eq!(world.names(), before);
    assert_eq!(rollforge(&["eval", "--samples", "many"]).status.code(), Some(2));
}
