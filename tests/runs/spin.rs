//! Self-play: the policy learns to tell what the data say from what it says itself.

use std::fs;

use rollforge::{
    config::SpinConfig,
    run::{self, Earlier, Launch, Silent, Stop},
};

use crate::world::{World, column, launch};

/// Demonstrations: each digit is followed by the next.
fn world() -> World {
    let world = World::of_digits();
    let row = |i: usize| {
        format!("{{\"prompt\": \"{}\", \"completion\": \"{}\"}}\n", i % 10, (i + 1) % 10)
    };
    fs::write(world.path("next.jsonl"), (0..100).map(row).collect::<String>()).unwrap();
    world
}

fn config(world: &World, name: &str, more: &str) -> SpinConfig {
    let text = format!(
        "data.train = 'next.jsonl'\ndata.append_eos = false\ndpo.batch_size = 100\nsampling.max_new_tokens = 1\n\
         spin.iterations = 2\n{more}"
    );
    world.config(name, "guess", &text)
}

#[test]
fn a_policy_comes_to_say_what_the_data_say_and_each_iteration_leaves_its_pairs() {
    let world = world();
    let config = config(&world, "spin", "dpo.epochs = 40\noptimizer.lr = 0.005\ndpo.beta = 0.5\n");
    run::spin(&config, launch(&mut Silent)).unwrap();
    let right = |iteration: u32| {
        let pairs = world.path("spin").join(format!("iteration_{iteration}/pairs.jsonl"));
        let rows = fs::read_to_string(pairs).unwrap();
        assert_eq!(rows.lines().count(), 100);
        let rows: Vec<serde_json::Value> =
            rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
        rows.iter().filter(|row| row["chosen"] == row["rejected"]).count()
    };
    let (first, second) = (right(1), right(2));
    assert!(first < 20 && second > first + 15, "{first} right answers of 100, then {second}");
    for iteration in 1..=2 {
        let lines = world.metrics(&format!("spin/iteration_{iteration}/dpo"));
        assert!((column(&lines, "loss")[0] - std::f64::consts::LN_2).abs() < 1e-12);
    }
}

#[test]
fn a_run_goes_on_in_the_iteration_it_was_in_and_a_folder_in_use_is_refused() {
    let world = world();
    let whole = config(&world, "whole", "");
    run::spin(&whole, launch(&mut Silent)).unwrap();
    let said = format!("{:#}", run::spin(&whole, launch(&mut Silent)).unwrap_err());
    assert!(said.contains("iteration_1/dpo"), "{said}");

    // As if it had ended after the second iteration's pairs were written.
    let halves = config(&world, "halves", "");
    run::spin(&halves, launch(&mut Silent)).unwrap();
    let second = world.path("halves/iteration_2");
    let pairs = fs::read(second.join("pairs.jsonl")).unwrap();
    fs::remove_dir_all(second.join("dpo")).unwrap();
    let mut observer = Silent;
    let resumed =
        Launch { earlier: Earlier::Resume, observer: &mut observer, stop: Stop::default() };
    run::spin(&halves, resumed).unwrap();
    assert_eq!(fs::read(second.join("pairs.jsonl")).unwrap(), pairs);
    let (ours, theirs) = ("halves/iteration_2/dpo", "whole/iteration_2/dpo");
    assert_eq!(world.checksum(ours), world.checksum(theirs));

    let mut observer = Silent;
    let named =
        Launch { earlier: Earlier::ResumeFrom(1), observer: &mut observer, stop: Stop::default() };
    let said = run::spin(&halves, named).unwrap_err().to_string();
    assert!(said.contains("name no step"), "{said}");
}

#[test]
fn data_without_answers_are_refused_before_anything_is_written() {
    let world = world();
    fs::write(world.path("next.jsonl"), "{\"text\": \"12\"}\n").unwrap();
    let said = format!(
        "{:#}",
        run::spin(&config(&world, "refused", ""), launch(&mut Silent)).unwrap_err()
    );
    assert!(said.contains("next.jsonl") && said.contains("\"completion\""), "{said}");
    assert!(!world.path("refused").exists());
    let text = "output_dir = 'a'\nmodel.path = 'b'\ndata.train = 'c'\ndata.eval = 'd.jsonl'\n";
    let read = rollforge::config::parse::<SpinConfig>("x.toml", text.into(), "/".as_ref(), &[]);
    let said = read.unwrap_err().to_string();
    assert!(said.contains("data.eval must be unset") && said.contains("d.jsonl"), "{said}");
}
