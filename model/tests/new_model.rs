use super::*;

fn texts() -> impl Iterator<Item = String> + Send {
    let nouns = ["kettle", "lamp", "chair", "blanket", "backpack", "speaker"];
    let words = ["sturdy", "flimsy", "lovely", "dreadful", "plain", "handsome"];
    nouns.into_iter().flat_map(move |noun| {
        words.into_iter().map(move |word| format!("The {noun} is {word}, and so is its box.\n"))
    })
}

fn small() -> NewModelSpec {
    NewModelSpec {
        vocab_size: 300,
        hidden_size: 16,
        intermediate_size: 24,
        num_layers: 1,
        num_heads: 2,
        ..NewModelSpec::default()
    }
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_new_model_is_a_complete_directory() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("deep/inside");
    let created = new_model(&small(), texts(), &out).unwrap();
    assert_eq!((created.spec.vocab_size, created.note()), (300, None));
    let model = Model::open(&out).unwrap();
    assert_eq!(*model.spec(), created.spec);
    model.checkpoint.weights(Dtype::F32).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (Some(0), Some(1), Some(2)));
    assert_eq!(model.generation.eos_token_ids, [1]);
    assert_eq!(tokenizer.encode("", true).unwrap(), [0]);
    let text = "The chair is plain — 平 😀<|endoftext|>";
    let tokens = tokenizer.encode(text, false).unwrap();
    assert_eq!(tokens.last(), Some(&1));
    assert_eq!(tokenizer.decode(&tokens, false).unwrap(), text);
    // Merges were learned: words of the text take few tokens.
    assert!(tokenizer.encode(" is its box", false).unwrap().len() < 8);
}

#[test]
fn the_same_spec_and_text_give_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, seed: u64| {
        let out = dir.path().join(name);
        new_model(&NewModelSpec { seed, ..small() }, texts(), &out).unwrap();
        files(&out)
    };
    let first = make("first", 1);
    assert_eq!(first, make("second", 1));
    assert_ne!(first, make("third", 2));
}

#[test]
fn a_text_with_little_to_learn_gives_a_smaller_vocabulary_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let asked = NewModelSpec { vocab_size: 5000, ..small() };
    let created = new_model(&asked, texts(), &dir.path().join("model")).unwrap();
    let got = created.spec.vocab_size;
    assert!(got > 300 && got < 1000, "{got}");
    let note =
        format!("the text has too few repeated pieces for 5000 tokens; the vocabulary has {got}");
    assert_eq!(created.note(), Some(note));
}

#[test]
fn a_tokenizer_can_be_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let golden = super::text::texts().join("bytes");
    let spec = NewModelSpec { tokenizer: Some(golden.clone()), vocab_size: 408, ..small() };
    let out = dir.path().join("model");
    let created = new_model(&spec, std::iter::empty(), &out).unwrap();
    assert_eq!(created.spec.vocab_size, 408);
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(golden.join(name)).unwrap());
    }
    let spec = NewModelSpec { vocab_size: 399, ..spec };
    let message = new_model(&spec, std::iter::empty(), &dir.path().join("other")).unwrap_err();
    assert!(message.to_string().contains("has id 399, the model's vocab_size is 399"));
}

#[test]
fn a_spec_that_cannot_be_is_refused_and_nothing_is_written() {
    let cases = [
        (
            NewModelSpec { vocab_size: 258, ..small() },
            "vocab_size must be at least 259: 256 bytes and 3 special tokens, got 258",
        ),
        (
            NewModelSpec { num_heads: 3, ..small() },
            "hidden_size must be a multiple of num_heads (3), got 16",
        ),
        (NewModelSpec { num_heads: 0, ..small() }, "num_heads must be from 1 to 1048576, got 0"),
        (
            NewModelSpec { num_kv_heads: Some(3), ..small() },
            "num_kv_heads must be a divisor of num_heads (2), got 3",
        ),
        (
            NewModelSpec { head_dim: Some(7), ..small() },
            "head_dim must be even, as rotary embeddings turn pairs, got 7",
        ),
        (
            NewModelSpec { family: Family::Mistral, sliding_window: Some(0), ..small() },
            "sliding_window must be 1 or more, got 0",
        ),
        (
            NewModelSpec {
                rope_scaling: Some(RopeScaling::Linear { factor: f64::NAN }),
                ..small()
            },
            "factor must be a finite number above 0, got NaN",
        ),
        (
            NewModelSpec { family: Family::Mistral, attention_bias: true, ..small() },
            "attention_bias must be false for mistral, got true",
        ),
        (
            NewModelSpec { sliding_window: Some(7), ..small() },
            "sliding_window must be absent for llama, got 7",
        ),
        (
            NewModelSpec { init_std: f32::NAN, ..small() },
            "init_std must be a finite number of 0 or more, got NaN",
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (spec, expected) in cases {
        let error = new_model(&spec, texts(), &dir.path().join("model")).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let error = new_model(&small(), std::iter::empty(), &dir.path().join("model")).unwrap_err();
    assert_eq!(error.to_string(), "tokenizer: there is no text to learn from");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_spec_is_read_from_toml_and_unknown_keys_are_refused() {
    let text = "family = \"qwen3\"\nhead_dim = 8\ndtype = \"bf16\"\n[rope_scaling]\nrope_type = \"linear\"\nfactor = 2";
    let spec: NewModelSpec = toml::from_str(text).unwrap();
    assert_eq!((spec.family, spec.head_dim, spec.dtype), (Family::Qwen3, Some(8), Dtype::Bf16));
    assert_eq!(spec.rope_scaling, Some(RopeScaling::Linear { factor: 2.0 }));
    spec.shape(spec.vocab_size).check().unwrap();
    assert!(toml::from_str::<NewModelSpec>("hidden = 3").is_err());
}

#[test]
fn text_is_cut_and_normalised_as_transformers_does_under_qwen2() {
    let dir = tempfile::tempdir().unwrap();
    for (family, composed) in [(Family::Llama, "e\u{301}"), (Family::Qwen2, "\u{e9}")] {
        let out = dir.path().join(family.model_type());
        let numbers = (0..50).map(|number| format!("{number} 12345 12345"));
        new_model(&NewModelSpec { family, ..small() }, numbers, &out).unwrap();
        let tokenizer = Tokenizer::open(&out).unwrap();
        assert_eq!(tokenizer.encode("12345", false).unwrap().len(), 5);
        let tokens = tokenizer.encode("e\u{301}", false).unwrap();
        assert_eq!(tokenizer.decode(&tokens, false).unwrap(), composed);
    }
}
