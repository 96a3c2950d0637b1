//! Configurations, rows of data, chat templates.

use std::{path::Path, sync::OnceLock};

use rollforge::{
    config::{
        self, Config, DistillConfig, DpoConfig, KtoConfig, PpoConfig, RegressionConfig,
        RewardModelConfig, SftConfig, SteerLm2Config,
    },
    data::{
        DataConfig, OverLong, PairSample, PromptSample, RatedSample, Sample, SftSample,
        TextEncoder, load_train, read_rows,
    },
    engine::EngineModel,
    model::{ChatOptions, ChatTemplate, GenerationConfig, SpecialTokens, Tokenizer},
};
use serde_json::{Value, json};

use super::{folder_with, refused, two_texts};

/// A TOML file; after a zero byte, a line for each `key=value` override.
pub fn config(data: &[u8]) {
    let Some((text, overrides)) = two_texts(data) else { return };
    let overrides: Vec<String> = overrides.unwrap_or_default().lines().map(Into::into).collect();
    one_config::<PpoConfig>(text, &overrides);
    one_config::<RewardModelConfig>(text, &overrides);
    one_config::<RegressionConfig>(text, &overrides);
    one_config::<DpoConfig>(text, &overrides);
    one_config::<KtoConfig>(text, &overrides);
    one_config::<SteerLm2Config>(text, &overrides);
    one_config::<DistillConfig>(text, &overrides);
    one_config::<SftConfig>(text, &overrides);
}

/// What is accepted reads back from what is written of it.
fn one_config<T: Config>(text: &str, overrides: &[String]) {
    let parse = |text: &str, more: &[String]| {
        config::parse::<T>("a.toml", text.into(), Path::new("/"), more)
    };
    match parse(text, overrides) {
        Err(error) => refused(error),
        Ok(accepted) => {
            let written = config::to_toml(&accepted);
            let again = parse(&written, &[]).unwrap_or_else(|error| panic!("{error} in {written}"));
            assert_eq!(config::to_toml(&again), written);
        }
    }
}

/// A JSON Lines file, as samples of every kind.
pub fn rows(data: &[u8]) {
    let folder = folder_with("rows.jsonl", data);
    let mut config = DataConfig::new(vec![folder.path().join("rows.jsonl")]);
    config.max_tokens = 48;
    samples::<PromptSample>(&config);
    samples::<SftSample>(&config);
    samples::<RatedSample>(&config);
    config.over_long = OverLong::Truncate;
    samples::<PairSample>(&config);
    samples::<PromptSample>(&config);
}

fn samples<S: Sample>(config: &DataConfig) {
    static TEMPLATE: OnceLock<ChatTemplate> = OnceLock::new();
    let template = TEMPLATE.get_or_init(|| {
        let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                      {% if add_generation_prompt %}assistant: {% endif %}";
        ChatTemplate::new(source, SpecialTokens::default()).expect("it is a template")
    });
    let generation = GenerationConfig::default();
    let encoder = TextEncoder::new(config, byte_tokenizer(), Some(template), &generation);
    match load_train::<S>(config, &encoder.expect("the tokenizer names an EOS")) {
        Err(error) => refused(error),
        Ok(loaded) => assert!(!loaded.samples.is_empty()),
    }
}

/// A Parquet file.
pub fn parquet(data: &[u8]) {
    let folder = folder_with("rows.parquet", data);
    if let Err(error) = read_rows(&folder.path().join("rows.parquet"), 100) {
        refused(error);
    }
}

/// A chat template; after a zero byte, the messages as a JSON list.
pub fn chat_template(data: &[u8]) {
    let Some((source, messages)) = two_texts(data) else { return };
    let usual =
        json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Hi" }]);
    let given = messages.and_then(|messages| serde_json::from_str(messages).ok());
    let Value::Array(messages) = given.unwrap_or(usual) else { return };
    let template = match ChatTemplate::new(source, SpecialTokens::default()) {
        Err(error) => return refused(error),
        Ok(template) => template,
    };
    let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
    match template.encode(byte_tokenizer(), &messages, &options) {
        Err(error) => refused(error),
        Ok(chat) => assert_eq!(chat.ids.len(), chat.assistant_mask.len()),
    }
}

/// The tokenizer whose tokens are the bytes.
fn byte_tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| EngineModel::tiny(0).tokenizer.expect("a tiny model has one"))
}
