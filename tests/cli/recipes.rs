//! `rollforge recipes`.

use std::fs;

use crate::{World, answer, refusal, text};

#[test]
fn recipes_are_listed_shown_and_written() {
    let listed = answer(&["recipes"]);
    for wanted in ["sft ", "ppo-rlhf", "dr-grpo", "simpo"] {
        assert!(listed.lines().any(|line| line.trim_start().starts_with(wanted)), "{listed}");
    }
    let shown = answer(&["recipes", "show", "grpo"]);
    assert!(shown.contains("preset = \"grpo\""), "{shown}");
    assert!(answer(&["recipes", "show", "grpo", "--resolved"]).contains("clip_range = 0.2"));

    let world = World::new();
    let file = world.path("mine.toml");
    let printed = answer(&["recipes", "write", "grpo", text(&file)]);
    assert_eq!(printed, format!("rollforge ppo --config {}\n", file.display()));
    assert_eq!(fs::read_to_string(&file).unwrap(), shown);
    answer(&["config", "check", "ppo", text(&file)]);

    fs::write(&file, "mine").unwrap();
    assert!(refusal(&["recipes", "write", "grpo", text(&file)]).contains("mine.toml"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert!(refusal(&["recipes", "show", "gpro"]).contains("did you mean \"grpo\"?"));
}
