//! `rollforge engine`, and what `ppo` says of TensorRT-LLM.

use std::fs;

use serde_json::Value;

use super::{World, answer, refusal, rollforge, text};

#[test]
fn every_command_says_what_it_takes() {
    for (command, words) in [
        (&["engine"][..], &["build", "inspect", "verify"][..]),
        (
            &["engine", "build"],
            &["--out", "--tp", "--fused-mlp", "--checkpoint-only", "--no-cache"],
        ),
        (&["engine", "inspect"], &["--json", "--no-load"]),
        (&["engine", "verify"], &["--prompts", "--threshold", "--double"]),
        (&["ppo"], &["--backend", "--engine"]),
    ] {
        let help = answer(&[command, &["--help"]].concat());
        for word in words {
            assert!(help.contains(word), "{command:?} --help lacks {word}");
        }
    }
    for bad in [
        &["engine"][..],
        &["engine", "build", "model"],
        &["engine", "build", "m", "--out", "o", "--double", "--checkpoint-only"],
    ] {
        assert_eq!(rollforge(bad).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn a_checkpoint_is_written_without_any_python() {
    let world = World::new();
    let (model, out) = (world.path("model"), world.path("checkpoint"));
    let build = ["engine", "build", text(&model), "--checkpoint-only", "--out", text(&out)];
    assert_eq!(answer(&[&build[..], &["--tp", "2"]].concat()).trim_end(), text(&out));
    let config: Value =
        serde_json::from_str(&fs::read_to_string(out.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["dtype"], &config["mapping"]["tp_size"]), (&"bfloat16".into(), &2.into()));
    assert!(out.join("rank1.safetensors").is_file());
    assert!(refusal(&build).contains("checkpoint exists already"));
}

#[test]
fn engines_that_cannot_be_built_are_refused_and_leave_nothing() {
    let world = World::new();
    let (model, out, cache) = (world.path("model"), world.path("engine"), world.path("cache"));
    let before = world.names();
    let build = |more: &[&str]| {
        let arguments =
            ["engine", "build", text(&model), "--out", text(&out), "--cache", text(&cache)];
        refusal(&[&arguments, more].concat())
    };
    assert!(build(&[]).contains("has no module tensorrt_llm: install tensorrt-llm 1.2.1"));
    assert!(build(&["--python", "/nowhere/python"]).contains("/nowhere/python"));
    let said = build(&["--max-seq", "33"]);
    assert_eq!(said, "--max-seq must be from 2 to 32 (the model's context), got 33");
    assert!(build(&["--tp", "3"]).contains("tensor_parallel must be a divisor of"));
    assert!(build(&["--deadline=-1"]).contains("--deadline must be a number of hours"));
    let nowhere = world.path("nowhere");
    let said =
        refusal(&["engine", "build", text(&nowhere), "--out", text(&out), "--checkpoint-only"]);
    assert!(said.contains("nowhere/config.json"), "{said}");
    assert_eq!(world.names(), before);
}

#[test]
fn engine_directories_that_cannot_be_read_are_named_with_file_and_key() {
    let world = World::new();
    let nowhere = world.path("nowhere");
    assert!(
        refusal(&["engine", "inspect", text(&nowhere)]).contains("nowhere/config.json: is missing")
    );
    // A model directory has a config.json, too.
    let model = world.path("model");
    let said = refusal(&["engine", "inspect", text(&model)]);
    assert!(said.contains("model/config.json") && said.contains("pretrained_config"), "{said}");
    fs::create_dir(world.path("engine")).unwrap();
    let file = world.file("engine/config.json", "{\"version\": ");
    let said = refusal(&["engine", "inspect", text(&world.path("engine"))]);
    assert!(said.contains(text(&file)) && said.contains("JSON"), "{said}");
    let said = refusal(&["engine", "verify", text(&nowhere), text(&model)]);
    assert!(said.contains("nowhere/config.json"), "{said}");
}

#[test]
fn a_ppo_run_is_given_another_engine_by_two_arguments() {
    let world = World::new();
    let config = world.file(
        "ppo.toml",
        "output_dir = \"run\"\n[model]\npath = \"model\"\n[data]\ntrain = \"rows.jsonl\"\n\
         [reward]\nkind = \"exact_match\"\ncolumn = \"answer\"\n\
         [ppo]\nvalue_init = \"policy\"\n",
    );
    let ppo = ["ppo", "-c", text(&config), "--dry-run", "--backend", "tensorrt-llm"];
    let said = refusal(&ppo);
    assert!(said.contains("engine.tensorrt_llm.engine_dir must be the directory"), "{said}");
    let engine = world.path("engine");
    let shown = answer(&[&ppo[..], &["--engine", text(&engine)]].concat());
    assert!(shown.contains("backend = \"tensorrt-llm\""), "{shown}");
    assert!(shown.contains(&format!("engine_dir = \"{}\"", text(&engine))), "{shown}");
}

#[test]
#[cfg(not(feature = "tensorrt-llm"))]
fn tensorrt_llm_needs_its_feature() {
    let world = World::new();
    let (model, out) = (world.path("model"), world.path("engine"));
    let said = refusal(&["engine", "build", text(&model), "--out", text(&out), "--double"]);
    assert_eq!(said, "--double needs a build with the feature `tensorrt-llm`");
    let said = refusal(&[
        "bench",
        "refit",
        "--backend",
        "tensorrt-llm",
        "--double",
        "--model",
        text(&model),
    ]);
    assert_eq!(said, "--double needs a build with the feature `tensorrt-llm`");
    assert!(!out.exists());
}

#[test]
#[cfg(feature = "tensorrt-llm")]
fn an_engine_of_the_double_goes_the_whole_way() {
    let world = World::new();
    let (model, engine) = (world.path("model"), world.path("engine"));
    let build = ["engine", "build", text(&model), "--double", "--out", text(&engine)];
    let sizes = ["--max-batch", "3", "--max-seq", "24", "--fused-mlp", "--dtype", "f32"];
    assert_eq!(answer(&[&build[..], &sizes].concat()).trim_end(), text(&engine));
    assert!(refusal(&build).contains("engine exists already"));

    let printed = answer(&["engine", "inspect", text(&engine), "--json"]);
    let found: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&found["max_batch_size"], &found["max_seq_len"]), (&3.into(), &24.into()));
    let rank = &found["refittable"][0];
    assert_eq!(rank["extra"], serde_json::json!(["rotary_inv_freq"]));
    assert_eq!(rank["tensors"].as_u64(), rank["mapped"].as_u64().map(|mapped| mapped + 1));
    assert!(rank["missing"].as_array().unwrap().is_empty());
    let shown = answer(&["engine", "inspect", text(&engine)]);
    assert!(shown.contains("double") && shown.contains("in the weight map"), "{shown}");
    let shown = answer(&["engine", "inspect", text(&engine), "--no-load"]);
    assert!(shown.contains("not looked at"), "{shown}");

    let verify = ["engine", "verify", text(&engine), text(&model), "--double", "--tokens", "6"];
    let printed = answer(&[&verify[..], &["--threshold", "0.001", "--json"]].concat());
    let verified: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(verified["rows"].as_array().unwrap().len(), 4);
    assert!(verified["max"].as_f64().unwrap() < 1e-3, "{printed}");
    assert!(verified["notes"][0].as_str().unwrap().contains("double"), "{printed}");
    let prompts = world.file("prompts.txt", "the lid\nis good\n");
    let shown = answer(&[&verify[..], &["--prompts", text(&prompts)]].concat());
    assert!(shown.contains("max |dlogp|") && shown.lines().count() == 4, "{shown}");

    let printed = answer(&[
        "bench",
        "refit",
        "--backend",
        "tensorrt-llm",
        "--double",
        "--model",
        text(&model),
        "--engine",
        text(&engine),
        "--repeats",
        "2",
        "--json",
    ]);
    let report: Value = serde_json::from_str(&printed).unwrap();
    let settings = &report["settings"];
    assert_eq!((&settings["double"], &settings["backend"]), (&true.into(), &"tensorrt-llm".into()));
    assert_eq!(report["rows"][1]["name"], "refit_alias_gb_per_s");
    assert_eq!(report["rows"][0]["values"].as_array().unwrap().len(), 2);
    let shown = answer(&[
        "bench",
        "refit",
        "--backend",
        "tensorrt-llm",
        "--double",
        "--model",
        text(&model),
    ]);
    assert!(shown.contains("no measure of a GPU"), "{shown}");
}

#[test]
#[cfg(feature = "tensorrt-llm")]
fn an_engine_that_is_not_the_models_is_refused_by_key() {
    let world = World::new();
    let (model, engine) = (world.path("model"), world.path("engine"));
    answer(&["engine", "build", text(&model), "--double", "--out", text(&engine)]);
    let verify = ["engine", "verify", text(&engine), text(&model)];
    let said = refusal(&[&verify[..], &["--double", "--tokens", "32"]].concat());
    assert!(said.contains("--tokens must leave room for a prompt"), "{said}");
    assert!(
        refusal(&[&verify[..], &["--double", "--tokens", "0"]].concat()).contains("at least 1")
    );
    // Without TensorRT-LLM a double is never taken for it.
    let said = refusal(&verify);
    assert!(said.contains("TensorRT-LLM is not linked into this build"), "{said}");
    let prompts = world.file("prompts.txt", &"lid ".repeat(40));
    let said = refusal(&[&verify[..], &["--double", "--prompts", text(&prompts)]].concat());
    assert!(said.contains("prompt 1 must have from 1 to 16 tokens"), "{said}");

    let (spec, corpus, other) =
        (world.path("model.toml"), world.path("corpus.txt"), world.path("other"));
    answer(&[
        "new-model",
        text(&spec),
        "--text",
        text(&corpus),
        "--output",
        text(&other),
        "--set",
        "intermediate_size=48",
    ]);
    let said = refusal(&["engine", "verify", text(&engine), text(&other), "--double"]);
    assert!(said.contains("engine/config.json") && said.contains("intermediate_size"), "{said}");
    let said = refusal(&[
        "engine",
        "build",
        text(&model),
        "--double",
        "--tp",
        "2",
        "--out",
        text(&world.path("two")),
    ]);
    assert_eq!(said, "--tp must be 1 with --double, got 2");
}
