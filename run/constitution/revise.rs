//! An answer, what is wrong with it, and a better one.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Rows,
    principles::Principles,
    talk::{Talk, turn},
};
use crate::data::QuestionSample;

/// How answers are revised.
pub(super) struct Reviser {
    /// Turns to put before each conversation.
    pub(super) examples: Vec<Value>,
    /// How often an answer is revised.
    pub(super) rounds: usize,
}

/// A prompt, and what has been said of it so far.
struct Case<'a> {
    prompt: &'a [Value],
    /// The first answer and its revisions.
    answers: Vec<String>,
    critiques: Vec<String>,
}

impl Reviser {
    /// Has the model answer, criticise and revise; and writes each last revision down, alone and as preferred over the
    /// first answer.
    pub(super) fn revise(
        &self,
        talk: &mut Talk<'_>,
        principles: &mut Principles,
        prompts: &[QuestionSample],
        rows: &mut Rows,
    ) -> Result<()> {
        let turns: Vec<Vec<Value>> = prompts.iter().map(|prompt| prompt.turns.clone()).collect();
        let mut cases = Vec::new();
        for (prompt, said) in prompts.iter().zip(talk.say::<1>(&turns)?) {
            match said {
                Some([answer]) => cases.push(Case {
                    prompt: &prompt.turns,
                    answers: vec![answer],
                    critiques: Vec::new(),
                }),
                None => rows.leave_out("without an answer"),
            }
        }
        for _ in 0..self.rounds {
            let drawn: Vec<_> = cases.iter().map(|_| principles.draw()).collect();
            let asked = cases
                .iter()
                .zip(&drawn)
                .map(|(case, principle)| self.about(case, [turn("user", &principle.critique)]));
            let critiques = talk.say::<1>(&asked.collect::<Vec<_>>())?;
            let criticised = keep(cases, critiques, rows, "without a critique");
            let asked = criticised.iter().map(|(which, case, critique)| {
                let revision = turn("user", &drawn[*which].revision);
                let critique =
                    [turn("user", &drawn[*which].critique), turn("assistant", critique), revision];
                self.about(case, critique)
            });
            let revisions = talk.say::<1>(&asked.collect::<Vec<_>>())?;
            let (critiques, before): (Vec<_>, Vec<_>) =
                criticised.into_iter().map(|(_, case, critique)| (critique, case)).unzip();
            let revised = keep(before, revisions, rows, "without a revision");
            cases = revised
                .into_iter()
                .map(|(which, mut case, revision)| {
                    case.answers.push(revision);
                    case.critiques.push(critiques[which].clone());
                    case
                })
                .collect();
        }
        for case in &cases {
            write(talk, case, rows);
        }
        Ok(())
    }

    /// Returns the conversation about the latest answer: examples, prompt, answer, and what is asked of it.
    fn about<const N: usize>(&self, case: &Case<'_>, asked: [Value; N]) -> Vec<Value> {
        let latest = case.answers.last().map_or("", String::as_str);
        let mut turns = [&self.examples, case.prompt].concat();
        turns.push(turn("assistant", latest));
        turns.extend(asked);
        turns
    }
}

/// Keeps the cases of which something was said, with where they stood and what it was.
fn keep<'a>(
    cases: Vec<Case<'a>>,
    said: Vec<Option<[String; 1]>>,
    rows: &mut Rows,
    otherwise: &'static str,
) -> Vec<(usize, Case<'a>, String)> {
    let all = cases.into_iter().zip(said).enumerate();
    all.filter_map(|(which, (case, said))| match said {
        Some([said]) => Some((which, case, said)),
        None => {
            rows.leave_out(otherwise);
            None
        }
    })
    .collect()
}

fn write(talk: &Talk<'_>, case: &Case<'_>, rows: &mut Rows) {
    let Case { prompt, answers, critiques } = case;
    let (Some(first), Some(last)) = (answers.first(), answers.last()) else { return };
    let (shown, revision) = talk.row(prompt, last);
    rows.revisions.push(json!({
        "prompt": shown, "completion": revision, "answers": answers, "critiques": critiques,
    }));
    if first == last {
        rows.leave_out("revised to the same");
        return;
    }
    let (_, answer) = talk.row(prompt, first);
    rows.pairs.push(json!({ "prompt": shown, "chosen": revision, "rejected": answer }));
}
