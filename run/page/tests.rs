//! The files of a run that goes on, and the server over real connections.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{recording::Recording, *};

const DEADLINE: Duration = Duration::from_secs(20);

/// A run directory that is written by hand.
struct Run(tempfile::TempDir);

impl Run {
    fn new() -> Self {
        let run = Self(tempfile::tempdir().unwrap());
        run.write(
            "config.resolved.toml",
            "# 20 rollouts\n\n[ppo]\niterations = 5\n[invariants]\nfinite = \"stop\"\n",
        );
        run
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn append(&self, name: &str, line: &str) {
        let mut file = File::options().create(true).append(true).open(self.path(name)).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    fn step(&self, step: u64) {
        self.append(
            "metrics.jsonl",
            &format!(r#"{{"step":{step},"objective/kl":0.{step},"invariant/finite":0}}"#),
        );
    }

    fn serve(&self) -> Dashboard {
        Dashboard::start(self.folder(), Some("127.0.0.1:0".parse().unwrap())).unwrap()
    }
}

fn connect(dashboard: &Dashboard, path: &str, host: &str) -> BufReader<TcpStream> {
    let url = dashboard.url();
    let address = url.strip_prefix("http://").unwrap().trim_end_matches('/');
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    BufReader::new(stream)
}

/// Returns status, headers and body.
fn get(dashboard: &Dashboard, path: &str, host: &str) -> (u16, String, String) {
    let mut answer = String::new();
    connect(dashboard, path, host).read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

/// Returns the answer to a good request, once it is as it should be.
fn eventually(dashboard: &Dashboard, path: &str, good: impl Fn(&str) -> bool) -> String {
    let started = Instant::now();
    loop {
        let (status, _, body) = get(dashboard, path, "127.0.0.1");
        assert_eq!(status, 200, "{body}");
        if good(&body) {
            return body;
        }
        assert!(started.elapsed() < DEADLINE, "{path}: {body}");
        std::thread::yield_now();
    }
}

/// Returns the next update that a stream of events tells of.
fn next_update(events: &mut impl BufRead) -> Option<Value> {
    loop {
        let mut line = String::new();
        if events.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        if let Some(data) = line.strip_prefix("data:") {
            return Some(serde_json::from_str(data).unwrap());
        }
    }
}

#[test]
fn updates_follow_each_other_and_what_cannot_be_told_is_a_gap() {
    let run = Run::new();
    let mut recording = Recording::new(run.folder());
    recording.catch_up();
    let mut poll = || recording.poll().0;
    assert!(poll().is_none());
    run.step(1);
    let first = poll().unwrap();
    run.append("journal.jsonl", r#"{"kind":"warning","step":1,"name":"finite","text":"is NaN"}"#);
    let second = poll().unwrap();
    assert_eq!(second.version, first.version + 1);
    assert_eq!((first.news.rows.len(), second.news.entries.len()), (1, 1));
    // A resumed run takes back a step.
    run.step(2);
    assert_eq!(poll().unwrap().version, second.version + 1);
    let kept: String =
        fs::read_to_string(run.path("metrics.jsonl")).unwrap().lines().take(1).collect();
    run.write("rewound", &format!("{kept}\n"));
    fs::rename(run.path("rewound"), run.path("metrics.jsonl")).unwrap();
    let gap = poll().unwrap();
    assert_eq!((gap.version, gap.news.rows.len()), (second.version + 3, 0));
    let snapshot = serde_json::to_value(recording.snapshot()).unwrap();
    assert_eq!(snapshot["curves"]["steps"], serde_json::json!([1]));
    assert_eq!(snapshot["invariants"]["finite"]["said"], "is NaN");
    assert_eq!(snapshot["policies"]["finite"], "stop");
    assert_eq!((&snapshot["head"]["step"], &snapshot["head"]["total"]), (&1.into(), &5.into()));
}

#[test]
fn a_run_is_running_until_its_end_is_written() {
    let run = Run::new();
    let state = |name: &str| {
        let mut recording = Recording::new(run.folder());
        recording.catch_up();
        serde_json::to_value(recording.snapshot()).unwrap()["head"][name].clone()
    };
    run.step(1);
    assert_eq!(state("state"), "running");
    run.append("journal.jsonl", r#"{"kind":"stop","step":1,"text":"SIGTERM"}"#);
    assert_eq!((state("state"), state("reason")), ("stopped".into(), "SIGTERM".into()));
    run.append("journal.jsonl", r#"{"kind":"resume","step":1,"text":"resumed after 1"}"#);
    assert_eq!(state("state"), "running");
    run.step(5);
    assert_eq!(state("state"), "finished");
}

#[test]
fn a_recording_of_nothing_is_a_page_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut report = Report::new(folder.path());
    report.write(&folder.path().join("report.html")).unwrap();
}

#[test]
fn the_page_its_parts_and_its_data_are_served_and_nothing_else() {
    let run = Run::new();
    run.step(1);
    let dashboard = run.serve();
    for (path, kind) in
        [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")]
    {
        let (status, head, body) = get(&dashboard, path, "localhost:7070");
        assert_eq!(status, 200);
        assert!(head.contains(&format!("content-type: {kind}")), "{head}");
        assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
        assert!(body.len() > 1000);
    }
    let data = eventually(&dashboard, "/data", |body| body.contains("objective/kl"));
    let data: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(data["curves"]["metrics"]["objective/kl"][0], 0.1);
    for path in
        ["/metrics.jsonl", "/../metrics.jsonl", "/%2e%2e/metrics.jsonl", "/data/x", "//etc/passwd"]
    {
        assert_eq!(get(&dashboard, path, "127.0.0.1").0, 404, "{path}");
    }
}

#[test]
fn requests_under_another_name_are_refused() {
    let run = Run::new();
    let dashboard = run.serve();
    for path in ["/", "/data", "/events", "/metrics"] {
        let (status, _, body) = get(&dashboard, path, "evil.example:7070");
        assert_eq!(status, 403);
        assert!(body.starts_with("the Host of a request must be"), "{body}");
    }
    assert_eq!(get(&dashboard, "/", "[::1]:9").0, 200);
}

#[test]
fn every_client_hears_of_each_step_and_of_the_end() {
    let run = Run::new();
    run.step(1);
    let dashboard = run.serve();
    let data = eventually(&dashboard, "/data", |body| body.contains("objective/kl"));
    let version = serde_json::from_str::<Value>(&data).unwrap()["version"].as_u64().unwrap();
    let mut clients = [(); 2].map(|()| connect(&dashboard, "/events", "127.0.0.1"));
    for client in &mut clients {
        // The head of the answer: from here on it listens.
        while {
            let mut line = String::new();
            client.read_line(&mut line).unwrap();
            !line.trim().is_empty()
        } {}
    }
    run.step(2);
    run.write("samples/iteration_2.jsonl", "{\"prompt\":\"a\",\"completion\":\"<script>\"}\n");
    for client in &mut clients {
        let mut updates = std::iter::from_fn(|| next_update(client));
        let update = updates.find(|update| update["rows"][0]["step"] == 2).unwrap();
        assert!(update["version"].as_u64().unwrap() > version);
        assert_eq!(update["rows"][0]["objective/kl"], 0.2);
    }
    run.append(
        "journal.jsonl",
        r#"{"kind":"stop","step":2,"name":"finished","text":"2 iterations"}"#,
    );
    drop(dashboard);
    for client in &mut clients {
        let last = std::iter::from_fn(|| next_update(client)).last().unwrap();
        assert_eq!(last["head"]["state"], "finished");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let run = Run::new();
    let dashboard = run.serve();
    let address = dashboard.url()["http://".len()..].trim_end_matches('/').to_owned();
    let error = Dashboard::start(run.folder(), Some(address.parse().unwrap())).unwrap_err();
    assert_eq!(error.to_string(), format!("the dashboard cannot listen on {address}"));
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let run = Run::new();
    run.append(
        "metrics.jsonl",
        r#"{"step":3,"objective/kl":0.25,"val/ratio":null,"objective_kl":9,"sync/bytes":1e20,"invariant/finite":1}"#,
    );
    let dashboard = run.serve();
    let text = eventually(&dashboard, "/metrics", |body| body.contains("rollforge_objective_kl"));
    let mut families = std::collections::HashSet::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            current = help.split(' ').next().unwrap().to_owned();
            assert!(families.insert(current.clone()), "{current} comes twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let kind = kind.strip_prefix(&format!("{current} ")).unwrap();
            assert_eq!(kind, if current.ends_with("_total") { "counter" } else { "gauge" });
        } else {
            assert_is_sample_of(&current, line);
        }
    }
    let value = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    assert_eq!(value("rollforge_objective_kl{"), 0.25);
    assert_eq!((value("rollforge_step{"), value("rollforge_sync_bytes{")), (3.0, 1e20));
    assert!(value("rollforge_val_ratio{").is_nan());
    assert_eq!(value("rollforge_invariant_broken_total{"), 1.0);
}

/// Checks a line by the rules of the exposition format: a name, labels in quotes, and a number.
fn assert_is_sample_of(family: &str, line: &str) {
    let (name, rest) = line.split_once('{').unwrap();
    assert_eq!(name, family);
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line}");
    let (labels, value) = rest.rsplit_once("} ").unwrap();
    for label in labels.split(',') {
        let (name, value) = label.split_once('=').unwrap();
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase()), "{line}");
        assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
    }
    value.parse::<f64>().unwrap();
}
