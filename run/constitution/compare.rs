//! Two answers, and which of them the model finds better by a principle.

use anyhow::Result;
use serde_json::json;

use super::{
    Rows,
    principles::Principles,
    talk::{Talk, plain, turn},
};
use crate::data::QuestionSample;

/// What the model may say, each as likely to be first.
const OPTIONS: [&str; 2] = ["A", "B"];

/// Has the model answer twice and choose, by how probable it finds each letter as the answer to a multiple-choice question
/// (Bai et al., 2022, section 4.1), in both orders: which stands first does not count.
pub(super) fn compare(
    talk: &mut Talk<'_>,
    principles: &mut Principles,
    prompts: &[QuestionSample],
    rows: &mut Rows,
) -> Result<()> {
    let turns: Vec<_> = prompts.iter().map(|prompt| prompt.turns.clone()).collect();
    let (mut cases, mut questions) = (Vec::new(), Vec::new());
    for (prompt, said) in prompts.iter().zip(talk.say::<2>(&turns)?) {
        let Some([a, b]) = said else {
            rows.leave_out("without an answer");
            continue;
        };
        if a == b {
            rows.leave_out("answered twice the same");
            continue;
        }
        let principle = principles.draw().comparison;
        for [first, second] in [[&a, &b], [&b, &a]] {
            let asked = question(&plain(&prompt.turns), &principle, [first, second]);
            questions.push((talk.begin(&[turn("user", &asked)], "(")?, OPTIONS));
        }
        cases.push((prompt, [a, b]));
    }
    let weights = talk.weigh(&questions)?;
    for ((prompt, answers), orders) in cases.iter().zip(weights.chunks_exact(2)) {
        let (Some([a1, b1]), Some([b2, a2])) = (orders[0], orders[1]) else {
            rows.leave_out("too long to be compared");
            continue;
        };
        let log_odds = ((a1 - b1) + (a2 - b2)) / 2.0;
        let [better, worse] = if log_odds >= 0.0 { [0, 1] } else { [1, 0] };
        let (shown, chosen) = talk.row(&prompt.turns, &answers[better]);
        let (_, rejected) = talk.row(&prompt.turns, &answers[worse]);
        rows.pairs.push(json!({
            "prompt": shown, "chosen": chosen, "rejected": rejected, "log_odds": log_odds.abs(),
        }));
    }
    Ok(())
}

fn question(conversation: &str, principle: &str, [a, b]: [&str; 2]) -> String {
    let conversation = conversation.trim_start().trim_end_matches("\n\nAssistant:");
    format!(
        "Consider the following conversation:\n\n{conversation}\n\n{principle}\n\n(A) {a}\n(B) {b}\n\nThe answer is:"
    )
}
