//! Constitutional AI (Bai et al., 2022), but for the training: a model's own critique makes the data.
//!
//! ```text
//! revise, for each prompt                                              section 3.1
//!     answer   = the model's
//!     critique = the model's, of the answer by a principle
//!     revision = the model's, given prompt, answer and critique
//! compare, for each prompt                                             section 4.1
//!     a, b     = two answers of the model's
//!     chosen   = the one of which the model finds it more probable that it follows a principle better
//! ```
//!
//! Revisions are for `rollforge sft`, pairs for `rollforge rm` and `rollforge dpo`.

mod compare;
mod principles;
mod revise;
mod talk;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Metrics, Observer, Stop, Stopped, durable::replace_file, model_directory, samples};
use crate::{
    config::{ConstitutionConfig, Stage},
    data::QuestionSample,
    engine::{Engine, EngineConfig},
    model::Model,
};
use compare::compare;
use principles::Principles;
use revise::Reviser;
use talk::Talk;

/// So many prompts are talked about at a time.
const CHUNK: usize = 128;

const REVISIONS: &str = "revisions.jsonl";
const PAIRS: &str = "pairs.jsonl";

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConstitutionOutcome {
    /// The files, and how many rows each has.
    pub files: Vec<(PathBuf, usize)>,
    /// Prompts that gave no pair, by what became of them.
    pub without_pair: BTreeMap<&'static str, usize>,
}

/// Rows of both files.
#[derive(Default)]
struct Rows {
    revisions: Vec<Value>,
    pairs: Vec<Value>,
    without_pair: BTreeMap<&'static str, usize>,
}

impl Rows {
    fn leave_out(&mut self, why: &'static str) {
        *self.without_pair.entry(why).or_default() += 1;
    }
}

/// Has a model revise its answers, or compare them, and writes what comes of it; files that are there already are
/// replaced only if `replace` says so. They are there whole at the end, or not at all.
///
/// # Errors
/// One line that says what is wrong with model, prompts, principles or folder; when the engine fails, or no prompt gives a
/// pair; and [`Stopped`].
pub fn constitution(
    config: &ConstitutionConfig,
    observer: &mut dyn Observer,
    (stop, replace): (&Stop, bool),
) -> Result<ConstitutionOutcome> {
    let options = &config.constitution;
    let names: &[&str] = match options.stage {
        Stage::Revise => &[REVISIONS, PAIRS],
        Stage::Compare => &[PAIRS],
    };
    for path in names.iter().map(|name| config.output_dir.join(name)) {
        ensure!(replace || !path.exists(), "{}: exists already", path.display());
    }
    let mut principles = Principles::read(&options.principles, options.stage, config.seed)?;
    let examples = options.examples.as_deref().map(principles::examples).transpose()?;
    let model = Model::open(&model_directory(&config.model.path))?;
    let read = samples::read::<QuestionSample>(&config.data.as_train(), &model)?;
    let mut talk = talk(config, &model)?;
    let reviser = Reviser { examples: examples.unwrap_or_default(), rounds: options.revisions };

    let chunks = read.train.chunks(CHUNK);
    observer.start("constitution", chunks.len() as u64);
    read.reports.iter().for_each(|line| observer.note(line));
    let mut rows = Rows::default();
    for (step, prompts) in (1..).zip(chunks) {
        if let Some(by) = stop.requested() {
            bail!(Stopped { by, place: "nothing was written".into() });
        }
        match options.stage {
            Stage::Revise => reviser.revise(&mut talk, &mut principles, prompts, &mut rows)?,
            Stage::Compare => compare(&mut talk, &mut principles, prompts, &mut rows)?,
        }
        observer.step(step, &Metrics::new().with("pairs", rows.pairs.len() as f64));
    }
    observer.finish();
    ensure!(!rows.pairs.is_empty(), "no prompt gave a pair: {}", described(&rows.without_pair));
    fs::create_dir_all(&config.output_dir)
        .with_context(|| format!("cannot write {}", config.output_dir.display()))?;
    let mut files = Vec::new();
    for name in names {
        let rows = if *name == PAIRS { &rows.pairs } else { &rows.revisions };
        let path = config.output_dir.join(name);
        write(&path, rows)?;
        files.push((path, rows.len()));
    }
    Ok(ConstitutionOutcome { files, without_pair: rows.without_pair })
}

/// Says what became of prompts: "3 too long, 1 no answer".
pub(crate) fn described(counts: &BTreeMap<&'static str, usize>) -> String {
    let parts: Vec<String> = counts.iter().map(|(why, count)| format!("{count} {why}")).collect();
    parts.join(", ")
}

fn talk<'a>(config: &ConstitutionConfig, model: &'a Model) -> Result<Talk<'a>> {
    let threads = match config.engine.threads {
        0 => config.threads,
        threads => threads,
    };
    let dtype = config.model.dtype.into();
    let options = EngineConfig { threads, dtype, ..config.engine.clone() };
    let engine = Engine::builder().config(options).model_dir(model.checkpoint.dir()).build()?;
    Talk::new(
        (engine, model.tokenizer()?),
        model.chat_template.as_ref(),
        config.constitution.format,
        config.sampling.params(config.seed, 1),
        model.spec().max_positions,
    )
}

fn write(path: &Path, rows: &[Value]) -> Result<()> {
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    replace_file(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
