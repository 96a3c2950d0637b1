//! The report and the live page of a real run.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rollforge::{
    config::PpoConfig,
    run::{self, page::Report},
};
use serde_json::Value;

use crate::world::{World, column, launch, ppo_of_digits};

const DEADLINE: Duration = Duration::from_secs(60);

/// Returns the data that a report holds.
fn data_of(page: &str) -> Value {
    let (_, data) = page.split_once(r#"id="data">"#).unwrap();
    serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn a_run_leaves_a_report_with_its_numbers() {
    let world = World::new("0123456789");
    world.digits("same", |prompt, _| prompt);
    world.ppo_of_digits("run", "model", "same", "ppo.iterations = 3\n");
    let page = fs::read_to_string(world.path("run/report.html")).unwrap();
    let data = data_of(&page);
    assert_eq!(data["head"]["state"], "finished");
    assert_eq!((&data["head"]["step"], &data["head"]["total"]), (&3.into(), &3.into()));
    assert_eq!(data["head"]["stage"], "ppo");
    for metric in ["objective/kl", "objective/scores", "timing_s/step"] {
        let drawn = data["curves"]["metrics"][metric].as_array().unwrap();
        let recorded = column(&world.metrics("run"), metric);
        assert_eq!(drawn.len(), recorded.len());
        for (drawn, recorded) in drawn.iter().zip(recorded) {
            let error = (drawn.as_f64().unwrap() - recorded).abs();
            assert!(error <= 1e-6 * recorded.abs(), "{metric}: {drawn} is not {recorded}");
        }
    }
    let config = fs::read_to_string(world.path("run/config.resolved.toml")).unwrap();
    assert_eq!(data["config"], config);
    assert_eq!(data["iterations"].as_array().unwrap().len(), 3);
    assert!(!data["timeline"]["spans"].as_array().unwrap().is_empty());

    // Written again from the files alone, it says the same.
    let again = world.path("again.html");
    Report::new(&world.path("run")).write(&again).unwrap();
    assert_eq!(data_of(&fs::read_to_string(again).unwrap())["curves"], data["curves"]);
}

#[test]
fn a_run_that_fails_reports_why() {
    let world = World::new("0123456789");
    world.digits("same", |prompt, _| prompt);
    let config = world.config::<PpoConfig>(
        "run",
        "model",
        &ppo_of_digits("same", "ppo.iterations = 3\ncheckpoint.every = 1\n"),
    );
    // A file where the checkpoints' folder would be.
    let mut blocker = Blocker(world.path("run/checkpoints"));
    let mut silent = run::Silent;
    let launch = run::Launch { observer: &mut blocker, ..launch(&mut silent) };
    run::ppo(&config, launch).unwrap_err();
    let data = data_of(&fs::read_to_string(world.path("run/report.html")).unwrap());
    assert_eq!(data["head"]["state"], "stopped");
    let reason = data["head"]["reason"].as_str().unwrap();
    assert!(reason.contains("checkpoints"), "{reason}");
}

/// Puts a file in the way when the run starts.
struct Blocker(std::path::PathBuf);

impl run::Observer for Blocker {
    fn start(&mut self, _stage: &str, _total: u64) {
        fs::write(&self.0, "in the way").unwrap();
    }

    fn step(&mut self, _step: u64, _metrics: &run::Metrics) {}
    fn note(&mut self, _line: &str) {}
    fn finish(&mut self) {}
}

#[test]
fn a_dashboard_follows_the_run_and_ends_with_it() {
    let world = World::new("0123456789");
    world.digits("same", |prompt, _| prompt);
    let run = ppo_of_digits("same", "ppo.iterations = 40\n");
    let config = format!("output_dir = 'run'\nthreads = 1\nmodel.path = 'model'\n{run}");
    fs::write(world.path("ppo.toml"), config).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rollforge"))
        .args(["ppo", "--quiet", "--dashboard", "127.0.0.1:0", "--config"])
        .arg(world.path("ppo.toml"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut said).unwrap();
    let address = said.trim().strip_prefix("dashboard: http://").unwrap();
    let address = address.trim_end_matches('/').to_owned();

    let started = Instant::now();
    loop {
        let head = data(&address)["head"].take();
        if head["step"].as_u64() > Some(0) {
            assert_eq!((&head["state"], &head["total"]), (&"running".into(), &40.into()));
            break;
        }
        assert!(started.elapsed() < DEADLINE, "no step within {DEADLINE:?}: {head}");
    }
    assert!(child.wait().unwrap().success());
    assert!(TcpStream::connect(&address).is_err());
}

/// Asks a dashboard for its data.
fn data(address: &str) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET /data HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_str(body).unwrap()
}
