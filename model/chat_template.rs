//! Conversations into text, by the Jinja template that comes with a model, under transformers' conventions.

use std::{ops::Range, path::Path, sync::Arc};

use minijinja::{
    Environment, Error as JinjaError, ErrorKind, Value as Jinja, syntax::SyntaxConfig,
    value::Kwargs,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Encoded, Error, SpecialTokens, Tokenizer, error::Result, files, strftime};

// Unicode keeps these from ever being characters, so they mark what `{% generation %}` wraps without clashing.
const START: char = '\u{fdd0}';
const END: char = '\u{fdd1}';

/// What a rendering may use up: about so many instructions, or 64 bytes of text made for each (64 MiB in all).
const FUEL: u64 = 1 << 20;

/// Bytes of a template: a hundred times the longest one of a known model.
const LONGEST_TEMPLATE: usize = 1 << 20;

/// A model's chat template. Cheap to clone.
#[derive(Clone)]
pub struct ChatTemplate(Arc<Inner>);

struct Inner {
    environment: Environment<'static>,
    special: SpecialTokens,
    marks_assistant: bool,
}

/// One turn of a conversation in its plainest form. [`ChatTemplate::render`] takes richer ones, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`, or what else the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// What else a template is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatOptions {
    /// Whether to end with the beginning of an assistant's turn.
    pub add_generation_prompt: bool,
    /// Further variables, such as `tools` or `enable_thinking`.
    pub variables: Map<String, Value>,
}

/// A conversation as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedChat {
    /// The text, special tokens written out.
    pub text: String,
    /// The ranges of bytes inside `{% generation %}`: what the assistant said.
    pub assistant: Vec<Range<usize>>,
}

/// A conversation as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTokens {
    /// The ids.
    pub ids: Vec<u32>,
    /// Whether each belongs to what the assistant said; all `false` under a template without `{% generation %}`.
    pub assistant_mask: Vec<bool>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChatTemplate({:?})", self.0.special)
    }
}

impl ChatTemplate {
    /// Opens the template of a model directory: `chat_template.jinja`, or the one in `tokenizer_config.json` (the one
    /// named `default` of several). `None` when there is none.
    ///
    /// # Errors
    /// When a file cannot be read or the template has a syntax error.
    pub fn open(dir: &Path, special: &SpecialTokens) -> Result<Option<Self>> {
        let source = match files::text_if_there(&dir.join("chat_template.jinja"))? {
            Some(source) => Some(source),
            None => source_in_config(&dir.join("tokenizer_config.json"))?,
        };
        source.map(|source| Self::new(&source, special.clone())).transpose()
    }

    /// Compiles a template. Each rendering of it is bounded in time and memory.
    ///
    /// # Errors
    /// When it is longer than 1 MiB or has a syntax error.
    pub fn new(source: &str, special: SpecialTokens) -> Result<Self> {
        if source.len() > LONGEST_TEMPLATE {
            let (most, got) = (LONGEST_TEMPLATE >> 20, source.len());
            return Err(Error::ChatTemplate(format!(
                "must be at most {most} MiB, got {got} bytes"
            )));
        }
        let (source, marks_assistant) = generation_as_filter(source);
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| failed(&error))?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_filter("generation", |body: &str| format!("{START}{body}{END}"));
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| strftime::now(format));
        let added = environment.add_template_owned("chat", source);
        added.map_err(|error| failed(&error))?;
        Ok(Self(Arc::new(Inner { environment, special, marks_assistant })))
    }

    /// Says whether the template marks what the assistant said with `{% generation %}`.
    pub fn marks_assistant(&self) -> bool {
        self.0.marks_assistant
    }

    /// Returns a conversation as text. Messages are JSON objects in the end: [`Message`] or anything like it.
    ///
    /// # Errors
    /// When the template refuses the conversation or fails.
    ///
    /// # Example
    /// ```
    /// use rollforge::model::{ChatOptions, ChatTemplate, Message, SpecialTokens};
    /// let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    /// let template = ChatTemplate::new(source, SpecialTokens::default())?;
    /// let messages = [Message { role: "user".into(), content: "Hello!".into() }];
    /// assert_eq!(template.render(&messages, &ChatOptions::default())?.text, "user: Hello!\n");
    /// # Ok::<(), rollforge::model::Error>(())
    /// ```
    pub fn render<M: Serialize>(
        &self,
        messages: &[M],
        options: &ChatOptions,
    ) -> Result<RenderedChat> {
        let messages = messages.iter().map(normal).collect::<Result<Vec<Value>>>()?;
        let template = self.0.environment.get_template("chat").map_err(|error| failed(&error))?;
        let context = self.context(messages, options);
        let marked = template.render(context).map_err(|error| failed(&error))?;
        Ok(without_marks(&marked))
    }

    /// Returns a conversation as token ids, with the assistant's tokens marked.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], and when the tokenizer fails.
    pub fn encode<M: Serialize>(
        &self,
        tokenizer: &Tokenizer,
        messages: &[M],
        options: &ChatOptions,
    ) -> Result<ChatTokens> {
        let chat = self.render(messages, options)?;
        // The template writes BOS and its like itself.
        let Encoded { ids, spans } = tokenizer.encode_with_spans(&chat.text, false)?;
        let overlaps = |span: &Range<usize>| {
            chat.assistant.iter().any(|a| span.start < a.end && a.start < span.end)
        };
        let assistant_mask = spans.iter().map(overlaps).collect();
        Ok(ChatTokens { ids, assistant_mask })
    }

    fn context(&self, messages: Vec<Value>, options: &ChatOptions) -> Jinja {
        let special = &self.0.special;
        let mut context: Vec<(&str, Jinja)> = vec![
            ("messages", to_jinja(&Value::Array(messages))),
            ("add_generation_prompt", options.add_generation_prompt.into()),
            // transformers always passes these: templates may ask `tools is none`, or `is defined`.
            ("tools", ().into()),
            ("documents", ().into()),
        ];
        let tokens = [
            ("bos_token", &special.bos),
            ("eos_token", &special.eos),
            ("pad_token", &special.pad),
            ("unk_token", &special.unk),
        ];
        for (name, token) in tokens {
            context.extend(token.as_ref().map(|token| (name, token.as_str().into())));
        }
        context
            .extend(options.variables.iter().map(|(name, value)| (name.as_str(), to_jinja(value))));
        Jinja::from_pairs(context)
    }
}

fn source_in_config(path: &Path) -> Result<Option<String>> {
    let Some(mut config) = files::object_if_there(path)? else { return Ok(None) };
    match config.remove("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => Ok(Some(source)),
        Some(Value::Array(named)) => {
            let is_default = |entry: &&Value| entry["name"] == "default";
            let source = named.iter().find(is_default).and_then(|entry| entry["template"].as_str());
            let missing = || Error::file(path, "chat_template has no template named default");
            source.map(|source| Some(source.to_owned())).ok_or_else(missing)
        }
        Some(_) => Err(Error::file(path, "chat_template must be a string or a list of named ones")),
    }
}

/// Rewrites transformers' own `{% generation %}` block into a filter block, which has the same rules for whitespace.
fn generation_as_filter(source: &str) -> (String, bool) {
    let mut rewritten = String::with_capacity(source.len());
    let (mut rest, mut any) = (source, false);
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        rewritten.push_str(before);
        // Looked for behind the opening, for `{%}` is both.
        let Some(length) = tag[2..].find("%}").map(|end| end + 4) else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(length);
        let name = tag[2..length - 2].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
        match name.trim() {
            "generation" => {
                rewritten.push_str(&tag.replace("generation", "filter generation"));
                any = true;
            }
            "endgeneration" => rewritten.push_str(&tag.replace("endgeneration", "endfilter")),
            _ => rewritten.push_str(tag),
        }
        rest = after;
    }
    rewritten.push_str(rest);
    (rewritten, any)
}

fn without_marks(marked: &str) -> RenderedChat {
    let mut chat = RenderedChat { text: String::with_capacity(marked.len()), assistant: vec![] };
    let mut open = Vec::new();
    for character in marked.chars() {
        match character {
            START => open.push(chat.text.len()),
            END => chat.assistant.extend(open.pop().map(|start| start..chat.text.len())),
            other => chat.text.push(other),
        }
    }
    chat
}

/// Brings a message into the form that templates expect, as transformers does: `null` counts as absent, and reasoning
/// is found under its standard name.
fn normal<M: Serialize>(message: &M) -> Result<Value> {
    let refused = |problem: String| Err(Error::ChatTemplate(problem));
    let mut fields = match serde_json::to_value(message) {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => return refused(format!("a message must be an object, got {other}")),
        Err(error) => return refused(format!("a message is not JSON: {error}")),
    };
    fields.retain(|_, value| !value.is_null());
    let names = ["reasoning_content", "thinking", "reasoning"];
    if let Some(reasoning) = names.iter().find_map(|name| fields.get(*name)).cloned() {
        if !fields.contains_key("thinking") {
            fields.shift_insert(0, "thinking".into(), reasoning.clone());
        }
        fields.insert("reasoning_content".into(), reasoning);
    }
    let message = Value::Object(fields);
    if contains_marks(&message) {
        return refused("a message contains U+FDD0 or U+FDD1, which are not characters".into());
    }
    Ok(message)
}

fn contains_marks(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains([START, END]),
        Value::Array(list) => list.iter().any(contains_marks),
        Value::Object(object) => object.values().any(contains_marks),
        _ => false,
    }
}

fn to_jinja(value: &Value) -> Jinja {
    match value {
        Value::Null => ().into(),
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(signed), _, _) => signed.into(),
            (_, Some(unsigned), _) => unsigned.into(),
            (_, _, float) => float.unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(list) => list.iter().map(to_jinja).collect::<Vec<_>>().into(),
        Value::Object(object) => {
            Jinja::from_pairs(object.iter().map(|(key, value)| (key.as_str(), to_jinja(value))))
        }
    }
}

fn raise_exception(message: String) -> Result<String, JinjaError> {
    Err(JinjaError::new(ErrorKind::InvalidOperation, message))
}

/// As Python's `json.dumps(ensure_ascii=False)`: unlike Jinja's own filter it leaves `<`, `>`, `&` and `'` alone.
fn tojson(value: &Jinja, kwargs: Kwargs) -> Result<String, JinjaError> {
    let indent: Option<Jinja> = kwargs.get("indent")?;
    if kwargs.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        let problem = "tojson with ensure_ascii is not supported";
        return Err(JinjaError::new(ErrorKind::InvalidOperation, problem));
    }
    kwargs.assert_all_used()?;
    let indent = indent.filter(|indent| !indent.is_none());
    let escaped =
        minijinja::filters::tojson(value, indent, Kwargs::from_iter::<[(&str, Jinja); 0]>([]))?;
    Ok(unescaped(escaped.as_str().unwrap_or_default()))
}

fn unescaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let html = [("\\u003c", '<'), ("\\u003e", '>'), ("\\u0026", '&'), ("\\u0027", '\'')];
        match html.iter().find(|(escape, _)| rest[at..].starts_with(escape)) {
            Some((escape, character)) => {
                text.push(*character);
                rest = &rest[at + escape.len()..];
            }
            None => {
                // Any other escape is copied with the character after the backslash, which is ASCII.
                let end = (at + 2).min(rest.len());
                text.push_str(&rest[at..end]);
                rest = &rest[end..];
            }
        }
    }
    text.push_str(rest);
    text
}

fn failed(error: &JinjaError) -> Error {
    let line = error.line().map_or(String::new(), |line| format!(" (line {line})"));
    let detail = match error.kind() {
        ErrorKind::OutOfFuel => "does more work than any conversation needs".to_owned(),
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    };
    Error::ChatTemplate(format!("{}{line}", detail.replace('\n', " ")))
}
