//! What the parts must do together.

mod export;
mod gradient;
mod optimizer;
mod scoring;
