//! SIGINT and SIGTERM to the program, and two programs in one run directory.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Child,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    child::{Program, output, wait_for},
    ppo_text,
};
use crate::world::World;

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Returns the exit status and the lines on the standard error.
fn end(child: Child) -> (Option<i32>, String) {
    let output = output(child);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Returns a configuration whose first update takes far longer than any test.
fn endless(more: &str) -> String {
    ppo_text(2, &format!("ppo.epochs = 1000000\n{more}"))
}

/// Starts a program and waits until it is in its first update.
fn updating(program: &Program) -> Child {
    let mut child = program.start();
    let trace = program.run.join("trace.json");
    // Written when all is scored, so that the update comes next; and no lane has that name.
    let scored = || fs::read_to_string(&trace).is_ok_and(|text| text.contains("\"old_log_prob\""));
    assert!(!wait_for(&mut child, scored), "the run ended");
    child
}

#[test]
fn the_first_signal_stops_a_run_with_a_checkpoint_and_says_how_to_go_on() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    let program = Program::new(&world, "run", &ppo_text(100_000, ""));
    for (signal, name, status) in [(Signal::INT, "SIGINT", 130), (Signal::TERM, "SIGTERM", 143)] {
        let recorded = program.size("metrics.jsonl");
        let mut child = program.start();
        assert!(!wait_for(&mut child, || program.size("metrics.jsonl") > recorded));
        send(&child, signal);
        let (code, said) = end(child);
        assert_eq!(code, Some(status), "{said}");
        assert!(
            said.contains("stopping after the step under way (again to stop at once)\n"),
            "{said}"
        );
        let latest = fs::read_to_string(program.run.join("LATEST")).unwrap();
        let last = said.lines().last().unwrap();
        assert!(last.starts_with(&format!("stopped by {name} after step ")), "{said}");
        assert!(last.ends_with(&format!("/run/{}", latest.trim())), "{said}");
    }
    let journal = fs::read_to_string(program.run.join("journal.jsonl")).unwrap();
    assert_eq!(journal.matches("\"kind\":\"stop\"").count(), 2, "{journal}");
}

#[test]
fn a_step_that_does_not_end_is_abandoned_at_the_deadline_or_at_the_second_signal() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);

    let program = Program::new(&world, "late", &endless("stop.deadline_seconds = 0.2\n"));
    let child = updating(&program);
    send(&child, Signal::TERM);
    let (code, said) = end(child);
    assert_eq!(code, Some(143), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: the step under way did not end within 0.2 s"), "{said}");

    let program = Program::new(&world, "twice", &endless("stop.deadline_seconds = 600\n"));
    let mut child = updating(&program);
    send(&child, Signal::INT);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("stopping after")), "it heard the first");
    send(&child, Signal::TERM);
    let (code, _) = end(child);
    assert_eq!((code, lines.next()), (Some(143), None));
}

#[test]
fn a_run_directory_in_use_is_refused_with_the_process_that_has_it() {
    let world = World::of_digits();
    world.digits("echo", |prompt, _| prompt);
    let program = Program::new(&world, "run", &endless(""));
    let mut child = updating(&program);
    let (code, said) = end(program.start());
    assert_eq!(code, Some(1), "{said}");
    let words = format!("/run is in use by process {} for ", child.id());
    assert!(said.starts_with("error: ") && said.contains(&words), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    child.kill().unwrap();
    child.wait().unwrap();
}
