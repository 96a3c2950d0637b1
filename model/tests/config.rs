use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What the reader makes of a config with some keys changed (`null` stays a `null`).
fn read(family: &str, changes: Value) -> std::result::Result<ModelSpec, String> {
    let class = Family::architecture(
        serde_json::from_value(json!(family)).unwrap_or(Family::Llama),
        Head::LanguageModel,
    );
    let mut config = json!({
        "architectures": [class], "model_type": family, "hidden_size": 48, "intermediate_size": 80,
        "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 100,
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    config_json::open(dir.path()).map(|config| config.spec).map_err(|error| {
        let message = error.to_string();
        assert!(!message.contains('\n'), "{message}");
        message.replace(&format!("{}/", dir.path().display()), "")
    })
}

fn refusal(family: &str, changes: Value) -> String {
    read(family, changes).unwrap_err()
}

#[test]
fn absent_keys_have_the_defaults_of_transformers() {
    let heads = |n| json!({"num_key_value_heads": n});
    let llama = read("llama", json!({})).unwrap();
    assert_eq!((llama.num_kv_heads, llama.head_dim, llama.max_positions), (4, 12, 2048));
    assert_eq!((llama.rms_norm_eps, llama.rope_theta), (1e-6, 10_000.0));
    assert!(!llama.tie_word_embeddings && llama.sliding_window.is_none());
    let mistral = read("mistral", heads(2)).unwrap();
    assert_eq!((mistral.sliding_window, mistral.max_positions), (Some(4096), 131_072));
    // Mistral's default of 8 key heads does not divide 4.
    assert_eq!(
        refusal("mistral", json!({})),
        "config.json: num_key_value_heads must be a divisor of num_attention_heads (4), got 8"
    );
    let qwen2 = read("qwen2", heads(2)).unwrap();
    assert!(qwen2.qkv_bias && !qwen2.o_bias && qwen2.sliding_window.is_none());
    let qwen3 = read("qwen3", heads(2)).unwrap();
    assert!(qwen3.qk_norm && !qwen3.qkv_bias);
    assert_eq!(qwen3.head_dim, 128);
}

#[test]
fn both_spellings_of_rope_are_read() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
    let mut parameters = llama3.clone();
    parameters["rope_theta"] = json!(5e5);
    let four = read("llama", json!({"rope_theta": 5e5, "rope_scaling": llama3})).unwrap();
    let five = read("llama", json!({"rope_parameters": parameters})).unwrap();
    assert_eq!(four, five);
    assert_eq!(four.rope_theta, 5e5);
    assert!(matches!(four.rope_scaling, Some(RopeScaling::Llama3 { factor: 8.0, .. })));
    let old = read("llama", json!({"rope_scaling": {"type": "linear", "factor": 2}})).unwrap();
    assert_eq!(old.rope_scaling, Some(RopeScaling::Linear { factor: 2.0 }));
    let both = json!({"rope_scaling": {"rope_type": "linear", "factor": 3.0},
        "rope_parameters": {"rope_type": "linear", "factor": 2.0}});
    let both = read("llama", both).unwrap();
    assert_eq!(both.rope_scaling, Some(RopeScaling::Linear { factor: 3.0 }));
    let none = json!({"rope_scaling": null, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}});
    let plain = read("llama", none).unwrap();
    assert_eq!((plain.rope_scaling, plain.rope_theta), (None, 7.0));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let cases = [
        (json!({"model_type": "gpt_neox"}), "model_type \"gpt_neox\""),
        (
            json!({"architectures": ["LlamaForQuestionAnswering"]}),
            "architectures [\"LlamaForQuestionAnswering\"]",
        ),
        (
            json!({"architectures": ["MistralForCausalLM"]}),
            "architectures [\"MistralForCausalLM\"]",
        ),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}), "rope_type \"yarn\""),
        (json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}), "type \"dynamic\""),
        (json!({"hidden_act": "gelu"}), "hidden_act \"gelu\""),
        (json!({"quantization_config": {"bits": 4}}), "quantization_config {\"bits\":4}"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor 0.5"),
        (json!({"dtype": "float64"}), "dtype \"float64\""),
    ];
    for (changes, named) in cases {
        let message = refusal("llama", changes);
        let expected = format!("config.json: {named} is not supported; supported: ");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn numbers_that_cannot_be_are_refused_by_name() {
    let cases = [
        (json!({"hidden_size": null}), "hidden_size is missing"),
        (json!({"hidden_size": 0}), "hidden_size must be a whole number from 1 to 1048576, got 0"),
        (
            json!({"hidden_size": "48"}),
            "hidden_size must be a whole number from 1 to 1048576, got \"48\"",
        ),
        (
            json!({"vocab_size": 1e30}),
            "vocab_size must be a whole number from 1 to 67108864, got 1e+30",
        ),
        (
            json!({"num_hidden_layers": -2}),
            "num_hidden_layers must be a whole number from 1 to 4096, got -2",
        ),
        (json!({"head_dim": 13}), "head_dim must be even, as rotary embeddings turn pairs, got 13"),
        (json!({"hidden_size": 50}), "num_attention_heads must be a divisor of hidden_size, got 4"),
        (
            json!({"num_key_value_heads": 3}),
            "num_key_value_heads must be a divisor of num_attention_heads (4), got 3",
        ),
        (json!({"rms_norm_eps": 0}), "rms_norm_eps must be a finite number above 0, got 0"),
        (json!({"rope_theta": -1.0}), "rope_theta must be a finite number above 0, got -1.0"),
        (json!({"rope_scaling": {"rope_type": "linear"}}), "factor of the rope scaling is missing"),
    ];
    for (changes, expected) in cases {
        assert_eq!(refusal("llama", changes), format!("config.json: {expected}"));
    }
}

#[test]
fn a_score_head_has_the_labels_that_the_file_names() {
    let scored = |labels: Value| {
        let mut changes = labels;
        changes["architectures"] = json!(["LlamaForSequenceClassification"]);
        read("llama", changes)
    };
    let labels = |changes: Value| {
        let spec = scored(changes).unwrap();
        assert_eq!(spec.head, Head::Score);
        assert_eq!(spec.tensors().last().unwrap().shape, [spec.num_labels(), spec.hidden_size]);
        spec.labels
    };
    assert!(labels(json!({"id2label": {"0": "LABEL_0"}})).is_empty());
    assert!(labels(json!({"num_labels": 1})).is_empty());
    assert_eq!(labels(json!({"id2label": {"0": "helpfulness"}})), ["helpfulness"]);
    // The default of transformers.
    assert_eq!(labels(json!({})), ["LABEL_0", "LABEL_1"]);
    assert_eq!(labels(json!({"id2label": {"1": "b", "0": "a", "2": "c"}})), ["a", "b", "c"]);
    for broken in
        [json!({"0": "a", "2": "b"}), json!({"0": "a", "1": "a"}), json!({"0": 1}), json!({})]
    {
        let said = scored(json!({"id2label": broken})).unwrap_err();
        assert!(said.starts_with("config.json: id2label must be names for 0 to"), "{said}");
    }
    let said = scored(json!({"num_labels": 1_000_000_000})).unwrap_err();
    assert!(said.starts_with("config.json: num_labels must be"), "{said}");
}

#[test]
fn qwen_windows_all_layers_or_none() {
    let window = |more: Value| {
        let mut changes =
            json!({"num_key_value_heads": 2, "use_sliding_window": true, "sliding_window": 9});
        for (key, value) in more.as_object().unwrap() {
            changes[key] = value.clone();
        }
        read("qwen2", changes).map(|spec| spec.sliding_window)
    };
    assert_eq!(window(json!({"max_window_layers": 0})), Ok(Some(9)));
    assert_eq!(window(json!({"max_window_layers": 3})), Ok(None));
    assert_eq!(window(json!({"use_sliding_window": false})), Ok(None));
    assert!(
        window(json!({"max_window_layers": 1}))
            .unwrap_err()
            .contains("use_sliding_window true is not supported")
    );
    let (sliding, full) = ("sliding_attention", "full_attention");
    assert_eq!(window(json!({"layer_types": [sliding, sliding, sliding]})), Ok(Some(9)));
    assert_eq!(window(json!({"layer_types": [full, full, full]})), Ok(None));
    assert!(
        window(json!({"layer_types": [full, full, sliding]})).unwrap_err().contains("layer_types")
    );
    assert!(
        window(json!({"layer_types": [full]})).unwrap_err().contains("layer_types must be 3 of")
    );
}

#[test]
fn the_configs_of_both_transformers_say_the_same() {
    for model in golden_models() {
        let name = model.file_name().unwrap().to_string_lossy().into_owned();
        let five = config_json::open(&model).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::copy(model.join("config.v4.json"), dir.path().join("config.json")).unwrap();
        assert_eq!(config_json::open(dir.path()).unwrap(), five, "{name}");
    }
}

#[test]
fn a_golden_model_survives_being_written() {
    for model in golden_models() {
        let checkpoint = Checkpoint::open(&model).unwrap();
        let weights = checkpoint.weights(checkpoint.spec().dtype).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        let companions = Companions::of(&model).unwrap();
        write_model(&copy, checkpoint.spec(), &weights, &companions).unwrap();
        let again = Checkpoint::open(&copy).unwrap();
        assert_eq!(again.spec(), checkpoint.spec());
        assert_eq!(checksum(&again.weights(again.spec().dtype).unwrap()), checksum(&weights));
        assert_eq!(GenerationConfig::open(&copy).unwrap(), companions.generation);
    }
}

fn specs() -> impl Strategy<Value = ModelSpec> {
    let families = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3];
    let scaling = prop_oneof![
        Just(None),
        (1.0..9.0f64).prop_map(|factor| Some(RopeScaling::Linear { factor })),
        (1.0..9.0f64, 1usize..5000).prop_map(|(factor, original_max_position_embeddings)| {
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings,
            })
        }),
    ];
    let sizes = (1usize..4, 1usize..5, 1usize..9, 1usize..2000, 1usize..5000);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let window = proptest::option::of(1usize..500);
    (0usize..4, sizes, flags, scaling, window, 1e-9..0.1f64, 1.0..1e7f64).prop_map(
        move |(
            family,
            (kv, groups, half, vocab, positions),
            flags,
            rope_scaling,
            window,
            eps,
            theta,
        )| {
            let family = families[family];
            let bias = match family {
                Family::Llama | Family::Qwen3 => flags.0,
                Family::Mistral => false,
                Family::Qwen2 => true,
            };
            ModelSpec {
                family,
                head: if flags.1 { Head::Score } else { Head::LanguageModel },
                labels: (0..groups).filter(|_| flags.1).map(|n| format!("rated {n}")).collect(),
                hidden_size: kv * groups * 3,
                intermediate_size: half + 7,
                num_layers: groups,
                num_heads: kv * groups,
                num_kv_heads: kv,
                head_dim: 2 * half,
                vocab_size: vocab,
                max_positions: positions,
                rms_norm_eps: eps,
                rope_theta: theta,
                rope_scaling,
                sliding_window: window.filter(|_| family != Family::Llama),
                qkv_bias: bias,
                o_bias: bias && family != Family::Qwen2,
                mlp_bias: flags.2 && family == Family::Llama,
                qk_norm: family == Family::Qwen3,
                tie_word_embeddings: flags.3,
                dtype: [Dtype::F32, Dtype::F16, Dtype::Bf16][vocab % 3],
            }
        },
    )
}

proptest! {
    #[test]
    fn every_spec_survives_its_config_json(spec in specs()) {
        spec.check().unwrap();
        let written = config_out::to_json(&spec, spec.dtype, &GenerationConfig::default());
        let path = Path::new("config.json");
        let object = written.as_object().unwrap();
        let read = config_json::parse(fields::Fields { path, object }).unwrap();
        prop_assert!(read.says_dtype);
        prop_assert_eq!(read.spec, spec);
    }

    #[test]
    fn no_value_in_a_config_makes_the_reader_panic(
        key in 0usize..30,
        value in prop_oneof![
            Just(json!(null)), Just(json!([])), Just(json!({})), Just(json!("x")), Just(json!(true)),
            any::<i64>().prop_map(|n| json!(n)), any::<f64>().prop_map(|n| json!(n)),
        ],
    ) {
        let mut written = config_out::to_json(&tiny(), Dtype::F32, &GenerationConfig::default());
        let keys: Vec<String> = written.as_object().unwrap().keys().cloned().collect();
        written[&keys[key % keys.len()]] = value;
        let object = written.as_object().unwrap();
        let _ = config_json::parse(fields::Fields { path: Path::new("config.json"), object })
            .map(|config| config.spec.tensors());
    }
}
