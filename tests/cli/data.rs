//! `rollforge data`.

use std::fs;

use serde_json::Value;

use crate::{World, answer, refusal, rollforge, text};

const CHAT: &str = "{\"system\": \"\", \"mask\": \"User\", \"conversations\": [{\"from\": \"User\", \"value\": \"the\"}, \
                    {\"from\": \"Assistant\", \"value\": \"lid\"}]}\n\
                    {\"system\": \"\", \"mask\": \"User\", \"conversations\": []}\n";

#[test]
fn data_are_converted_and_what_was_left_out_is_said() {
    let world = World::new();
    let (input, output) = (world.file("chat.jsonl", CHAT), world.path("out.jsonl"));
    let arguments = ["data", "convert", text(&input), text(&output), "--to", "sft"];
    let done = rollforge(&arguments);
    assert!(done.status.success());
    let printed = String::from_utf8(done.stdout).unwrap();
    assert!(printed.ends_with("out.jsonl: 1 rows of 2 (nemo-chat) as 1 (sft)\n"), "{printed}");
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("1 not: column \"conversations\" is empty"), "{said}");
    let row: Value = serde_json::from_str(&fs::read_to_string(&output).unwrap()).unwrap();
    assert_eq!(row["messages"][1]["content"], "lid");
    assert!(refusal(&arguments).ends_with("out.jsonl: exists already"));
    answer(&[&arguments[..], &["--force"]].concat());
}

#[test]
fn a_check_prints_a_table_or_json() {
    let world = World::new();
    let rows = "{\"prompt\": \"the lid\", \"completion\": \" is good\"}\n";
    let train = world.file("train.jsonl", &(rows.repeat(3) + "{\"prompt\": \"x\"}\n"));
    let eval = world.file("eval.jsonl", rows);
    let model = world.path("model");
    let files = ["data", "check", text(&train), text(&eval), "--model", text(&model)];
    let table = answer(&files);
    for wanted in [
        "prompt-completion, read by sft as it is",
        "4, of which 3 usable",
        "1: has no column \"completion\" (",
        "2 examples, 2 prompts",
        "tokens trained on",
        "eval.jsonl shares 1 examples and 1 prompts with",
    ] {
        assert!(table.contains(wanted), "{wanted}\n{table}");
    }
    let found: Value = serde_json::from_str(&answer(&[&files[..], &["--json"]].concat())).unwrap();
    let file = &found["files"][0];
    assert_eq!(
        (&file["rows"], &file["usable"], &file["duplicates"]),
        (&4.into(), &3.into(), &2.into())
    );
    assert_eq!(file["task"], "sft");
    // The model's context.
    assert_eq!(file["max_tokens"], 32);
    let most = file["lengths"][0]["max"].as_u64().unwrap();
    assert_eq!(file["lengths"][0]["p50"].as_u64(), Some(most));
}

#[test]
fn a_check_fails_where_nothing_is_left_to_use() {
    let world = World::new();
    let check = |content: &str, more: &[&str]| {
        let file = world.file("rows.jsonl", content);
        let output = rollforge(&[&["data", "check", text(&file), "--json"], more].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = check("{\"text\": \"a\"}\n", &["--for", "dpo"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("rows.jsonl: no row is left to use"), "{said}");
    let (status, said) = check("{\"text\": \"a\"}\nbroken\n", &[]);
    assert_eq!(status, Some(1));
    assert!(
        said.contains("a run would refuse the file: ") && said.contains("rows.jsonl:2"),
        "{said}"
    );
    assert_eq!(check("{\"text\": \"a\"}\n", &[]).0, Some(0));
    assert_eq!(check("{\"q\": \"a\"}\n", &["--column", "prompt=q"]).0, Some(0));
    assert_eq!(check("{\"q\": \"a\"}\n", &["--column", "prompt"]).0, Some(2));
    assert_eq!(check("{\"text\": \"a\"}\n", &["--from", "alpaca"]).0, Some(2));
    let nowhere = world.path("nowhere.jsonl");
    assert!(refusal(&["data", "check", text(&nowhere)]).contains("nowhere.jsonl"));
}

#[test]
fn what_a_prompt_is_told_stands_where_the_training_data_have_it() {
    let world = World::new();
    let rows = "{\"prompt\": \"lid\", \"response\": \" is good\", \"humor\": 2, \"toxicity\": 0}\n";
    let (input, output) = (world.file("rated.jsonl", rows), world.path("out.jsonl"));
    answer(&["data", "convert", text(&input), text(&output), "--to", "steerlm"]);
    let row: Value = serde_json::from_str(&fs::read_to_string(&output).unwrap()).unwrap();
    let prompt = row["prompt"].as_str().unwrap();
    assert_eq!((prompt, &row["humor"]), ("toxicity:0,humor:2\nlid", &Value::Null));

    let model = world.path("model");
    let ids = |more: &[&str]| {
        let line = answer(&[&["generate", text(&model), "-m", "1", "--json"], more].concat());
        let line: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
        line["prompt_token_ids"].clone()
    };
    let told = ["--attributes", "humor=2,toxicity=0"];
    let trained = ids(&["-p", prompt]);
    assert_eq!(ids(&[&told[..], &["-p", "lid"]].concat()), trained);
    assert_eq!(ids(&[&told[..], &["-i", text(&input)]].concat()), trained);
    assert_ne!(ids(&["-p", "lid"]), trained);
    let twice = ["generate", text(&model), "-p", "a", "--attributes", "humor=1,humor=2"];
    assert_eq!(refusal(&twice), "--attributes: attribute \"humor\" comes twice");
    let said = rollforge(&["generate", text(&model), "-p", "a", "--attributes", "humor"]);
    assert!(String::from_utf8(said.stderr).unwrap().contains("must be a name and a finite number"));
}
