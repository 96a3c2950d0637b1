//! Whole runs through the library: how they overlap, what they leave behind, how they stop and go on, what they refuse.

#![cfg(feature = "libtorch")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "../support/world.rs"]
mod world;

mod constitution;
mod correction;
mod distill;
mod dpo;
mod eval;
mod evaluation;
mod faults;
mod kto;
mod lora;
mod modes;
mod page;
mod plan;
mod recipes;
mod record;
mod refill;
mod regression;
mod resume;
mod rewards;
mod spin;
mod steerlm;
mod steerlm2;
