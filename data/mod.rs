//! JSON Lines and Parquet rows into prompts, completions and preference pairs.
//!
//! [`load_train`] and [`load_eval`] read the files of a [`DataConfig`] into one kind of [`Sample`]. A file that is broken
//! or lacks a column is an error; a row that cannot be used is counted in the [`Report`], with its place. [`Order`] says
//! which sample is next, [`pack`] which sequences go together.
//!
//! Data sets of other shapes have a [`Schema`]: [`check()`] says what is in them, [`convert()`] makes them ours.
//!
//! ```no_run
//! use rollforge::{data::{self, DataConfig, SftSample, TextEncoder}, model::Model};
//!
//! let model = Model::open("base".as_ref())?;
//! let config = DataConfig::new(vec!["train.jsonl".into()]);
//! let template = model.chat_template.as_ref();
//! let encoder = TextEncoder::new(&config, model.tokenizer()?, template, &model.generation)?;
//! let loaded = data::load_train::<SftSample>(&config, &encoder)?;
//! println!("{}: {} tokens", loaded.report, loaded.samples[0].tokens.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attributes;
mod chat;
mod check;
mod columns;
mod config;
mod convert;
mod encoder;
mod error;
mod examples;
mod jsonl;
mod load;
mod order;
mod output;
mod packing;
mod parquet;
mod question;
mod rated;
mod reader;
mod report;
mod row;
mod sample;
mod schema;
mod taught;

pub use attributes::Attributes;
pub use check::{Check, CheckOptions, FileCheck, Lengths, Overlap, Refused, check};
pub use columns::FoundColumns;
pub(crate) use config::one_or_many;
pub use config::{Columns, DataConfig, OverLong};
pub use convert::{Converted, convert};
pub use encoder::{Fit, TextEncoder};
pub use error::Error;
pub use examples::Reading;
pub use load::{Loaded, load_eval, load_train};
pub use order::{Cursor, CursorError, Order};
pub use output::RowFile;
pub use packing::pack;
pub use question::QuestionSample;
pub use rated::{JudgedSample, RatedLayout, RatedSample, rated_attributes};
pub use reader::{Rows, open_rows, read_rows};
pub use report::{Report, Unusable};
pub use row::{Place, Row};
pub use sample::{
    DemonstrationSample, LabeledLayout, LabeledSample, PairLayout, PairSample, PromptSample,
    Response, ResponsesLayout, ResponsesSample, Sample, SftLayout, SftSample,
};
pub use schema::{ATTRIBUTES, Example, Form, Meaning, Schema, Task, UnknownName};
pub use taught::TaughtSample;

#[cfg(test)]
mod tests;
