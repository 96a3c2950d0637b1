//! A byte-level BPE tokenizer learned from text (Sennrich et al., 2016; bytes as in GPT-2).

use serde_json::{Map, Value, json};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerBuilder, TokenizerImpl,
    models::bpe::{BPE, BpeTrainer},
    normalizers::unicode::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    processors::template::TemplateProcessing,
    tokenizer::SplitDelimiterBehavior,
};

use super::{Error, Family, SpecialTokens, Tokenizer, error::Result, new_model::NewModelSpec};

/// Every byte is a token, so that no text is without one.
const BYTES: usize = 256;

/// Where merges stop: words with the blank before them, single digits, punctuation, line ends. It is Qwen2's, because
/// transformers 5 gives every tokenizer of a Qwen2 model this pattern, whatever its `tokenizer.json` says.
const WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Learns a tokenizer. Special tokens have the first ids: BOS, EOS, padding, then the extra ones.
///
/// Texts with little to merge give a smaller vocabulary than asked for.
pub(super) fn train(
    spec: &NewModelSpec,
    texts: impl Iterator<Item = String> + Send,
) -> Result<Tokenizer> {
    let specials = special_tokens(spec)?;
    let least = BYTES + specials.len();
    if spec.vocab_size < least {
        return Err(Error::Spec {
            field: "vocab_size".into(),
            rule: format!("at least {least}: {BYTES} bytes and {} special tokens", specials.len()),
            got: spec.vocab_size.to_string(),
        });
    }
    let mut trainer = BpeTrainer::builder()
        .vocab_size(spec.vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(specials.iter().map(|text| AddedToken::from(*text, true)).collect())
        .build();
    let mut tokenizer = unlearned(spec.family)?;
    tokenizer.train(&mut trainer, texts).map_err(failed)?;
    if let Some(bos) = spec.bos_token.as_deref().filter(|_| spec.add_bos) {
        tokenizer.with_post_processor(Some(leading(bos, tokenizer.token_to_id(bos))?));
    }
    let special = SpecialTokens {
        bos: spec.bos_token.clone(),
        eos: Some(spec.eos_token.clone()),
        pad: Some(spec.pad_token.clone()),
        unk: None,
    };
    Tokenizer::new(tokenizer.into(), special)
}

type Unlearned = TokenizerImpl<
    BPE,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

fn unlearned(family: Family) -> Result<Unlearned> {
    let bytes = ByteLevel::new(false, false, false);
    let words = SplitPattern::Regex(WORDS.into());
    let words = Split::new(words, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
    // As with the pattern, transformers normalises under Qwen2 whether we do or not.
    let normalizer = (family == Family::Qwen2).then_some(NormalizerWrapper::NFC(NFC));
    TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(normalizer)
        .with_pre_tokenizer(Some(Sequence::new(vec![words.into(), bytes.into()]).into()))
        .with_post_processor(Some(bytes.into()))
        .with_decoder(Some(bytes.into()))
        .build()
        .map_err(failed)
}

/// Returns the `tokenizer_config.json` beside a learned tokenizer.
pub(super) fn tokenizer_config(spec: &NewModelSpec) -> Value {
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    config.insert("model_max_length".into(), json!(spec.max_positions));
    config.insert("clean_up_tokenization_spaces".into(), json!(false));
    config.extend(spec.bos_token.as_ref().map(|token| ("bos_token".to_owned(), json!(token))));
    config.insert("eos_token".into(), json!(spec.eos_token));
    config.insert("pad_token".into(), json!(spec.pad_token));
    let template = spec.chat_template.as_ref();
    config.extend(template.map(|source| ("chat_template".to_owned(), json!(source))));
    Value::Object(config)
}

fn special_tokens(spec: &NewModelSpec) -> Result<Vec<&str>> {
    let named = spec.bos_token.iter().chain([&spec.eos_token, &spec.pad_token]);
    let mut tokens: Vec<&str> = Vec::new();
    for token in named.chain(&spec.extra_special_tokens) {
        if token.is_empty() {
            return Err(Error::Spec {
                field: "a special token".into(),
                rule: "a text".into(),
                got: "nothing".into(),
            });
        }
        // One token may play several parts, such as BOS and EOS.
        if !tokens.contains(&token.as_str()) {
            tokens.push(token);
        }
    }
    Ok(tokens)
}

fn leading(bos: &str, id: Option<u32>) -> Result<PostProcessorWrapper> {
    let id = id.ok_or_else(|| Error::Tokenizer(format!("{bos} has no id")))?;
    let template = |text: String| text.try_into().map_err(Error::Tokenizer);
    TemplateProcessing::builder()
        .single(template(format!("{bos} $A"))?)
        .pair(template(format!("{bos} $A {bos} $B"))?)
        .special_tokens(vec![(bos, id)])
        .build()
        .map(PostProcessorWrapper::Template)
        .map_err(|error| Error::Tokenizer(error.to_string()))
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}
