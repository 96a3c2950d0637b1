//! Rows of each schema into examples.

use serde_json::{Map, Value, json};

use super::{super::row::Row, ATTRIBUTES, Example, Meaning, Schema, example::value};

/// What NeMo-Aligner's labels hold where a rating is missing.
const MISSING: f64 = -100.0;

type Ratings = Map<String, Value>;

impl Schema {
    /// Reads the row, or the rows, of an example.
    ///
    /// # Errors
    /// Says why they are none; the words are the same for all rows with the same flaw.
    pub(in crate::data) fn read(self, rows: Vec<Row>) -> Result<Example, String> {
        let mut rows = rows.into_iter();
        let Some(mut row) = rows.next() else { return Err("no row".into()) };
        let mut ratings = Ratings::new();
        let meaning = match self {
            Self::Text => Meaning::Text(row.take_text("text")?),
            Self::Messages => Meaning::Conversation(row.take_messages("messages")?),
            Self::PromptCompletion => completion(&mut row, "prompt", "completion", None)?,
            Self::NemoPromptCompletion => completion(&mut row, "input", "output", None)?,
            Self::Prompts => {
                let column = if row.columns.contains_key("prompt") { "prompt" } else { "input" };
                Meaning::Prompt(value(row.take_content(column)?))
            }
            Self::Preference => pair(&mut row, "chosen", "rejected")?,
            Self::NemoDpo => pair(&mut row, "chosen_response", "rejected_response")?,
            Self::Unpaired => {
                let good = take_label(&mut row)?;
                completion(&mut row, "prompt", "completion", Some(good))?
            }
            Self::NemoKto => {
                let good = take_preference(&mut row)?;
                completion(&mut row, "prompt", "response", Some(good))?
            }
            Self::Ratings => {
                ratings = take_ratings(&mut row)?;
                rated(&mut row)?
            }
            Self::NemoRegression => {
                ratings = take_labels(&mut row)?;
                Meaning::Text(row.take_text("text")?)
            }
            Self::NemoChat => Meaning::Conversation(take_conversation(&mut row)?),
            Self::NemoComparisons => {
                let mut second =
                    rows.next().ok_or("has no line with the rejected text after it")?;
                Meaning::Pair {
                    prompt: None,
                    chosen: row.take_text("text")?.into(),
                    rejected: second.take_text("text")?.into(),
                    rewards: Map::new(),
                }
            }
            Self::Verl => {
                let prompt = value(row.take_content("prompt")?);
                row.columns = flattened(std::mem::take(&mut row.columns));
                Meaning::Prompt(prompt)
            }
        };
        Ok(Example { meaning, ratings, rest: row.columns })
    }
}

fn completion(
    row: &mut Row,
    prompt: &str,
    completion: &str,
    good: Option<bool>,
) -> Result<Meaning, String> {
    let prompt = value(row.take_content(prompt)?);
    Ok(Meaning::Completion { prompt, completion: value(row.take_content(completion)?), good })
}

fn pair(row: &mut Row, chosen: &str, rejected: &str) -> Result<Meaning, String> {
    let prompt = match row.columns.get("prompt") {
        None | Some(Value::Null) => None,
        Some(_) => Some(value(row.take_content("prompt")?)),
    };
    let (chosen, rejected) = (value(row.take_content(chosen)?), value(row.take_content(rejected)?));
    if chosen == rejected {
        return Err("chosen and rejected are the same".into());
    }
    let mut rewards = Map::new();
    for column in ["margin", "chosen_reward", "rejected_reward"] {
        if let Some(number) = take_number(row, column)? {
            rewards.insert(column.into(), number);
        }
    }
    Ok(Meaning::Pair { prompt, chosen, rejected, rewards })
}

/// Takes a number as the file has it.
fn take_number(row: &mut Row, column: &str) -> Result<Option<Value>, String> {
    match row.columns.shift_remove(column) {
        None | Some(Value::Null) => Ok(None),
        Some(number) if number.is_number() => Ok(Some(number)),
        Some(_) => Err(format!("column {column:?} must be a finite number")),
    }
}

fn take_label(row: &mut Row) -> Result<bool, String> {
    let label = row.columns.shift_remove("label").and_then(|label| label.as_bool());
    label.ok_or_else(|| "column \"label\" must be true or false".into())
}

fn take_preference(row: &mut Row) -> Result<bool, String> {
    match row.columns.shift_remove("preference").as_ref().and_then(Value::as_str) {
        Some("chosen") => Ok(true),
        Some("rejected") => Ok(false),
        _ => Err("column \"preference\" must be \"chosen\" or \"rejected\"".into()),
    }
}

/// Takes the columns that are named like an attribute.
fn take_ratings(row: &mut Row) -> Result<Ratings, String> {
    let mut ratings = Ratings::new();
    for attribute in ATTRIBUTES {
        if let Some(rating) = take_number(row, attribute)? {
            ratings.insert(attribute.into(), rating);
        }
    }
    match ratings.is_empty() {
        true => Err("has no rating".into()),
        false => Ok(ratings),
    }
}

/// Takes NeMo-Aligner's list of labels.
fn take_labels(row: &mut Row) -> Result<Ratings, String> {
    let labels = row.columns.shift_remove("label");
    let labels = labels.as_ref().and_then(Value::as_array);
    let labels = labels.filter(|labels| labels.iter().all(Value::is_number));
    let labels = labels.ok_or("column \"label\" must be a list of numbers")?;
    if labels.len() != ATTRIBUTES.len() {
        return Err(format!("column \"label\" must have {} numbers", ATTRIBUTES.len()));
    }
    let named = ATTRIBUTES.iter().zip(labels).map(|(name, rating)| (name.to_string(), rating));
    let ratings: Ratings = named
        .filter(|(_, rating)| rating.as_f64() != Some(MISSING))
        .map(|(name, rating)| (name, rating.clone()))
        .collect();
    match ratings.is_empty() {
        true => Err("has no rating".into()),
        false => Ok(ratings),
    }
}

fn rated(row: &mut Row) -> Result<Meaning, String> {
    if row.columns.contains_key("messages") {
        return Ok(Meaning::Conversation(row.take_messages("messages")?));
    }
    if !row.columns.contains_key("prompt") {
        return Ok(Meaning::Text(row.take_text("text")?));
    }
    let answer = if row.columns.contains_key("completion") { "completion" } else { "response" };
    completion(row, "prompt", answer, None)
}

/// Takes NeMo-Aligner's conversation: `system`, and turns of `{from, value}` with an optional `label`, which stays in its
/// message. `mask` must leave the assistant's turns alone to be trained on, for that is what our loader does.
fn take_conversation(row: &mut Row) -> Result<Vec<Value>, String> {
    let turns = match row.columns.shift_remove("conversations") {
        Some(Value::Array(turns)) if !turns.is_empty() => turns,
        Some(Value::Array(_)) => return Err("column \"conversations\" is empty".into()),
        _ => return Err("column \"conversations\" must be a list of {from, value}".into()),
    };
    let mut messages = Vec::with_capacity(turns.len() + 1);
    match row.columns.shift_remove("system") {
        None | Some(Value::Null) => {}
        Some(Value::String(system)) if system.trim().is_empty() => {}
        Some(Value::String(system)) => messages.push(json!({"role": "system", "content": system})),
        Some(_) => return Err("column \"system\" must be text".into()),
    }
    for turn in turns {
        messages.push(message(turn)?);
    }
    check_mask(row.columns.shift_remove("mask").as_ref(), &messages)?;
    row.columns.shift_remove("type");
    Ok(messages)
}

fn message(turn: Value) -> Result<Value, String> {
    let Value::Object(mut turn) = turn else {
        return Err("a turn must be an object with from and value".into());
    };
    let from = match turn.shift_remove("from") {
        Some(Value::String(from)) => from,
        _ => return Err("a turn must have a text \"from\"".into()),
    };
    let content = match turn.shift_remove("value") {
        Some(Value::String(content)) => content,
        _ => return Err("a turn must have a text \"value\"".into()),
    };
    let mut message = Map::new();
    message.insert("role".into(), role(&from)?.into());
    message.insert("content".into(), content.into());
    if let Some(label) = turn.shift_remove("label").filter(|label| !label.is_null()) {
        message.insert("label".into(), label);
    }
    Ok(message.into())
}

fn role(from: &str) -> Result<&'static str, String> {
    match from.to_ascii_lowercase().as_str() {
        "user" | "human" | "prompter" => Ok("user"),
        "assistant" | "gpt" | "model" | "chatbot" => Ok("assistant"),
        "system" => Ok("system"),
        "tool" | "function" => Ok("tool"),
        _ => Err(format!("speaker {from:?} is none of user, assistant, system and tool")),
    }
}

fn check_mask(mask: Option<&Value>, messages: &[Value]) -> Result<(), String> {
    let masked: Vec<&str> = match mask {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(roles)) => {
            let named = roles.split(',').map(str::trim).filter(|role| !role.is_empty());
            named.map(role).collect::<Result<_, _>>()?
        }
        Some(_) => return Err("column \"mask\" must be text".into()),
    };
    if masked.contains(&"assistant") {
        return Err("mask leaves out the assistant's turns, the only ones that we train on".into());
    }
    let user = messages.iter().skip_while(|message| message["role"] == "system").skip(1);
    match masked.contains(&"user") || !user.into_iter().any(|message| message["role"] == "user") {
        true => Ok(()),
        false => Err("mask trains on the user's turns, and we on the assistant's alone".into()),
    }
}

/// Puts what verl nests into columns of their own: `ground_truth`, and what `extra_info` has. A name that is taken gets
/// the outer one before it.
fn flattened(columns: Map<String, Value>) -> Map<String, Value> {
    let (nested, mut flat): (Map<_, _>, Map<_, _>) =
        columns.into_iter().partition(|(name, value)| {
            ["reward_model", "extra_info"].contains(&name.as_str()) && value.is_object()
        });
    for (outer, value) in nested {
        let Value::Object(inner) = value else { continue };
        for (name, value) in inner {
            let (name, value) = match (outer.as_str(), name.as_str()) {
                ("reward_model", "ground_truth") => (name, as_text(value)),
                ("reward_model", _) => (format!("{outer}_{name}"), value),
                _ => (name, value),
            };
            let taken = flat.contains_key(&name);
            flat.insert(if taken { format!("{outer}_{name}") } else { name }, value);
        }
    }
    flat
}

/// What a completion is compared with is text; a list or an object stays readable as JSON.
fn as_text(value: Value) -> Value {
    match value {
        Value::String(_) | Value::Null => value,
        other => other.to_string().into(),
    }
}
