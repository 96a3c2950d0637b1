//! Hugging Face model directories in and out. No tensor library: names, shapes and bytes.

mod spec;

pub use spec::{Family, Head, ModelSpec, RopeScaling};
