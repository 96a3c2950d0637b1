use std::path::PathBuf;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Toy {
    output_dir: PathBuf,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    ppo: Ppo,
    #[serde(default)]
    reward: Reward,
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Ppo {
    clip_range: f32,
    mini_batches: usize,
    kind: Kind,
    list: Vec<u32>,
}

impl Default for Ppo {
    fn default() -> Self {
        Self { clip_range: 0.2, mini_batches: 1, kind: Kind::Linear, list: vec![] }
    }
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Linear,
    Cosine,
}

#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Reward {
    #[default]
    None,
    Model {
        path: String,
    },
}

impl Config for Toy {
    fn resolve(&mut self, folder: &Path) {
        self.output_dir = folder.join(&self.output_dir);
    }

    fn arithmetic(&self) -> Vec<String> {
        vec![format!("mini-batches: {}", self.ppo.mini_batches)]
    }

    fn validate(&self) -> Result<(), Violation> {
        Violation::unless(
            self.ppo.mini_batches > 0,
            "ppo.mini_batches",
            "at least 1",
            self.ppo.mini_batches,
        )
    }
}

fn toy(text: &str, overrides: &[&str]) -> Result<Toy, Error> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    parse("run.toml", text.into(), Path::new("/base"), &overrides)
}

fn refusal(text: &str, overrides: &[&str]) -> String {
    let message = toy(text, overrides).expect_err("refused").to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn an_unknown_key_names_its_place_and_the_key_that_was_meant() {
    assert_eq!(
        refusal("output_dir = \"out\"\n[ppo]\n  clip_rang = 0.1\n", &[]),
        "run.toml:3:3: unknown key \"clip_rang\" in [ppo], did you mean \"clip_range\"?"
    );
    assert_eq!(
        refusal("output_dir = \"out\"\nsede = 1\n", &[]),
        "run.toml:2:1: unknown key \"sede\", did you mean \"seed\"?"
    );
    assert_eq!(
        refusal("output_dir = \"out\"\nx = 1\n", &[]),
        "run.toml:2:1: unknown key \"x\", expected one of output_dir, seed, ppo, reward"
    );
}

#[test]
fn an_unknown_key_in_a_tagged_section_is_found_too() {
    assert_eq!(
        refusal(
            "output_dir = \"out\"\n[reward]\nkind = \"model\"\npath = \"rm\"\npaht = \"rm\"\n",
            &[]
        ),
        "run.toml:5:1: unknown key \"paht\" in [reward], did you mean \"path\"?"
    );
}

#[test]
fn a_missing_key_names_its_section() {
    assert_eq!(refusal("seed = 1", &[]), "run.toml: missing key \"output_dir\"");
    assert_eq!(
        refusal("output_dir = \"out\"\n[reward]\nkind = \"model\"\n", &[]),
        "run.toml:2:2: missing key \"path\" in [reward]"
    );
}

#[test]
fn a_value_of_the_wrong_type_names_the_key() {
    assert_eq!(
        refusal("output_dir = \"out\"\n[ppo]\nclip_range = \"much\"\n", &[]),
        "run.toml:3:14: ppo.clip_range: invalid type: string \"much\", expected f32"
    );
    assert_eq!(
        refusal("output_dir = \"out\"\n[ppo]\nlist = [1, 2, true]\n", &[]),
        "run.toml:3:15: ppo.list: invalid type: boolean `true`, expected u32"
    );
    assert_eq!(
        refusal("output_dir = \"out\"\nseed = -1\n", &[]),
        "run.toml:2:8: seed: invalid value: integer `-1`, expected u64"
    );
}

#[test]
fn an_unknown_value_names_the_one_that_was_meant() {
    assert_eq!(
        refusal("output_dir = \"out\"\n[ppo]\nkind = \"cosin\"\n", &[]),
        "run.toml:3:8: ppo.kind: unknown value \"cosin\", did you mean \"cosine\"?"
    );
}

#[test]
fn broken_syntax_is_one_line() {
    assert!(refusal("output_dir = \n", &[]).starts_with("run.toml:1:14: "));
    assert!(refusal("seed = 1\nseed = 2\n", &[]).starts_with("run.toml:2:1: duplicate key"));
}

#[test]
fn overrides_are_laid_over_the_file() {
    let file = "output_dir = \"out\"\nseed = 1\n[ppo]\nclip_range = 0.1\nmini_batches = 4\n";
    let overrides =
        ["seed=7", "ppo.clip_range=0.3", "output_dir=other/place", "ppo.list=[1, 2]", "seed = 8"];
    let toy = toy(file, &overrides).expect("valid");
    assert_eq!(toy.seed, 8);
    assert_eq!(toy.ppo.clip_range, 0.3);
    assert_eq!(toy.ppo.mini_batches, 4);
    assert_eq!(toy.ppo.list, [1, 2]);
    assert_eq!(toy.output_dir, Path::new("/base/other/place"));
}

#[test]
fn an_override_of_a_whole_section_replaces_it() {
    let file = "output_dir = \"out\"\n[ppo]\nclip_range = 0.1\nmini_batches = 4\n";
    let toy = toy(file, &["ppo={mini_batches = 3}"]).expect("valid");
    assert_eq!((toy.ppo.mini_batches, toy.ppo.clip_range), (3, 0.2));
}

#[test]
fn an_override_that_breaks_a_rule_is_named() {
    let file = "output_dir = \"out\"\n[ppo]\n";
    assert_eq!(
        refusal(file, &["seed=1", "ppo.clip_rang=0.1"]),
        "override \"ppo.clip_rang=0.1\": unknown key \"clip_rang\" in [ppo], did you mean \"clip_range\"?"
    );
    assert_eq!(
        refusal(file, &["ppo.clip_range=much", "seed=2"]),
        "override \"ppo.clip_range=much\": ppo.clip_range: invalid type: string \"much\", expected f32"
    );
    assert_eq!(
        refusal(file, &["ppo.mini_batches=0"]),
        "override \"ppo.mini_batches=0\": ppo.mini_batches must be at least 1, got 0"
    );
    let file = "output_dir = \"out\"\n[ppo]\nmini_batches = 4\n";
    assert_eq!(
        refusal(file, &["ppo.mini_batches=0"]),
        "override \"ppo.mini_batches=0\": ppo.mini_batches must be at least 1, got 0"
    );
    assert_eq!(refusal(file, &["seed"]), "override \"seed\": must be of the form key=value");
    assert_eq!(
        refusal(file, &["a..b=1"]),
        "override \"a..b=1\": the key must be names joined by dots"
    );
}

#[test]
fn a_broken_rule_points_to_the_key() {
    assert_eq!(
        refusal("output_dir = \"out\"\n[ppo]\nmini_batches = 0\n", &[]),
        "run.toml:3:1: ppo.mini_batches must be at least 1, got 0"
    );
}

#[test]
fn the_resolved_configuration_reads_back_the_same() {
    let config = toy("output_dir = \"out\"\n[ppo]\nclip_range = 0.1\n", &[]).expect("valid");
    let text = to_toml(&config);
    assert!(text.contains("clip_range = 0.1\n"), "{text}");
    assert!(text.contains("mini_batches = 1\n"), "defaults are spelled out: {text}");
    assert_eq!(toy(&text, &[]).expect("valid"), config);
}

#[test]
fn a_missing_file_is_named() {
    let error = load::<Toy>(Path::new("no/such/run.toml"), &[]).expect_err("refused");
    assert_eq!(error.to_string(), "cannot read configuration no/such/run.toml");
}

proptest! {
    #[test]
    fn no_text_and_no_override_panics(text in ".{0,60}", over in ".{0,30}") {
        let _ = parse::<Toy>("run.toml", text, Path::new("/"), &[over]);
    }

    #[test]
    fn no_mangled_file_panics(at in 0usize..60, byte in any::<char>(), value in ".{0,12}") {
        let mut text = String::from("output_dir = \"out\"\n[ppo]\nclip_range = 0.1\nlist = [1, 2]\n");
        text.insert(at.min(text.len()), byte);
        let _ = parse::<Toy>("run.toml", text, Path::new("/"), &[format!("ppo.kind={value}")]);
    }
}

#[test]
fn a_line_break_in_a_key_breaks_no_error() {
    assert_eq!(
        refusal("output_dir = 'x'\n\"a\\nb\" = 1\n", &[]),
        "run.toml:2:1: unknown key \"a\\nb\", expected one of output_dir, seed, ppo, reward"
    );
    let message = refusal("output_dir = 'x'\nppo.\"a`\\nb\" = 1\n", &[]);
    assert!(
        message.starts_with("run.toml:2:5: unknown key") && !message.contains('\n'),
        "{message}"
    );
}
