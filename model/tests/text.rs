use proptest::prelude::*;

use super::*;

pub(super) fn texts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/texts")
}

pub(super) fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub(super) fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}

fn both() -> [Tokenizer; 2] {
    ["bytes", "pieces"].map(|name| Tokenizer::open(&texts().join(name)).unwrap())
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip: bool) -> (String, Vec<String>) {
    let mut stream = tokenizer.stream(skip);
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    (pieces.concat(), pieces)
}

#[test]
fn texts_are_encoded_and_decoded_as_by_transformers() {
    for name in ["bytes", "pieces"] {
        let tokenizer = Tokenizer::open(&texts().join(name)).unwrap();
        for row in json(&texts().join(name).join("encodings.json")).as_array().unwrap() {
            let text = row["text"].as_str().unwrap();
            let tokens = tokenizer.encode(text, false).unwrap();
            assert_eq!(tokens, ids(&row["ids"]), "{name}: {text:?}");
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&row["with_special"]));
            assert_eq!(tokenizer.decode(&tokens, false).unwrap(), row["decoded"]);
            assert_eq!(tokenizer.decode(&tokens, true).unwrap(), row["decoded_without_special"]);
            assert_eq!(streamed(&tokenizer, &tokens, false).0, row["decoded"], "{name}");
            assert_eq!(streamed(&tokenizer, &tokens, true).0, row["decoded_without_special"]);
        }
    }
}

#[test]
fn special_tokens_are_those_of_the_tokenizer_config() {
    let [bytes, pieces] = both();
    assert_eq!((bytes.bos(), bytes.eos(), bytes.pad()), (Some(0), Some(1), Some(2)));
    assert_eq!((pieces.bos(), pieces.eos(), pieces.pad()), (Some(1), Some(2), None));
    assert!(bytes.is_special(3) && !bytes.is_special(5));
    assert_eq!(bytes.token_to_id("<|im_start|>"), Some(3));
    assert_eq!(bytes.id_to_token(4).as_deref(), Some("<|im_end|>"));
}

#[test]
fn a_character_comes_out_with_the_last_of_its_tokens() {
    for tokenizer in both() {
        let tokens = tokenizer.encode("a 😀", false).unwrap();
        let (text, pieces) = streamed(&tokenizer, &tokens, true);
        assert_eq!(text, "a 😀");
        // Four bytes, no merges: three tokens wait for the fourth.
        let wait: Vec<&str> = pieces[pieces.len() - 5..].iter().map(String::as_str).collect();
        assert_eq!(wait, ["", "", "", "😀", ""]);
    }
}

#[test]
fn bytes_that_never_become_a_character_come_out_in_the_end() {
    for tokenizer in both() {
        let tokens = tokenizer.encode("ok 😀", false).unwrap();
        let cut = &tokens[..tokens.len() - 1];
        assert_eq!(streamed(&tokenizer, cut, true).0, tokenizer.decode(cut, true).unwrap());
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let home = Home::of(&ModelSpec { vocab_size: 399, ..tiny() });
    fs::copy(texts().join("bytes/tokenizer.json"), home.file("tokenizer.json")).unwrap();
    let message = home.complaint();
    assert!(
        message.starts_with("DIR: tokenizer: is another model's: token ")
            && message.ends_with(" has id 399, the model's vocab_size is 399"),
        "{message}"
    );
    let home = Home::of(&ModelSpec { vocab_size: 400, ..tiny() });
    fs::copy(texts().join("bytes/tokenizer.json"), home.file("tokenizer.json")).unwrap();
    Model::open(&home.path()).unwrap();
}

#[test]
fn a_spoiled_tokenizer_is_refused() {
    let home = Home::of(&tiny());
    fs::write(home.file("tokenizer.json"), "{\"model\": 3}").unwrap();
    let message = home.complaint();
    assert!(message.starts_with("DIR/tokenizer.json: is not a tokenizer: "), "{message}");
    fs::write(home.file("tokenizer.json"), [0xff, 0xfe]).unwrap();
    home.complaint();
    fs::remove_file(home.file("tokenizer.json")).unwrap();
    let model = Model::open(&home.path()).unwrap();
    let error = model.tokenizer().unwrap_err();
    assert_eq!(home.message(&error), "DIR/tokenizer.json: is missing");
}

#[test]
fn tokens_that_only_the_config_names_are_added() {
    let home = Home::of(&ModelSpec { vocab_size: 401, ..tiny() });
    fs::copy(texts().join("bytes/tokenizer.json"), home.file("tokenizer.json")).unwrap();
    let added = |id: u32| {
        format!(
            r#"{{"added_tokens_decoder": {{"{id}": {{"content": "<|x|>", "special": true}}}}}}"#
        )
    };
    fs::write(home.file("tokenizer_config.json"), added(400)).unwrap();
    let tokenizer = Tokenizer::open(&home.path()).unwrap();
    assert_eq!(tokenizer.encode("<|x|>", false).unwrap(), [400]);
    assert!(tokenizer.is_special(400));
    fs::write(home.file("tokenizer_config.json"), added(7)).unwrap();
    let error = Tokenizer::open(&home.path()).unwrap_err();
    assert_eq!(
        home.message(&error),
        "DIR/tokenizer_config.json: gives \"<|x|>\" the id 7, tokenizer.json 400"
    );
}

#[test]
fn an_eos_id_beyond_the_vocabulary_is_refused() {
    let home = Home::of(&tiny());
    home.edit("generation_config.json", |config| config["eos_token_id"] = 37.into());
    assert_eq!(home.complaint(), "DIR: eos_token_id 37 is beyond the vocab_size of 37");
}

proptest! {
    // Random ids are what an untrained model samples: mostly broken bytes.
    #[test]
    fn pieces_add_up_to_the_whole_text(tokens in proptest::collection::vec(0u32..400, 0..40), skip: bool) {
        let [bytes, _] = both();
        prop_assert_eq!(streamed(&bytes, &tokens, skip).0, bytes.decode(&tokens, skip).unwrap());
    }

    #[test]
    fn any_text_comes_back_from_its_bytes(text in "\\PC{0,40}") {
        let [bytes, _] = both();
        let tokens = bytes.encode(&text, false).unwrap();
        prop_assert_eq!(&bytes.decode(&tokens, false).unwrap(), &text);
        prop_assert_eq!(streamed(&bytes, &tokens, false).0, text);
    }
}

#[test]
fn a_tokenizer_over_which_the_library_panics_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    // Cut off within the decoder, which the library unwraps.
    fs::write(&path, r#"{"version": "1.0", "decoder": {"type": "ByteLevel""#).unwrap();
    let message = Tokenizer::open(dir.path()).unwrap_err().to_string();
    assert!(
        message.ends_with("is not a tokenizer: tokenizer.json contradicts itself"),
        "{message}"
    );
}
