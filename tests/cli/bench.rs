//! `rollforge bench`.

use std::fs;

use serde_json::Value;

use super::{World, answer, refusal, rollforge, text};

fn rows(report: &Value) -> Vec<(&str, usize)> {
    let row = |row: &'_ Value| row["values"].as_array().unwrap().len();
    report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), row(one)))
        .collect()
}

fn parsed(printed: &str) -> Value {
    serde_json::from_str(printed).unwrap()
}

const SMALL: [&str; 8] = ["--shape", "5M", "--prompt", "4", "--threads", "1", "--repeats", "2"];

fn engine<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["bench", "engine"], &SMALL[..], more].concat()
}

#[test]
fn every_bench_says_what_it_takes() {
    for (command, words) in [
        (&["bench"][..], &["engine", "train", "refit", "queue", "ppo", "table"][..]),
        (&["bench", "engine"], &["--shape", "--batch", "--repeats", "--peer", "--json", "--plot"]),
        (&["bench", "refit"], &["--backend", "tensorrt-llm", "--mode", "--json"]),
    ] {
        let help = answer(&[command, &["--help"]].concat());
        for word in words {
            assert!(help.contains(word), "{command:?} --help lacks {word}");
        }
    }
    for bad in [
        &["bench", "refit", "--backend", "tensorrt"][..],
        &["bench", "engine", "--shape", "7B"],
        &["bench", "engine", "--dtype", "f16"],
        &["bench", "engine", "--peer", "vllm"],
    ] {
        assert_eq!(rollforge(bad).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn each_rate_is_held_against_a_limit_of_the_same_run() {
    let world = World::new();
    let (file, picture) = (world.path("engine.json"), world.path("engine.svg"));
    let more = ["--dtype", "f32", "--batch", "1,3", "--new", "4", "--prefill", "8"];
    let files = ["--json", text(&file), "--plot", text(&picture)];
    let arguments = engine(&[&more[..], &files].concat());
    let shown = answer(&arguments);
    assert!(
        shown.contains("decode_b3_p4_n4_tokens_per_s") && shown.contains("GB/s read"),
        "{shown}"
    );
    let report = parsed(&fs::read_to_string(&file).unwrap());
    let wanted = ["decode_b1_p4_n4", "decode_b3_p4_n4", "prefill_b1_t8"];
    let wanted: Vec<_> = wanted.iter().map(|stem| format!("{stem}_tokens_per_s")).collect();
    assert_eq!(rows(&report), wanted.iter().map(|name| (name.as_str(), 2)).collect::<Vec<_>>());
    for row in report["rows"].as_array().unwrap() {
        assert!(
            row["lowest"].as_f64().unwrap() > 0.0 && row["limit"].as_f64().unwrap() > 0.0,
            "{row}"
        );
    }
    assert!(report["settings"]["parameters"].as_f64().unwrap() > 4e6);
    assert_eq!(report["cores"].as_array().unwrap().len(), 1);
    assert!(report["machine"]["rustc"].as_str().unwrap().starts_with("rustc "), "{report}");
    assert!(fs::read_to_string(&picture).unwrap().starts_with("<svg"));
    let page = answer(&["bench", "table", text(&world.path(""))]);
    assert!(
        page.starts_with("## engine: ") && page.contains("| `decode_b1_p4_n4_tokens_per_s` |"),
        "{page}"
    );
    assert!(refusal(&["bench", "table", text(&picture)]).contains("engine.svg"));
}

#[test]
fn a_peer_takes_turns_on_the_same_model_and_its_tokens_are_compared() {
    let world = World::new();
    let script = r#"
        while [ $# -gt 0 ]; do case "$1" in --model) model=$2;; --batch) batch=$2;; esac; shift; done
        test -f "$model/config.json" -a -f "$model/tokenizer.json" -a "$batch" = 1 || exit 1
        echo '{"peer":"hf","versions":{"torch":"2.11"},"results":[{"name":"decode_b1_p4_n4_static_tokens_per_s",
            "unit":"tokens/s","values":[5,6]}],"greedy":[[1,2,3]],"note":"a double"}' | tr -d '\n'"#;
    world.file("run.sh", script);
    let folder = world.path("");
    let peer = ["--peer", "hf", "--peers-folder", text(&folder), "--rounds", "2"];
    let more = ["--dtype", "f32", "--batch", "1", "--new", "4", "--prefill", "8", "--json"];
    let report = parsed(&answer(&engine(&[&peer[..], &more].concat())));
    assert_eq!(rows(&report)[0], ("decode_b1_p4_n4_tokens_per_s", 4));
    let hf = &report["peers"][0];
    assert_eq!(rows(hf), [("decode_b1_p4_n4_static_tokens_per_s", 4)]);
    assert_eq!(hf["agreement"]["agrees"], false, "{hf}");
    let ratio = &report["ratios"][0];
    assert_eq!((&ratio["variant"], &ratio["median"]), (&"static".into(), &5.5.into()));
    assert!(ratio["times_better"].as_f64().unwrap() > 0.0);
    let notes = report["notes"].as_array().unwrap();
    assert_eq!(notes.last().unwrap(), "hf: a double");
    let unoptimised = notes.iter().any(|note| note.as_str().unwrap().contains("no release build"));
    assert_eq!(unoptimised, cfg!(debug_assertions));

    world.file("run.sh", "echo 'there is no venv: run benches/peers/setup.sh' >&2; exit 2");
    let failed = rollforge(&engine(&[&peer[..], &more].concat()));
    let said = String::from_utf8(failed.stderr).unwrap();
    let said = said.lines().last().unwrap();
    assert!(
        said.starts_with("error: peer hf failed") && said.contains("run benches/peers/setup.sh"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_line() {
    assert_eq!(refusal(&engine(&["--batch", "0"])), "--batch must be at least 1, got 0");
    let missing = refusal(&["bench", "engine", "--model", "no/such/model"]);
    assert!(missing.contains("no/such/model/config.json"), "{missing}");
    let said = refusal(&["bench", "engine", "--peer", "hf", "--peers-folder", "nowhere"]);
    assert!(
        said.contains("nowhere/run.sh is missing") && said.ends_with("with --peers-folder"),
        "{said}"
    );
    let said = refusal(&["bench", "queue", "--json", "no/such/folder/x.json"]);
    assert!(said.contains("there is no folder no/such/folder"), "{said}");
    let said = refusal(&["bench", "queue", "--batch", "8", "--items", "7"]);
    assert_eq!(said, "--items must be at least 8, got 7");
    for bench in ["engine", "refit"] {
        let said = refusal(&["bench", bench, "--shape", "5M", "--threads", "4096"]);
        assert!(said.starts_with("--threads must be at most"), "{bench}: {said}");
    }
}

#[test]
fn items_are_counted_in_either_order() {
    let queue = ["bench", "queue", "--batch", "4", "--items", "64", "--repeats", "2", "--json"];
    let report = parsed(&answer(&queue));
    assert_eq!(
        rows(&report),
        [("queue_ticket_b4_items_per_s", 2), ("queue_arrival_b4_items_per_s", 2)]
    );
}

#[test]
fn a_refit_of_the_embedded_engine_is_measured() {
    let world = World::new();
    let model = world.path("model");
    let refit = ["bench", "refit", "--model", text(&model), "--threads", "1"];
    let report = parsed(&answer(&[&refit[..], &["--repeats", "3", "--json"]].concat()));
    let names =
        ["refit_alias_us", "refit_alias_checked_us", "refit_copy_us", "refit_copy_gb_per_s"];
    assert_eq!(rows(&report), names.map(|name| (name, 3)));
    let settings = &report["settings"];
    assert_eq!((&settings["backend"], &settings["double"]), (&"native".into(), &false.into()));
    assert_eq!(settings["alias_copied_bytes"], 0);
    assert_eq!(settings["copy_copied_bytes"], settings["weight_bytes"]);
    assert!(report["rows"][3]["limit"].as_f64().unwrap() > 0.0);
    let shown = answer(&[&refit[..], &["--repeats", "1", "--mode", "copy"]].concat());
    assert!(shown.contains("refit_copy_us") && !shown.contains("refit_alias_us"), "{shown}");

    assert!(
        refusal(&["bench", "refit", "--repeats", "0"]).contains("--repeats must be at least 1")
    );
    let trt = ["bench", "refit", "--backend", "tensorrt-llm"];
    assert!(refusal(&trt).contains("needs --model"));
    assert!(refusal(&[&trt[..], &["--model", text(&model)]].concat()).contains("needs --engine"));
    assert!(refusal(&["bench", "refit", "--double"]).contains("go with --backend tensorrt-llm"));
}

#[test]
#[cfg(feature = "libtorch")]
fn a_training_step_and_whole_iterations_are_measured() {
    let world = World::new();
    let model = world.path("model");
    let small = ["--model", text(&model), "--dtype", "f32", "--threads", "1", "--repeats", "2"];
    let train = [&["bench", "train"], &small[..], &["--rows", "2", "--length"]].concat();
    let report = parsed(&answer(&[&train[..], &["8", "--json"]].concat()));
    assert_eq!(rows(&report), [("train_2x8_tokens_per_s", 2)]);
    assert!(report["rows"][0]["limit"].as_f64().unwrap() > 0.0, "{report}");
    let said = refusal(&[&train[..], &["64"]].concat());
    assert_eq!(said, "--length must be at most 32, the model's positions, got 64");

    let ppo = ["--prompts", "2", "--new", "3", "--epochs", "2", "--prompt"];
    let ppo = [&["bench", "ppo"], &small[..], &ppo].concat();
    let report = parsed(&answer(&[&ppo[..], &["4", "--json"]].concat()));
    let names = ["iteration", "generate", "score", "update", "refit", "other"];
    let names = names.map(|name| format!("ppo_{name}_s"));
    assert_eq!(rows(&report), names.each_ref().map(|name| (name.as_str(), 2)));
    let median = |row: usize| report["rows"][row]["median"].as_f64().unwrap();
    assert!((1..5).all(|phase| median(phase) <= median(0)), "{report}");
    let said = refusal(&[&ppo[..], &["40"]].concat());
    assert_eq!(said, "the model has 32 positions, and 43 are asked for");
}

#[test]
#[cfg(not(feature = "libtorch"))]
fn training_needs_its_feature() {
    for bench in ["train", "ppo"] {
        let said = refusal(&["bench", bench]);
        assert_eq!(
            said,
            format!("rollforge bench {bench} needs a build with the feature `libtorch`")
        );
    }
}
