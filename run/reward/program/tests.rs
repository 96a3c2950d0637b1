use std::{fs, path::Path, time::Instant};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    data::{Place, PromptSample},
    engine::EngineModel,
    rollout::{Prompt, PromptId, Rollout, StopReason},
};

fn bytes() -> Tokenizer {
    EngineModel::tiny(0).tokenizer.unwrap()
}

/// A program written for `sh`, and prompts for it.
struct World {
    folder: TempDir,
    tokenizer: Tokenizer,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), tokenizer: bytes() }
    }

    fn start(&self, script: &str, retries: u32, seconds: f64) -> Program {
        fs::write(self.folder.path().join("judge.sh"), script).unwrap();
        let options = ProgramOptions {
            command: ["sh", "judge.sh"].map(String::from).to_vec(),
            directory: self.folder.path().to_owned(),
            deadline: Duration::from_secs_f64(seconds),
            retries,
        };
        Program::start(options, self.tokenizer.clone()).unwrap()
    }

    /// Lets a program judge completions of these texts.
    fn score(&self, program: &mut Program, texts: &[&str]) -> Result<Vec<Reward>, String> {
        let place = Place { file: Path::new("a.jsonl").into(), line: 3 };
        let serde_json::Value::Object(extra) = json!({"answer": 7}) else { unreachable!() };
        let tokens = self.tokenizer.encode("4", false).unwrap().into();
        let prompt = PromptSample { tokens, extra, place };
        let rollouts: Vec<Rollout> =
            (0..).zip(texts).map(|(i, text)| self.rollout(i, text)).collect();
        let completions: Vec<_> =
            rollouts.iter().map(|rollout| Completion { prompt: &prompt, rollout }).collect();
        program.score(&completions).map_err(|error| {
            let said = format!("{error:#}");
            assert_eq!(said.lines().count(), 1, "{said}");
            said
        })
    }

    fn rollout(&self, sample: u32, text: &str) -> Rollout {
        let completion = self.tokenizer.encode(text, false).unwrap();
        Rollout {
            prompt: Prompt { id: PromptId(9), tokens: vec![0].into() },
            sample,
            rollout_logprobs: vec![-1.0; completion.len()],
            completion,
            raw_logprobs: None,
            stop: StopReason::Length,
            versions: Vec::new(),
        }
    }

    fn await_file(&self, file: &str) {
        while self.read(file).is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }
}

/// Answers each line by its number, counted from 1, and writes down what it read.
const COUNT: &str = "n=0; while read -r line; do echo \"$line\" >> read; \
                     n=$((n+1)); echo \"{\\\"id\\\": $((n-1)), \\\"score\\\": $n}\"; done\n";

fn scores<const N: usize>(scores: [f32; N]) -> Result<Vec<Reward>, String> {
    Ok(scores.map(Reward::Score).to_vec())
}

#[test]
fn a_line_goes_out_for_each_completion_and_one_comes_back() {
    let world = World::new();
    let mut program = world.start(COUNT, 0, 30.0);
    assert_eq!(world.score(&mut program, &["12", "3"]), scores([1.0, 2.0]));
    assert_eq!(world.score(&mut program, &["5"]), scores([3.0]));
    let read: Vec<serde_json::Value> =
        world.read("read").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let question = json!({"id": 0, "prompt": "4", "completion": "12", "row": {"answer": 7}});
    assert_eq!((&read[0], read.len()), (&question, 3));
}

#[test]
fn answers_may_come_in_any_order_and_token_by_token() {
    let world = World::new();
    let script = "read -r a; read -r b; echo '{\"id\": 1, \"score\": [0.5, 1]}'; echo; echo '{\"id\": 0, \"score\": -2}'; cat\n";
    let mut program = world.start(script, 0, 30.0);
    let expected = vec![Reward::Score(-2.0), Reward::PerToken(vec![0.5, 1.0])];
    assert_eq!(world.score(&mut program, &["1", "23"]), Ok(expected));
}

#[test]
fn one_that_dies_is_started_again_and_asked_for_what_is_left() {
    let world = World::new();
    // Answers one line and dies, with the id that it was given.
    let script = "echo start >> starts; read -r line; id=${line#*:}; \
                  echo \"{\\\"id\\\": ${id%%,*}, \\\"score\\\": 1}\"; exit 3\n";
    let mut program = world.start(script, 1, 30.0);
    assert_eq!(world.score(&mut program, &["1", "2", "3"]), scores([1.0; 3]));
    assert_eq!(world.read("starts").lines().count(), 3);
}

#[test]
fn one_that_keeps_dying_is_an_error_with_its_last_words() {
    let world = World::new();
    let script = "echo start >> starts; echo one >&2; echo two >&2; read -r line; exit 3\n";
    let mut program = world.start(script, 2, 30.0);
    let said = world.score(&mut program, &["1"]).unwrap_err();
    assert_eq!(
        said,
        "program \"sh judge.sh\": failed 3 times in a row: it died (exit status: 3); waiting for a.jsonl:3 (prompt 9, \
         sample 0); its last words (stderr): \"one | two\""
    );
    assert_eq!(world.read("starts").lines().count(), 3);
}

#[test]
fn one_that_hangs_is_ended_with_all_that_it_started() {
    let world = World::new();
    let script = "trap '' TERM; sleep 1000 & echo $! > child; echo $$ > own; read -r line; wait\n";
    let mut program = world.start(script, 0, 0.3);
    world.await_file("own");
    let said = world.score(&mut program, &["1"]).unwrap_err();
    assert!(said.contains("no answer within 0.3 s (deadline_seconds)"), "{said}");
    for file in ["own", "child"] {
        assert!(is_gone(world.read(file).trim()), "{file} is left");
    }
}

/// Says whether no such process is there, not even a zombie of ours; a child of a child is whoever's adopted it.
fn is_gone(pid: &str) -> bool {
    let state = || fs::read_to_string(format!("/proc/{pid}/stat"));
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(30) {
        match state() {
            Err(_) => return true,
            Ok(stat)
                if stat.contains(") Z ")
                    && !stat.contains(&format!(") Z {} ", std::process::id())) =>
            {
                return true;
            }
            Ok(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    false
}

#[test]
fn rubbish_is_an_error_at_once() {
    let world = World::new();
    for (answer, expected) in [
        ("well", "it said \"well\", which is no answer: "),
        ("{\"id\": 0}", "its answer for a.jsonl:3 (prompt 9, sample 0) has no score"),
        ("{\"id\": 5, \"score\": 1}", "it answered for an id that it was not asked for"),
        ("{\"id\": 0, \"score\": 1e99}", "must be finite, got Score(inf)"),
        ("{\"id\": 0, \"score\": [1, 2, 3]}", "must be one number or 2, got 3"),
        ("{\"id\": 0, \"score\": \"good\"}", "which is no answer"),
        (
            "{\"id\": 0, \"error\": \"no idea\"}",
            "could not judge a.jsonl:3 (prompt 9, sample 0): \"no idea\"",
        ),
    ] {
        let script = format!("echo start >> starts; read -r line; echo '{answer}'; cat\n");
        let mut program = world.start(&script, 5, 30.0);
        let said = world.score(&mut program, &["12"]).unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(world.read("starts").lines().count(), 7, "none was started again");
}

#[test]
fn one_that_cannot_be_started_is_named() {
    let options = ProgramOptions {
        command: vec!["./no-such-judge".into()],
        directory: "/".into(),
        deadline: Duration::from_secs(1),
        retries: 0,
    };
    let Err(error) = Program::start(options, bytes()) else { panic!("it started") };
    assert!(format!("{error:#}").starts_with("program \"./no-such-judge\" cannot be started: "));
}

#[test]
fn whoever_waits_for_it_is_let_go_when_the_run_is_over() {
    let world = World::new();
    let mut program = world.start("echo $$ > own; read -r line; sleep 1000\n", 5, 600.0);
    let end = program.ender().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| world.score(&mut program, &["1"]));
        world.await_file("own");
        end();
        let said = waiting.join().unwrap().unwrap_err();
        assert!(said.contains("was ended") || said.contains("the run is over"), "{said}");
    });
    assert!(is_gone(world.read("own").trim()));
}
