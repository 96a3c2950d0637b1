//! The dependency arrows of ARCHITECTURE.md, checked against the source.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A folder, then the folders it may name.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("ffi", &[]),
    ("rollout", &["ffi"]),
    ("simd", &["rollout"]),
    ("model", &["ffi", "rollout"]),
    ("data", &["model", "rollout"]),
    ("engine", &["ffi", "model", "rollout", "simd"]),
    ("trainer", &["data", "ffi", "model", "rollout", "simd"]),
    ("config", &["data", "engine", "model", "rollout", "trainer"]),
    ("run", &["config", "data", "engine", "ffi", "model", "rollout", "trainer"]),
    ("cli", &["config", "data", "engine", "ffi", "model", "rollout", "run", "trainer"]),
];

/// A word, then the only places that may say it.
const FENCED: [(&str, &[&str]); 7] = [
    ("tokio", &["engine/handle", "rollout/queue/", "run/", "cli/"]),
    ("tch", &["trainer/torch/", "ffi/torch"]),
    ("torch_sys", &["trainer/torch/", "ffi/torch"]),
    ("bindgen", &[]),
    ("cxx", &["ffi/tensorrt_llm/"]),
    ("cudarc", &["ffi/"]),
    ("unsafe", &["ffi/", "simd/", "engine/native/cpu/kernels"]),
];

const LONGEST_FILE: usize = 500;

#[test]
fn folders_only_name_what_lies_below_them() {
    for (folder, allowed) in ALLOWED {
        for (path, source) in sources(folder) {
            for named in folders_named(&path, &code(&source)) {
                let fine = named == folder || allowed.contains(&named.as_str());
                assert!(fine, "{} names {named}, {folder} may name {allowed:?}", path.display());
            }
        }
    }
}

#[test]
fn fenced_words_stay_behind_their_fence() {
    for (path, source) in ALLOWED.iter().flat_map(|(folder, _)| sources(folder)) {
        let code = code(&source);
        let words: BTreeSet<_> = tokens(&code).into_iter().collect();
        for (word, places) in FENCED {
            let inside = places.iter().any(|place| path.to_string_lossy().starts_with(place));
            let said = words.contains(word);
            assert!(inside || !said, "{} says {word}, which belongs to {places:?}", path.display());
        }
    }
}

#[test]
fn files_stay_small() {
    for (path, source) in ALLOWED.iter().flat_map(|(folder, _)| sources(folder)) {
        let kernel = path.starts_with("engine/native/cpu/kernels");
        let lines = source.lines().count();
        assert!(kernel || lines <= LONGEST_FILE, "{} has {lines} lines", path.display());
    }
}

#[test]
fn every_folder_of_the_crate_has_its_rule() {
    let root = fs::read_to_string(root().join("lib.rs")).unwrap();
    let modules = root.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    for module in modules {
        assert!(ALLOWED.iter().any(|(folder, _)| *folder == module), "no rule for {module}");
    }
}

#[test]
fn planted_imports_are_seen() {
    let seen = |source: &str| {
        folders_named(Path::new("engine/native/mod.rs"), &code(source))
            .into_iter()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(seen("use crate::trainer::Ppo;"), "trainer");
    assert_eq!(seen("use crate::{\n    model::{self, data},\n    run,\n};"), "model run");
    assert_eq!(
        seen("use crate::{data as d, rollout::{a::{b, c}, e}, cli::X};"),
        "cli data rollout"
    );
    assert_eq!(seen("fn f() -> crate :: trainer::X {}"), "trainer");
    assert_eq!(seen("use super::super::trainer::Ppo;"), "trainer");
    assert_eq!(seen("use super::super::{ffi, trainer};"), "ffi trainer");
    assert_eq!(seen("use super::trainer::X; let a = \"crate::run\"; // crate::run\n"), "");
    assert_eq!(seen("/* crate::run */ let q = ['\"', 'x']; use crate::data::X;"), "data");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns path (from the root) and text of every Rust file of a folder.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_path_buf(), text));
            }
        }
    }
    found
}

/// Returns the folders of the crate that a file names by `crate::` or by climbing to the root with `super::`.
fn folders_named(path: &Path, code: &str) -> BTreeSet<String> {
    let is_mod = path.ends_with("mod.rs");
    let depth = path.components().count() - usize::from(is_mod);
    let to_root = vec!["super"; depth].join(" :: ");
    let tokens = tokens(code).join(" ");
    let mut named = BTreeSet::new();
    for prefix in ["crate", to_root.as_str()] {
        for (start, matched) in tokens.match_indices(&format!("{prefix} :: ")) {
            if start == 0 || tokens.as_bytes()[start - 1] == b' ' {
                first_names(&tokens[start + matched.len()..], &mut named);
            }
        }
    }
    named
}

/// Adds the names that come directly after a path: one, or each one of a `{...}` group.
fn first_names(rest: &str, named: &mut BTreeSet<String>) {
    let mut depth = 0;
    let mut expects_name = true;
    for token in rest.split(' ') {
        match token {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," => expects_name = depth == 1,
            name => {
                if expects_name {
                    named.insert(name.to_string());
                }
                expects_name = false;
            }
        }
        if depth == 0 {
            return;
        }
    }
}

/// Splits code into words, `::` and single signs.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let end = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    tokens
}

/// Returns the source without comments, strings and character literals.
fn code(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped(rest);
        if skipped > 0 {
            code.push(' ');
            rest = &rest[skipped..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// Returns the length of the comment or literal that starts here, or 0.
fn skipped(rest: &str) -> usize {
    let after = |start: usize, end: &str| {
        rest[start..].find(end).map_or(rest.len(), |length| start + length + end.len())
    };
    let hashes = rest.bytes().skip(1).take_while(|&byte| byte == b'#').count();
    if rest.starts_with("//") {
        after(0, "\n")
    } else if rest.starts_with("/*") {
        after(2, "*/")
    } else if rest.starts_with('r') && rest[1 + hashes..].starts_with('"') {
        after(2 + hashes, &format!("\"{}", "#".repeat(hashes)))
    } else if rest.starts_with('"') {
        string_length(rest)
    } else if rest.starts_with("'\\") {
        after(3, "'")
    } else if rest.starts_with('\'') {
        let mut chars = rest.char_indices().skip(2);
        chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1)
    } else {
        0
    }
}

fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}
