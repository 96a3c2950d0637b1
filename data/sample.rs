//! Rows into samples: tokens, and what a task needs to know of them.

use serde_json::{Map, Value};

use super::{
    Columns, Error, TextEncoder, chat,
    columns::FoundColumns,
    encoder::{Fit, Piece, Tokens},
    row::{Content, Place, Row},
};
use crate::rollout::PromptTokens;

/// What a task is trained on.
pub trait Sample: Sized + Send {
    /// Which columns hold what.
    type Layout: Sync;

    /// How many rows are in memory at a time. Where that is not the whole file, its columns are those of the first so many.
    const ROWS_AT_A_TIME: usize = usize::MAX;

    /// How many tokens of a model's context a sample must leave free, for what is generated after it.
    const ROOM: usize = 0;

    /// Finds the columns.
    ///
    /// # Errors
    /// When one that is needed, or that the configuration names, is not there.
    fn layout(found: &FoundColumns<'_>, columns: &Columns) -> Result<Self::Layout, Error>;

    /// Makes a sample of a row.
    ///
    /// # Errors
    /// Says why the row cannot be one; the words are the same for all rows with the same flaw.
    fn of(
        row: Row,
        layout: &Self::Layout,
        encoder: &TextEncoder<'_>,
    ) -> Result<(Self, Fit), String>;
}

/// A prompt to complete.
///
/// From `prompt` (or NeMo's `input`, or `text`): text as it is, a conversation through the chat template, up to where
/// the assistant's turn begins.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptSample {
    /// Its tokens.
    pub tokens: PromptTokens,
    /// All other columns, for reward functions.
    pub extra: Map<String, Value>,
    /// Where it comes from.
    pub place: Place,
}

/// A sequence to imitate.
///
/// From `messages`; from `prompt` and `completion` (or NeMo's `input` and `output`); or from `text`: the first of these
/// that the file has, unless the configuration names a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SftSample {
    /// Prompt and completion.
    pub tokens: Vec<u32>,
    /// Whether each token belongs to a completion or an assistant's turn; of plain `text` all do but a leading BOS, and
    /// all do where the configuration says `completion_only = false`.
    pub loss_mask: Vec<bool>,
}

/// Two sequences, one better than the other.
///
/// From `chosen` and `rejected` (or NeMo's `chosen_response` and `rejected_response`), after `prompt` where there is
/// one; without it they are whole texts or conversations, and what both begin with is the prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PairSample {
    /// Prompt and better completion.
    pub chosen: Vec<u32>,
    /// Prompt and worse completion.
    pub rejected: Vec<u32>,
    /// Whether each token of `chosen` belongs to the completion.
    pub chosen_mask: Vec<bool>,
    /// Whether each token of `rejected` belongs to the completion.
    pub rejected_mask: Vec<bool>,
    /// By how much it is better, where the data say so.
    pub margin: Option<f32>,
    /// How good the better one is, where the data say so.
    pub chosen_reward: Option<f32>,
    /// How good the worse one is, where the data say so.
    pub rejected_reward: Option<f32>,
}

/// A completion that is good or bad.
///
/// From `prompt`, `completion` and `label` (or NeMo's `preference`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabeledSample {
    /// Prompt and completion.
    pub tokens: Vec<u32>,
    /// Whether each token belongs to the completion.
    pub loss_mask: Vec<bool>,
    /// Whether it is a good one.
    pub desirable: bool,
}

/// A prompt with what is to be said to it, both as they stand in the row too.
///
/// From `messages`, whose last turn is the completion; or from `prompt` and `completion`.
#[derive(Clone, Debug, PartialEq)]
pub struct DemonstrationSample {
    /// The prompt's tokens.
    pub tokens: PromptTokens,
    /// The prompt: text, or a list of messages.
    pub prompt: Value,
    /// The completion: text, or a list of messages.
    pub completion: Value,
}

/// Several responses to one prompt, with the log-probs that SteerLM 2.0 needs.
///
/// From `prompt` and `responses`, a list of objects with `completion` (or NeMo's `value`) and three numbers: `log_attributes` (or
/// NeMo's `log(P(a|x,y))`), `log_prior` (`log(P(y|x))`) and `log_proposal` (`log(Q(y|a,x))`).
#[derive(Clone, Debug, PartialEq)]
pub struct ResponsesSample {
    /// At least two.
    pub responses: Vec<Response>,
}

/// A response with its prompt, and what was thought of it. Log-probs are in nats.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Prompt and response.
    pub tokens: Vec<u32>,
    /// Whether each token belongs to the response.
    pub loss_mask: Vec<bool>,
    /// `log P(a | x, y)`, `log P(y | x)` and `log Q'(y | a, x)`.
    pub logprobs: [f64; 3],
}

impl Sample for PromptSample {
    type Layout = String;

    const ROOM: usize = 1;

    fn layout(found: &FoundColumns<'_>, columns: &Columns) -> Result<String, Error> {
        let text = found.optional("text", columns.text.as_ref())?;
        if let (Some(text), true, None) = (&text, columns.text.is_some(), &columns.prompt) {
            return Ok(text.clone()); // asked for by name
        }
        let prompt = found.optional("prompt", columns.prompt.as_ref())?;
        prompt.or(text).ok_or_else(|| found.missing(&["prompt"]))
    }

    fn of(mut row: Row, prompt: &String, encoder: &TextEncoder<'_>) -> Result<(Self, Fit), String> {
        let mut ids = match encoder.conditioned(row.take_content(prompt)?)? {
            Content::Text(text) => encoder.prompt(&text)?,
            Content::Messages(messages) => {
                encoder.chat_prompt(&chat::prompt(encoder.template()?, &messages)?)?
            }
        };
        let fit = encoder.fit_prompt(&mut ids)?;
        if ids.is_empty() {
            return Err("prompt has no tokens".into());
        }
        Ok((Self { tokens: ids.into(), extra: row.columns, place: row.place }, fit))
    }
}

/// The columns of a sequence to imitate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SftLayout {
    /// Everything in one text.
    Text(String),
    /// A whole conversation.
    Messages(String),
    /// Prompt and completion.
    Completion(String, String),
}

impl Sample for SftSample {
    type Layout = SftLayout;

    fn layout(found: &FoundColumns<'_>, columns: &Columns) -> Result<SftLayout, Error> {
        let asks_for_completion = columns.prompt.is_some() || columns.completion.is_some();
        let tries_messages =
            columns.messages.is_some() || (!asks_for_completion && columns.text.is_none());
        if tries_messages
            && let Some(messages) = found.optional("messages", columns.messages.as_ref())?
        {
            return Ok(SftLayout::Messages(messages));
        }
        let text = found.optional("text", columns.text.as_ref())?;
        if let (Some(text), true, false) = (&text, columns.text.is_some(), asks_for_completion) {
            return Ok(SftLayout::Text(text.clone()));
        }
        let prompt = found.optional("prompt", columns.prompt.as_ref())?;
        let completion = found.optional("completion", columns.completion.as_ref())?;
        match (prompt, completion, text) {
            (Some(prompt), Some(completion), _) => Ok(SftLayout::Completion(prompt, completion)),
            (_, _, Some(text)) if !asks_for_completion => Ok(SftLayout::Text(text)),
            (Some(_), None, _) => Err(found.missing(&["completion"])),
            (None, Some(_), _) => Err(found.missing(&["prompt"])),
            (None, None, _) => Err(found.missing(&["text", "messages", "completion"])),
        }
    }

    fn of(
        mut row: Row,
        layout: &SftLayout,
        encoder: &TextEncoder<'_>,
    ) -> Result<(Self, Fit), String> {
        let mut tokens = match layout {
            SftLayout::Text(text) => {
                encoder.text(&[Piece { text: row.take_text(text)?, trained: true }])?
            }
            SftLayout::Messages(messages) => {
                let (messages, template) = (row.take_messages(messages)?, encoder.template()?);
                encoder.conversation(match encoder.completion_only() {
                    true => chat::assistant_turns(template, &messages)?,
                    false => chat::whole(template, &messages)?,
                })?
            }
            SftLayout::Completion(prompt, completion) => {
                let (prompt, completion) =
                    (row.take_content(prompt)?, row.take_content(completion)?);
                completed(prompt, completion, encoder)?
            }
        };
        if !encoder.completion_only() {
            tokens.mask.fill(true);
        }
        let fit = encoder.fit(&mut tokens)?;
        // The first token has nothing before it to be predicted from.
        if !tokens.mask.iter().skip(1).any(|&trained| trained) {
            return Err("no token to train on".into());
        }
        Ok((Self { tokens: tokens.ids, loss_mask: tokens.mask }, fit))
    }
}

/// The columns of a preference pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairLayout {
    prompt: Option<String>,
    chosen: String,
    rejected: String,
    margin: Option<String>,
    chosen_reward: Option<String>,
    rejected_reward: Option<String>,
}

impl Sample for PairSample {
    type Layout = PairLayout;

    fn layout(found: &FoundColumns<'_>, columns: &Columns) -> Result<PairLayout, Error> {
        Ok(PairLayout {
            chosen: found.required("chosen", columns.chosen.as_ref())?,
            rejected: found.required("rejected", columns.rejected.as_ref())?,
            prompt: found.optional("prompt", columns.prompt.as_ref())?,
            margin: found.optional("margin", columns.margin.as_ref())?,
            chosen_reward: found.optional("chosen_reward", columns.chosen_reward.as_ref())?,
            rejected_reward: found.optional("rejected_reward", columns.rejected_reward.as_ref())?,
        })
    }

    fn of(
        mut row: Row,
        layout: &PairLayout,
        encoder: &TextEncoder<'_>,
    ) -> Result<(Self, Fit), String> {
        let prompt = layout.prompt.as_ref().map(|prompt| row.take_content(prompt)).transpose()?;
        let chosen = row.take_content(&layout.chosen)?;
        let rejected = row.take_content(&layout.rejected)?;
        let mut number = |column: &Option<String>| match column {
            Some(column) => row.take_number(column),
            None => Ok(None),
        };
        let margin = number(&layout.margin)?;
        let chosen_reward = number(&layout.chosen_reward)?;
        let rejected_reward = number(&layout.rejected_reward)?;
        let mut chosen = judged(prompt.clone(), chosen, encoder)?;
        let mut rejected = judged(prompt, rejected, encoder)?;
        let fits = [encoder.fit(&mut chosen)?, encoder.fit(&mut rejected)?];
        if chosen.ids.is_empty() || rejected.ids.is_empty() {
            return Err("chosen or rejected has no tokens".into());
        }
        if chosen.ids == rejected.ids {
            return Err("chosen and rejected are the same".into());
        }
        if layout.prompt.is_none() {
            leave_out_prompt(&mut chosen, &mut rejected);
        }
        let cut = fits.iter().any(|fit| matches!(fit, Fit::Cut));
        let pair = Self {
            chosen: chosen.ids,
            rejected: rejected.ids,
            chosen_mask: chosen.mask,
            rejected_mask: rejected.mask,
            margin,
            chosen_reward,
            rejected_reward,
        };
        Ok((pair, if cut { Fit::Cut } else { Fit::Whole }))
    }
}

impl Sample for DemonstrationSample {
    type Layout = SftLayout;

    const ROOM: usize = 1;

    fn layout(found: &FoundColumns<'_>, columns: &Columns) -> Result<SftLayout, Error> {
        match SftSample::layout(found, columns)? {
            SftLayout::Text(_) => Err(found.missing(&["messages", "completion"])),
            layout => Ok(layout),
        }
    }

    fn of(
        mut row: Row,
        layout: &SftLayout,
        encoder: &TextEncoder<'_>,
    ) -> Result<(Self, Fit), String> {
        let (prompt, completion) = match layout {
            SftLayout::Completion(prompt, completion) => {
                (row.take_content(prompt)?, row.take_content(completion)?)
            }
            SftLayout::Messages(column) | SftLayout::Text(column) => {
                let mut messages = row.take_messages(column)?;
                let last = messages.pop().filter(|last| last["role"] == "assistant");
                let last = last.ok_or_else(|| {
                    format!("column {column:?} must end with an assistant's turn")
                })?;
                if messages.is_empty() {
                    return Err(format!("column {column:?} must have a turn before the last"));
                }
                (Content::Messages(messages), Content::Messages(vec![last]))
            }
        };
        let (said, answer) = (prompt.to_json(), completion.to_json());
        let mut ids = match prompt {
            Content::Text(text) => encoder.prompt(&text)?,
            Content::Messages(messages) => {
                encoder.chat_prompt(&chat::prompt(encoder.template()?, &messages)?)?
            }
        };
        let fit = encoder.fit_prompt(&mut ids)?;
        if ids.is_empty() {
            return Err("prompt has no tokens".into());
        }
        Ok((Self { tokens: ids.into(), prompt: said, completion: answer }, fit))
    }
}

/// The columns of a labelled completion: prompt, completion, label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabeledLayout([String; 3]);

impl Sample for LabeledSample {
    type Layout = LabeledLayout;

    fn layout(found: &FoundColumns<'_>, columns: &Columns) -> Result<LabeledLayout, Error> {
        Ok(LabeledLayout([
            found.required("prompt", columns.prompt.as_ref())?,
            found.required("completion", columns.completion.as_ref())?,
            found.required("label", columns.label.as_ref())?,
        ]))
    }

    fn of(
        mut row: Row,
        LabeledLayout([prompt, completion, label]): &LabeledLayout,
        encoder: &TextEncoder<'_>,
    ) -> Result<(Self, Fit), String> {
        let desirable = row.take_label(label)?;
        let (prompt, completion) = (row.take_content(prompt)?, row.take_content(completion)?);
        let mut tokens = completed(prompt, completion, encoder)?;
        let fit = encoder.fit(&mut tokens)?;
        if !tokens.mask.iter().skip(1).any(|&trained| trained) {
            return Err("completion has no tokens".into());
        }
        Ok((Self { tokens: tokens.ids, loss_mask: tokens.mask, desirable }, fit))
    }
}

/// The columns of a prompt and its responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponsesLayout([String; 2]);

impl Sample for ResponsesSample {
    type Layout = ResponsesLayout;

    fn layout(found: &FoundColumns<'_>, columns: &Columns) -> Result<ResponsesLayout, Error> {
        Ok(ResponsesLayout([
            found.required("prompt", columns.prompt.as_ref())?,
            found.required("responses", columns.responses.as_ref())?,
        ]))
    }

    fn of(
        mut row: Row,
        ResponsesLayout([prompt, responses]): &ResponsesLayout,
        encoder: &TextEncoder<'_>,
    ) -> Result<(Self, Fit), String> {
        let (prompt, list) = (row.take_content(prompt)?, row.take_objects(responses)?);
        if list.len() < 2 {
            return Err(format!("column {responses:?} must have at least 2 responses"));
        }
        let mut cut = false;
        let mut made = Vec::with_capacity(list.len());
        for object in list {
            let mut own = Row { place: row.place.clone(), columns: object };
            let completion = own.take_content(own.one_of(["completion", "value"])?)?;
            let mut number = |names| -> Result<f64, String> {
                let name = own.one_of(names)?;
                own.take_number(name)?.map(f64::from).ok_or_else(|| format!("has no {name:?}"))
            };
            let logprobs = [
                number(["log_attributes", "log(P(a|x,y))"])?,
                number(["log_prior", "log(P(y|x))"])?,
                number(["log_proposal", "log(Q(y|a,x))"])?,
            ];
            let mut tokens = completed(prompt.clone(), completion, encoder)?;
            cut |= matches!(encoder.fit(&mut tokens)?, Fit::Cut);
            if !tokens.mask.iter().skip(1).any(|&trained| trained) {
                return Err("a response has no tokens".into());
            }
            made.push(Response { tokens: tokens.ids, loss_mask: tokens.mask, logprobs });
        }
        Ok((Self { responses: made }, if cut { Fit::Cut } else { Fit::Whole }))
    }
}

/// Encodes a completion after its prompt. Either both are text, or both are taken for conversations.
fn completed(
    prompt: Content,
    completion: Content,
    encoder: &TextEncoder<'_>,
) -> Result<Tokens, String> {
    if let (Content::Text(prompt), Content::Text(completion)) = (&prompt, &completion) {
        let prompt = Piece { text: prompt.clone(), trained: false };
        return encoder.text(&[prompt, Piece { text: completion.clone(), trained: true }]);
    }
    let prompt = chat::messages(prompt, "user");
    let completion = chat::messages(completion, "assistant");
    encoder.conversation(chat::completion(encoder.template()?, &prompt, &completion)?)
}

/// Takes what two whole texts both begin with for their prompt. The last token of each is its own, though the other may
/// go on after it.
fn leave_out_prompt(a: &mut Tokens, b: &mut Tokens) {
    let shared = a.ids.iter().zip(&b.ids).take_while(|(a, b)| a == b).count();
    for tokens in [a, b] {
        let prompt = shared.min(tokens.ids.len().saturating_sub(1));
        tokens.mask[..prompt].fill(false);
    }
}

/// Encodes a completion to be judged, after its prompt where it has one.
pub(super) fn judged(
    prompt: Option<Content>,
    completion: Content,
    encoder: &TextEncoder<'_>,
) -> Result<Tokens, String> {
    match (prompt, completion) {
        (Some(prompt), completion) => completed(prompt, completion, encoder),
        (None, Content::Text(text)) => encoder.text(&[Piece { text, trained: true }]),
        (None, Content::Messages(messages)) => {
            encoder.conversation(chat::whole(encoder.template()?, &messages)?)
        }
    }
}
