//! Conversations into the pieces that are trained on and those that are not.

use std::ops::Range;

use serde_json::{Value, json};

use super::{encoder::Piece, row::Content};
use crate::model::{ChatOptions, ChatTemplate};

/// Renders a conversation up to where the assistant's turn begins.
pub(super) fn prompt(template: &ChatTemplate, messages: &[Value]) -> Result<String, String> {
    let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
    let rendered = template.render(messages, &options).map_err(|error| error.to_string())?;
    Ok(rendered.text)
}

/// Splits a conversation into prompt and completion: the completion is trained on, as a whole.
pub(super) fn completion(
    template: &ChatTemplate,
    prompt_messages: &[Value],
    completion: &[Value],
) -> Result<Vec<Piece>, String> {
    let start = prompt(template, prompt_messages)?;
    let (whole, _) = render(template, &[prompt_messages, completion].concat())?;
    let rest = whole
        .strip_prefix(&start)
        .ok_or("chat template writes the prompt differently once it is answered")?;
    let trained = Piece { text: rest.into(), trained: true };
    Ok(vec![Piece { text: start, trained: false }, trained])
}

/// Takes a conversation as one piece.
pub(super) fn whole(template: &ChatTemplate, messages: &[Value]) -> Result<Vec<Piece>, String> {
    let (text, _) = render(template, messages)?;
    Ok(vec![Piece { text, trained: true }])
}

/// Splits a conversation into the assistant's turns, which are trained on, and all else.
///
/// The turns are what the template marks with `{% generation %}`. A template without marks is rendered up to each turn
/// and through it; that needs one which leaves earlier turns as they are when later ones come.
pub(super) fn assistant_turns(
    template: &ChatTemplate,
    messages: &[Value],
) -> Result<Vec<Piece>, String> {
    let (text, marked) = render(template, messages)?;
    let turns = match template.marks_assistant() {
        true => marked,
        false => found_turns(template, messages, &text)?,
    };
    if turns.is_empty() {
        return Err("conversation has no assistant's turn".into());
    }
    Ok(split(&text, &turns))
}

/// Takes text for a message of this role where a conversation is wanted.
pub(super) fn messages(content: Content, role: &str) -> Vec<Value> {
    match content {
        Content::Messages(messages) => messages,
        Content::Text(text) => vec![json!({ "role": role, "content": text })],
    }
}

/// Leaves out the white space at the end, and pieces that are nothing else.
pub(super) fn trim_end(pieces: &mut Vec<Piece>) {
    while let Some(last) = pieces.last_mut() {
        last.text.truncate(last.text.trim_end().len());
        if !last.text.is_empty() {
            break;
        }
        pieces.pop();
    }
}

fn render(
    template: &ChatTemplate,
    messages: &[Value],
) -> Result<(String, Vec<Range<usize>>), String> {
    let rendered =
        template.render(messages, &ChatOptions::default()).map_err(|error| error.to_string())?;
    Ok((rendered.text, rendered.assistant))
}

fn found_turns(
    template: &ChatTemplate,
    messages: &[Value],
    text: &str,
) -> Result<Vec<Range<usize>>, String> {
    let assistants = (0..messages.len()).filter(|&turn| messages[turn]["role"] == "assistant");
    let turn_at = |turn: usize| {
        let before = prompt(template, &messages[..turn])?;
        let (through, _) = render(template, &messages[..=turn])?;
        // White space after a turn's end belongs to the next one.
        let end = through.trim_end().len();
        match text.starts_with(through.trim_end()) && through[..end].starts_with(&before) {
            true => Ok(before.len()..end),
            false => Err(
                "chat template rewrites earlier turns; mark the assistant's with {% generation %}"
                    .into(),
            ),
        }
    };
    assistants.map(turn_at).collect()
}

fn split(text: &str, trained: &[Range<usize>]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    for turn in trained {
        pieces.push(Piece { text: text[at..turn.start].into(), trained: false });
        pieces.push(Piece { text: text[turn.clone()].into(), trained: true });
        at = turn.end;
    }
    pieces.push(Piece { text: text[at..].into(), trained: false });
    pieces.retain(|piece| !piece.text.is_empty());
    pieces
}
