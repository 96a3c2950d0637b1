//! What the parts must do together.

mod algorithms;
mod export;
mod gradient;
mod learns;
mod optimizer;
mod passes;
mod scoring;
