//! Runs every algorithm on one small task, each beside its negative control, prints what came of it as a table, and fails if one
//! did not learn or learned from nothing: `cargo run --release --example learning`, or only those whose names hold a word:
//! `cargo run --release --example learning -- DPO`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example may print and fail")]

#[cfg(feature = "libtorch")]
mod attributes;
#[cfg(feature = "libtorch")]
mod cases;
#[cfg(feature = "libtorch")]
#[path = "../../tests/support/world.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod world;

#[cfg(feature = "libtorch")]
fn main() -> std::process::ExitCode {
    use cases::{CASES, CONTROL, LEARNED, Learned};

    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let world = cases::world();
    let mut missed = false;
    println!("| algorithm | start | end | control | seconds |");
    println!("|---|---:|---:|---:|---:|");
    for case in CASES {
        if !wanted.is_empty() && !wanted.iter().any(|word| case.name.contains(word.as_str())) {
            continue;
        }
        let Learned { start, end, control, seconds } = case.run(&world);
        println!("| {} | {start:.2} | {end:.2} | {control:.2} | {seconds:.1} |", case.name);
        missed |= end < LEARNED || control > CONTROL;
    }
    std::process::ExitCode::from(u8::from(missed))
}

#[cfg(not(feature = "libtorch"))]
fn main() {
    println!("needs the feature `libtorch`");
}
