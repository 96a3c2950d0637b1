//! Rows that carry what a teacher said of their tokens.

use serde_json::Value;

use super::{
    Columns, Error, Sample, TextEncoder,
    columns::FoundColumns,
    encoder::{Fit, Tokens},
    row::{Place, Row},
};

/// By how much a token's candidates may be more probable than all tokens together: logits that were rounded to bf16.
const ROUNDING: f64 = 1.1;

/// A sequence with a teacher's most probable tokens at each token to learn.
///
/// From NeMo-Aligner's columns, `S` tokens with `K` answers each: `tokens[S]`, `labels[S]` (the token after each),
/// `loss_mask[S]` (of the labels), `topk_logits[S][K]`, `topk_token_ids[S][K]` and `log_sum_exp_logits[S]`. What comes after the
/// last label that counts is padding.
#[derive(Clone, Debug, PartialEq)]
pub struct TaughtSample {
    /// The tokens and the last label.
    pub tokens: Vec<u32>,
    /// Whether each of them is to be learned.
    pub loss_mask: Vec<bool>,
    /// How many answers there are to each.
    pub each: usize,
    /// The ids of the answers, of one token that is to be learned after the other.
    pub ids: Vec<u32>,
    /// Their log-probs (nats): logits less the logarithm of the sum of all exponentials.
    pub logprobs: Vec<f32>,
    /// Where it comes from.
    pub place: Place,
}

const COLUMNS: [&str; 6] =
    ["tokens", "labels", "loss_mask", "topk_logits", "topk_token_ids", "log_sum_exp_logits"];

impl Sample for TaughtSample {
    type Layout = ();

    const ROWS_AT_A_TIME: usize = 8;

    fn layout(found: &FoundColumns<'_>, _: &Columns) -> Result<(), Error> {
        COLUMNS.iter().try_for_each(|name| found.fixed(name))
    }

    fn of(mut row: Row, (): &(), encoder: &TextEncoder<'_>) -> Result<(Self, Fit), String> {
        let [tokens, labels, mask, logits, ids, sums] =
            COLUMNS.map(|name| (name, row.columns.shift_remove(name)));
        let (tokens, labels) = (ids_of(list(tokens)?)?, ids_of(list(labels)?)?);
        let (mask, sums) = (mask_of(list(mask)?)?, numbers_of(list(sums)?)?);
        let (logits, ids) = (list(logits)?.1, list(ids)?.1);
        let lengths = [labels.len(), mask.len(), sums.len(), logits.len(), ids.len()];
        if lengths.iter().any(|&length| length != tokens.len()) {
            return Err("columns differ in how many tokens they have".into());
        }
        let end = mask.iter().rposition(|&counts| counts).ok_or("no token to train on")? + 1;
        if (1..end).any(|t| labels[t - 1] != tokens[t]) {
            return Err("a label is not the next token".into());
        }
        let mut sequence = Tokens {
            ids: tokens[..end].iter().chain(&labels[end - 1..end]).copied().collect(),
            mask: std::iter::once(&false).chain(&mask[..end]).copied().collect(),
        };
        let fit = encoder.fit(&mut sequence)?;
        let Tokens { ids: tokens, mask: loss_mask } = sequence;
        let mut sample =
            Self { tokens, loss_mask, each: 0, ids: vec![], logprobs: vec![], place: row.place };
        let rows = logits.into_iter().zip(ids).zip(sums).zip(&sample.loss_mask[1..]);
        let rows: Vec<_> = rows.filter(|(_, counts)| **counts).map(|(row, _)| row).collect();
        for ((logits, ids), sum) in rows {
            sample.answer(("topk_logits", Some(logits)), ("topk_token_ids", Some(ids)), sum)?;
        }
        match sample.ids.is_empty() {
            true => Err("no token to train on".into()),
            false => Ok((sample, fit)),
        }
    }
}

/// A column's name, and what a row has there.
type Column = (&'static str, Option<Value>);

impl TaughtSample {
    /// Takes the answers to the next token.
    fn answer(&mut self, logits: Column, ids: Column, sum: f32) -> Result<(), String> {
        let (logits, ids) = (numbers_of(list(logits)?)?, ids_of(list(ids)?)?);
        if logits.len() != ids.len() {
            return Err("a token has not as many logits as ids".into());
        }
        if self.each == 0 {
            self.each = ids.len();
        }
        if ids.is_empty() || ids.len() != self.each {
            return Err("tokens must have one number of answers, at least 1".into());
        }
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("a token has the same id twice in column \"topk_token_ids\"".into());
        }
        let logprobs = logits.iter().map(|logit| logit - sum);
        let mass: f64 = logprobs.clone().map(|logprob| f64::from(logprob).exp()).sum();
        if mass.is_nan() || mass > ROUNDING {
            return Err("exponentials of \"topk_logits\" add up to more than that of \"log_sum_exp_logits\"".into());
        }
        self.logprobs.extend(logprobs);
        self.ids.extend(ids);
        Ok(())
    }
}

fn list((name, value): Column) -> Result<(&'static str, Vec<Value>), String> {
    match value {
        Some(Value::Array(list)) => Ok((name, list)),
        None | Some(Value::Null) => Err(format!("has no column {name:?}")),
        Some(_) => Err(format!("column {name:?} must be a list")),
    }
}

fn ids_of((name, list): (&str, Vec<Value>)) -> Result<Vec<u32>, String> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids: Option<Vec<u32>> = list.iter().map(id).collect();
    ids.ok_or_else(|| format!("column {name:?} must hold token ids"))
}

fn numbers_of((name, list): (&str, Vec<Value>)) -> Result<Vec<f32>, String> {
    let number = |value: &Value| value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
    let numbers: Option<Vec<f32>> = list.iter().map(number).collect();
    numbers.ok_or_else(|| format!("column {name:?} must hold finite numbers"))
}

/// Reads `true` and `false`, or 1 and 0.
fn mask_of((name, list): (&str, Vec<Value>)) -> Result<Vec<bool>, String> {
    let counts = |value: &Value| match value.as_bool() {
        Some(counts) => Some(counts),
        None => value.as_f64().filter(|x| [0.0, 1.0].contains(x)).map(|x| x == 1.0),
    };
    let mask: Option<Vec<bool>> = list.iter().map(counts).collect();
    mask.ok_or_else(|| format!("column {name:?} must hold 0 and 1"))
}
