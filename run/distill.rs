//! Knowledge distillation, as a run.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::{
    Launch,
    models::{self, Wanted},
    offline::{self, Algorithm, Lessons, Passes},
    plan::Length,
    reference,
};
use crate::{
    config::DistillConfig,
    data::SftSample,
    model::Model,
    trainer::{
        batch::MaskedSequence,
        config::DistillOptions,
        distill::{Answers, DistillStats, TaughtSequence},
    },
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct DistillOutcome {
    /// The model directory that was written last.
    pub policy: PathBuf,
    /// On held-out sequences, where there are any.
    pub evaluation: Option<DistillStats>,
}

/// Teaches a student what a teacher would say, and writes it into the run directory. The teacher is asked first, and is gone
/// before the student is loaded.
///
/// # Errors
/// As [`super::sft`]; when teacher and student have not the same tokenizer, or fewer tokens than are to be compared.
pub fn distill(config: &DistillConfig, launch: Launch<'_>) -> Result<DistillOutcome> {
    let lengths = |samples: &[SftSample]| samples.iter().map(Length::of_text).collect();
    let (ready, begun) = offline::begin(config, &launch, lengths)?;
    let [train, held_out] = [&begun.samples.train, &begun.samples.eval]
        .map(|samples| samples.iter().map(sequence).collect::<Vec<_>>());
    let sequences = Lessons { train, held_out };
    let answers = match &config.model.teacher {
        Some(teacher) => ask(config, &begun.base, teacher, &sequences)?,
        None => Lessons { train: Vec::new(), held_out: Vec::new() },
    };
    let student = offline::learner(config, &begun.base, Wanted::LanguageModel)?;
    let lessons = Lessons {
        train: taught(&sequences.train, &answers.train),
        held_out: taught(&sequences.held_out, &answers.held_out),
    };
    let outcome = offline::train(config, launch, (ready, &begun), student, &lessons)?;
    Ok(DistillOutcome { policy: outcome.written, evaluation: outcome.evaluation })
}

/// Asks a teacher about all sequences that are trained or measured on.
fn ask(
    config: &DistillConfig,
    base: &Model,
    path: &Path,
    sequences: &Lessons<MaskedSequence<'_>>,
) -> Result<Lessons<Answers>> {
    let options = &config.distill;
    let all = sequences.train.iter().chain(&sequences.held_out);
    let longest = all.map(|sequence| sequence.tokens.len()).max().unwrap_or_default();
    let (vocab, tops) = (base.spec().vocab_size, options.top_k);
    check_top_k(base, tops)?;
    check_top_k(&models::open(path)?, tops)?;
    let teacher = reference::load(path, base, longest, &offline::learning(config).options())?;
    let mut train = vec![Answers::default(); sequences.train.len()];
    for dealt in reference::first_epoch(config, sequences.train.len()) {
        let batch: Vec<_> = dealt.iter().map(|&i| sequences.train[i]).collect();
        let answers = options.ask(&teacher, &batch, true)?;
        dealt.into_iter().zip(answers).for_each(|(i, answers)| train[i] = answers);
    }
    let held_out = options.ask(&teacher, &sequences.held_out, false)?;
    // Tokenizers are the same, but rows of an embedding that no token has may be more of the teacher's.
    let ids = train.iter().chain(&held_out).flat_map(|answers| &answers.top.ids);
    let largest = ids.max().copied().unwrap_or_default();
    ensure!(
        (largest as usize) < vocab,
        "{}: its most probable tokens must be below the student's vocabulary of {vocab}, got {largest}",
        path.display()
    );
    Ok(Lessons { train, held_out })
}

fn check_top_k(model: &Model, top_k: usize) -> Result<()> {
    let vocab = model.spec().vocab_size;
    ensure!(
        top_k <= vocab,
        "distill.top_k must be at most the vocabulary of {}, {vocab}, got {top_k}",
        model.checkpoint.dir().display()
    );
    Ok(())
}

impl Algorithm for DistillOptions {
    const STAGE: &'static str = "distill";
    const MODEL: &'static str = "policy";

    fn passes(&self) -> Passes {
        let Self { epochs, max_steps, batch_size, eval_every, .. } = *self;
        Passes { epochs, max_steps, batch_size, eval_every }
    }

    fn tokens(sample: &TaughtSequence<'_>) -> usize {
        sample.sequence.tokens.len()
    }
}

fn sequence(sample: &SftSample) -> MaskedSequence<'_> {
    MaskedSequence { tokens: &sample.tokens, mask: &sample.loss_mask }
}

fn taught<'a>(sequences: &[MaskedSequence<'a>], answers: &'a [Answers]) -> Vec<TaughtSequence<'a>> {
    let pairs = sequences.iter().zip(answers);
    pairs.map(|(&sequence, answers)| TaughtSequence { sequence, answers }).collect()
}
