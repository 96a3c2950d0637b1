//! `rollforge annotate`: a data set with what an attribute model thinks of its completions.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::{
    Metrics, Observer, RowPass,
    models::{self, Wanted},
};
use crate::{
    data::{self, JudgedSample, Loaded, Report, RowFile, TextEncoder},
    trainer::reward_model,
};

/// Rows whose ratings are written together.
const CHUNK: usize = 256;

/// What is rated, by whom, and how.
#[derive(Clone, Debug)]
pub struct AnnotateOptions {
    /// The attribute model, and the rows.
    pub rows: RowPass,
    /// Replace ratings that rows have already; without it they are refused.
    pub rerate: bool,
    /// What ratings are made of scores.
    pub scale: Scale,
}

/// What ratings there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Ratings are multiples of it; 0 leaves scores as they are.
    pub step: f64,
    /// The lowest rating and the highest.
    pub range: (f64, f64),
}

impl Default for Scale {
    /// Whole numbers from 0 to 4, as HelpSteer has them.
    fn default() -> Self {
        Self { step: 1.0, range: (0.0, 4.0) }
    }
}

impl Scale {
    /// Makes a rating of a score: a whole number where it is one.
    fn rate(self, score: f32) -> Value {
        let score = f64::from(score);
        let stepped = match self.step {
            0.0 => score,
            // Without what binary fractions leave behind: 0.3, not 0.30000000000000004.
            step => ((score / step).round() * step * 1e6).round() / 1e6,
        };
        let rating = stepped.clamp(self.range.0, self.range.1);
        if rating.fract() == 0.0 { json!(rating as i64) } else { json!(rating) }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Annotated {
    /// How many rows were read, and which could not be used.
    pub report: Report,
    /// What is rated, and the mean rating of each.
    pub means: Vec<(String, f64)>,
}

/// Writes the rows of a file again, with a column for each attribute of a model. The output is there whole at the end, or
/// not at all.
///
/// # Errors
/// When the model rates no named attributes, the rows cannot be read or have such columns already, or the output cannot be
/// written.
pub fn annotate(options: &AnnotateOptions, observer: &mut dyn Observer) -> Result<Annotated> {
    let Scale { step, range: (low, high) } = options.scale;
    ensure!(step >= 0.0 && step.is_finite(), "the step must be a number from 0 up, got {step}");
    let ordered = low <= high && low.abs() <= 1e15 && high.abs() <= 1e15;
    ensure!(ordered, "the range must be from a number to one not below it, got {low}..{high}");
    let rows = &options.rows;
    let mut output = RowFile::create(&rows.output, rows.replace)?;
    models::use_threads(rows.threads)?;
    let opened = models::open(&rows.model)?;
    let attributes = &opened.spec().labels;
    let frozen = rows.frozen();
    let model = models::load(&opened, Wanted::Scores, &frozen)?;
    ensure!(
        !attributes.is_empty(),
        "{}: its label must have a name (id2label in config.json), for columns are called by it",
        opened.checkpoint.dir().display()
    );
    let config = rows.data(opened.spec().max_positions);
    let template = opened.chat_template.as_ref();
    let encoder = TextEncoder::new(&config, opened.tokenizer()?, template, &opened.generation)?;
    let Loaded { samples, report } = data::load_train::<JudgedSample>(&config, &encoder)?;
    if !options.rerate {
        samples.iter().try_for_each(|sample| unrated(sample, attributes))?;
    }

    observer.start("annotate", samples.len() as u64);
    let mut sums = vec![0.0; attributes.len()];
    let mut done = 0;
    for chunk in samples.chunks(CHUNK) {
        let sequences: Vec<&[u32]> = chunk.iter().map(|sample| &sample.tokens[..]).collect();
        let budget = rows.micro_batch_tokens;
        let scores = reward_model::rate(&model, attributes.len(), &sequences, budget)?;
        for (sample, scores) in chunk.iter().zip(scores.chunks_exact(attributes.len())) {
            let finite = scores.iter().all(|score| score.is_finite());
            ensure!(finite, "{}: the model's ratings must be finite, got {scores:?}", sample.place);
            let ratings = scores.iter().map(|&score| options.scale.rate(score));
            output.write(&annotated(&sample.columns, attributes, ratings, &mut sums))?;
        }
        done += chunk.len();
        observer.step(done as u64, &Metrics::new());
    }
    observer.finish();
    output.finish()?;
    let mean = |(name, sum): (&String, f64)| (name.clone(), sum / samples.len() as f64);
    Ok(Annotated { report, means: attributes.iter().zip(sums).map(mean).collect() })
}

/// Checks that a row has no rating that would be lost.
fn unrated(sample: &JudgedSample, attributes: &[String]) -> Result<()> {
    let has = |name: &&String| sample.columns.get(*name).is_some_and(|value| !value.is_null());
    let rated = attributes.iter().find(has);
    rated.map_or(Ok(()), |name| {
        None.with_context(|| {
            format!(
                "{}: column {name:?} must not be there yet (--rerate replaces it)",
                sample.place
            )
        })
    })
}

/// Returns a row with its ratings, and adds them up.
fn annotated(
    columns: &Map<String, Value>,
    attributes: &[String],
    ratings: impl Iterator<Item = Value>,
    sums: &mut [f64],
) -> Map<String, Value> {
    let mut row = columns.clone();
    for ((name, rating), sum) in attributes.iter().zip(ratings).zip(sums) {
        *sum += rating.as_f64().unwrap_or_default();
        row.insert(name.clone(), rating);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratings_are_steps_within_the_range() {
        let whole = Scale::default();
        let rated = [-0.7, 0.4, 1.5, 3.49, 9.0].map(|score| whole.rate(score));
        assert_eq!(rated, [json!(0), json!(0), json!(2), json!(3), json!(4)]);
        let tenths = Scale { step: 0.1, range: (-1.0, 1.0) };
        assert_eq!(tenths.rate(0.31).to_string(), "0.3");
        assert_eq!(tenths.rate(-7.0).to_string(), "-1");
        let raw = Scale { step: 0.0, ..whole };
        assert_eq!(raw.rate(0.25).to_string(), "0.25");
    }
}
