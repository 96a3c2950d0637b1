//! `rollforge teach`: a data set with what a teacher says of each token, for `rollforge distill`.

use anyhow::{Result, ensure};
use serde_json::{Map, Number, Value, json};

use super::{
    Metrics, Observer, RowPass,
    distill::check_top_k,
    models::{self, Wanted},
};
use crate::{
    data::{self, Loaded, Report, RowFile, SftSample, TextEncoder},
    trainer::{batch::MaskedSequence, config::DistillOptions, learner::TopLogprobs},
};

/// Rows that go through the teacher together.
const CHUNK: usize = 64;

/// What is taught, by whom, and how.
#[derive(Clone, Debug)]
pub struct TeachOptions {
    /// The teacher, and the rows: what supervised fine-tuning takes.
    pub rows: RowPass,
    /// Answers to each token.
    pub top_k: usize,
}

/// Writes the rows of a file as token ids with a teacher's most probable tokens, in NeMo-Aligner's columns; logits are log-probs, so that
/// the logarithm of the sum of all exponentials is 0. The output is there whole at the end, or not at all. Returns what became of
/// the rows.
///
/// # Errors
/// When the teacher cannot be used or has fewer tokens than asked for, the rows cannot be read, or the output cannot be written.
pub fn teach(options: &TeachOptions, observer: &mut dyn Observer) -> Result<Report> {
    let rows = &options.rows;
    let asking = DistillOptions {
        top_k: options.top_k,
        micro_batch_tokens: rows.micro_batch_tokens,
        ..DistillOptions::default()
    };
    asking.validate()?;
    let mut output = RowFile::create(&rows.output, rows.replace)?;
    models::use_threads(rows.threads)?;
    let opened = models::open(&rows.model)?;
    check_top_k("--top-k", &opened, options.top_k)?;
    let config = rows.data(opened.spec().max_positions);
    let template = opened.chat_template.as_ref();
    let encoder = TextEncoder::new(&config, opened.tokenizer()?, template, &opened.generation)?;
    let Loaded { samples, report } = data::load_train::<SftSample>(&config, &encoder)?;
    let frozen = rows.frozen();
    let teacher = models::load(&opened, Wanted::LanguageModel, &frozen)?;

    observer.start("teach", samples.len() as u64);
    let all = vec![true; config.max_tokens];
    let mut done = 0;
    for chunk in samples.chunks(CHUNK) {
        // Every token has answers in these columns, those that are not learned too.
        let whole = |sample: &'_ SftSample| sample.tokens.len();
        let sequences: Vec<_> = chunk
            .iter()
            .map(|sample| MaskedSequence { tokens: &sample.tokens, mask: &all[..whole(sample)] })
            .collect();
        for (sample, answers) in chunk.iter().zip(asking.ask(&teacher, &sequences, false)?) {
            let finite = answers.top.logprobs.iter().all(|logprob| logprob.is_finite());
            ensure!(
                finite,
                "{}: log-probs of its most probable tokens must be finite",
                opened.checkpoint.dir().display()
            );
            output.write(&row(sample, &answers.top, options.top_k))?;
        }
        done += chunk.len();
        observer.step(done as u64, &Metrics::new());
    }
    observer.finish();
    output.finish()?;
    Ok(report)
}

/// Returns a sample as a row of NeMo-Aligner's columns.
fn row(sample: &SftSample, top: &TopLogprobs, each: usize) -> Map<String, Value> {
    let SftSample { tokens, loss_mask } = sample;
    let mask: Vec<u8> = loss_mask[1..].iter().map(|&counts| u8::from(counts)).collect();
    let logits = top.logprobs.chunks_exact(each).map(|row| row.iter().map(short).collect());
    let columns = [
        ("tokens", json!(tokens[..tokens.len() - 1])),
        ("labels", json!(tokens[1..])),
        ("loss_mask", json!(mask)),
        ("topk_logits", Value::Array(logits.collect())),
        ("topk_token_ids", json!(top.ids.chunks_exact(each).collect::<Vec<_>>())),
        ("log_sum_exp_logits", json!(vec![0.0; mask.len()])),
    ];
    columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Returns the shortest number that reads back as this f32.
fn short(number: &f32) -> Value {
    let shortest = number.to_string().parse().ok().and_then(Number::from_f64);
    shortest.map_or(Value::Null, Value::Number)
}
