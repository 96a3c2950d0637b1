//! Knowledge distillation.

use std::fs;

use rollforge::{
    config::DistillConfig,
    model::{NewModelSpec, new_model},
    run::{self, DistillOutcome, Earlier, Launch, Silent, Stop},
};

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
    let teacher = if more.contains("model.teacher") { "" } else { "model.teacher = 'teacher'\n" };
    let text = format!(
        "{teacher}data.train = 'any.jsonl'\ndata.eval = 'any.jsonl'\ndata.append_eos = false\n\
         distill.batch_size = 50\n{}{more}",
        if more.contains("top_k") { "" } else { "distill.top_k = 12\n" }
    );
    world.config(name, "guess", &text)
}

fn distilled(world: &World, name: &str, more: &str) -> DistillOutcome {
    run::distill(&config(world, name, more), launch(&mut Silent)).unwrap()
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
