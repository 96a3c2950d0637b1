//! What the fuzz targets look for, without a fuzzer: the inputs in `fuzz/corpus` and changed copies of them make no parser
//! panic, and every error is one line.
//!
//! `ROLLFORGE_MUTATIONS=10000 cargo test --test corpus` tries so many changed copies of each input.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "../fuzz/lib.rs"]
#[allow(missing_docs, unreachable_pub, reason = "a crate of its own, where it is fuzzed")]
mod fuzz;

use std::{
    collections::BTreeSet,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Changed copies of each input in a usual test run.
const MUTATIONS: usize = 10;

/// What parsers stumble over in the place of a number, a word or a piece of syntax.
const STUMBLING_BLOCKS: [&[u8]; 16] = [
    b"0",
    b"-1",
    b"18446744073709551615",
    b"9223372036854775807",
    b"4294967296",
    b"1e308",
    b"1e-320",
    b"null",
    b"\"\\n\"",
    b"[]",
    b"{}",
    b"\0",
    b"\xff",
    "\u{2028}".as_bytes(),
    "\u{1f600}".as_bytes(),
    b"\n",
];

fn paths(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Keeps the input under test, and leaves it in a file when the test panics.
struct Kept<'a>(&'a str, &'a [u8]);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.input", self.0));
            fs::write(&path, self.1).unwrap();
            eprintln!("{} panicked over {}", self.0, path.display());
        }
    }
}

fn try_one((target, take): fuzz::Target, input: &[u8]) {
    let _kept = Kept(target, input);
    take(input);
}

/// Makes a few changes at random places: bits, blocks that are cut out or doubled, stumbling blocks, parts of another.
fn changed(input: &[u8], other: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..5) {
        let from = random.random_range(0..=bytes.len());
        let to = (from + random.random_range(0..16)).min(bytes.len());
        match random.random_range(0..7) {
            0 if from < bytes.len() => bytes[from] ^= 1 << random.random_range(0..8),
            1 => drop(bytes.drain(from..to)),
            2 => {
                let block = bytes[from..to].to_vec();
                bytes.splice(from..from, block);
            }
            3 => bytes.truncate(from),
            4 => {
                let start = random.random_range(0..=other.len());
                let end = (start + random.random_range(0..64)).min(other.len());
                bytes.splice(from..from, other[start..end].iter().copied());
            }
            _ => {
                // In the place of a whole number or word, where there is one.
                let word =
                    bytes[from..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
                let block = STUMBLING_BLOCKS[random.random_range(0..STUMBLING_BLOCKS.len())];
                bytes.splice(from..from + word, block.iter().copied());
            }
        }
    }
    bytes
}

fn mutations() -> usize {
    let asked = std::env::var("ROLLFORGE_MUTATIONS").ok();
    asked.map_or(MUTATIONS, |number| number.parse().expect("ROLLFORGE_MUTATIONS is a number"))
}

/// Tries every input of a corpus, and changed copies of it. The same ones each time.
fn try_corpus(target: fuzz::Target) {
    let inputs: Vec<Vec<u8>> =
        paths(&format!("corpus/{}", target.0)).iter().map(|path| fs::read(path).unwrap()).collect();
    let mut random = ChaCha8Rng::seed_from_u64(0);
    for input in &inputs {
        try_one(target, input);
        for _ in 0..mutations() {
            let other = &inputs[random.random_range(0..inputs.len())];
            try_one(target, &changed(input, other, &mut random));
        }
    }
}

#[test]
fn no_input_makes_a_parser_panic() {
    let panics = |target: &fuzz::Target| catch_unwind(|| try_corpus(*target)).is_err();
    let panicked: Vec<&str> =
        fuzz::TARGETS.iter().filter(|target| panics(target)).map(|(name, _)| *name).collect();
    assert!(panicked.is_empty(), "{panicked:?}");
}

#[test]
fn every_target_has_a_corpus_and_a_place_in_the_table() {
    let table: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).into()).collect();
    for folder in ["targets", "corpus"] {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        assert_eq!(paths(folder).into_iter().map(stem).collect::<BTreeSet<_>>(), table);
    }
}
