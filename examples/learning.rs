//! Runs every algorithm on one small task, each beside its negative control, and prints what came of it as a table:
//! `cargo run --release --example learning`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example may print and fail")]

#[cfg(feature = "libtorch")]
#[path = "../tests/support/learning.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod learning;
#[cfg(feature = "libtorch")]
#[path = "../tests/support/world.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod world;

#[cfg(feature = "libtorch")]
fn main() {
    let world = learning::world();
    println!("| algorithm | start | end | control | seconds |");
    println!("|---|---:|---:|---:|---:|");
    for case in learning::CASES {
        let learning::Learned { start, end, control, seconds } = case.run(&world);
        println!("| {} | {start:.2} | {end:.2} | {control:.2} | {seconds:.1} |", case.name);
    }
}

#[cfg(not(feature = "libtorch"))]
fn main() {
    println!("needs the feature `libtorch`");
}
