//! What the parts must do together.

mod algorithms;
mod distill;
mod export;
mod gradient;
mod learns;
mod optimizer;
mod passes;
mod regression;
mod scoring;
