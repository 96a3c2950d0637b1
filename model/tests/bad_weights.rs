use std::collections::BTreeMap;

use proptest::prelude::*;
use safetensors::{SafeTensors, tensor::TensorView};

use super::*;

type Tensors = BTreeMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)>;

/// Rewrites the weights' file after a change to its tensors.
fn change(home: &Home, change: impl FnOnce(&mut Tensors)) {
    let path = home.file("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = read
        .iter()
        .map(|(name, view)| (name.into(), (view.dtype(), view.shape().into(), view.data().into())))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn complaint_after(spoil: impl FnOnce(&mut Tensors)) -> String {
    let home = Home::of(&tiny());
    change(&home, spoil);
    home.complaint()
}

fn complaint_about(spoil: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let home = Home::of(&tiny());
    let path = home.file("model.safetensors");
    let bytes = spoil(fs::read(&path).unwrap());
    fs::write(&path, bytes).unwrap();
    home.complaint()
}

#[test]
fn a_truncated_file_is_refused() {
    let message = complaint_about(|bytes| bytes[..bytes.len() - 100].to_vec());
    assert_eq!(
        message,
        "DIR/model.safetensors: is truncated: the header describes 12624 bytes of tensors, the file holds 12524"
    );
    let message = complaint_about(|bytes| bytes[..5].to_vec());
    assert_eq!(message, "DIR/model.safetensors: is truncated: 5 bytes are too few for safetensors");
    let message = complaint_about(|_| vec![]);
    assert_eq!(message, "DIR/model.safetensors: is truncated: 0 bytes are too few for safetensors");
}

#[test]
fn a_header_longer_than_the_file_is_refused() {
    let longer = |mut bytes: Vec<u8>| {
        bytes[..8].copy_from_slice(&90_000_000u64.to_le_bytes());
        bytes
    };
    let message = complaint_about(longer);
    assert!(message.contains("claims a header of 90000000 bytes, "), "{message}");
    let endless = |mut bytes: Vec<u8>| {
        bytes[..8].fill(0xff);
        bytes
    };
    let message = complaint_about(endless);
    assert!(message.contains("claims a header of 18446744073709551615 bytes, "), "{message}");
}

#[test]
fn a_corrupt_header_is_refused() {
    let replace = |from: &'static str, to: &'static str| {
        complaint_about(move |bytes| {
            let text = String::from_utf8_lossy(&bytes[8..3000]).into_owned();
            let place = 8 + text.find(from).unwrap();
            let mut bytes = bytes;
            bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
            bytes
        })
    };
    let start = "DIR/model.safetensors: has a corrupt header: ";
    let message = replace("{", "[");
    assert!(message.starts_with(start), "{message}");
    let message = replace("\"F32\"", "\"Q32\"");
    assert_eq!(message, format!("{start}unknown dtype `Q32`"));
    let message = replace("[0,", "[4,");
    assert_eq!(message, format!("{start}invalid offset for tensor `lm_head.weight`"));
    let message = replace("[37,12]", "[37,11]");
    assert_eq!(message, format!("{start}invalid shape, data type, or offset for tensor"));
}

#[test]
fn a_dtype_that_is_no_float_of_16_or_32_bits_is_refused() {
    let message = complaint_after(|tensors| {
        let (dtype, _, _) = tensors.get_mut("model.norm.weight").unwrap();
        *dtype = safetensors::Dtype::I32;
    });
    assert_eq!(
        message,
        "DIR/model.safetensors: tensor model.norm.weight is of dtype I32, which is not supported; supported: F32, F16, BF16"
    );
}

#[test]
fn missing_extra_and_misshapen_tensors_are_all_named() {
    let message = complaint_after(|tensors| {
        let norm = tensors.remove("model.norm.weight").unwrap();
        tensors.insert("model.norm.scale".into(), norm);
        let (_, shape, _) = tensors.get_mut("lm_head.weight").unwrap();
        shape.swap(0, 1);
    });
    assert_eq!(
        message,
        "DIR/model.safetensors: the weights do not cover the model: missing model.norm.weight; \
         extra model.norm.scale; lm_head.weight must be [37, 12], got [12, 37]"
    );
}

#[test]
fn a_line_break_in_a_name_breaks_no_error() {
    let message = complaint_after(|tensors| {
        let norm = tensors["model.norm.weight"].clone();
        tensors.insert("a\nb".into(), norm);
    });
    assert!(message.contains("extra a\\nb"), "{message}");
}

#[test]
fn numbers_that_are_none_are_refused_by_place() {
    for (dtype, bits) in [(Dtype::F32, 4), (Dtype::F16, 2), (Dtype::Bf16, 2)] {
        for bytes in [[0x00, 0x00, 0xc0, 0xff], [0x00, 0x00, 0x80, 0x7f]] {
            let home = Home::of(&ModelSpec { dtype, ..tiny() });
            change(&home, |tensors| {
                let (_, _, data) = tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap();
                // The upper half of these f32 is a bf16, and for f16, too, no number.
                let number = &bytes[4 - bits..];
                data[7 * bits..8 * bits].copy_from_slice(number);
            });
            assert_eq!(
                home.complaint(),
                "DIR/model.safetensors: tensor model.layers.1.mlp.up_proj.weight has a NaN or infinite number at index 7",
                "{dtype}"
            );
        }
    }
}

#[test]
fn a_number_too_large_for_the_wanted_format_is_refused() {
    let home = Home::of(&tiny());
    change(&home, |tensors| {
        let (_, _, data) = tensors.get_mut("model.norm.weight").unwrap();
        data[8..12].copy_from_slice(&70_000f32.to_le_bytes());
    });
    let checkpoint = Checkpoint::open(&home.path()).unwrap();
    checkpoint.weights(Dtype::F32).unwrap();
    checkpoint.weights(Dtype::Bf16).unwrap();
    let error = checkpoint.weights(Dtype::F16).unwrap_err();
    assert_eq!(
        home.message(&error),
        "DIR/model.safetensors: tensor model.norm.weight has a number too large for f16 at index 2"
    );
}

#[test]
fn tensors_that_old_checkpoints_repeat_are_tolerated() {
    let home = Home::of(&ModelSpec { tie_word_embeddings: true, ..tiny() });
    change(&home, |tensors| {
        let embedding = tensors["model.embed_tokens.weight"].clone();
        tensors.insert("lm_head.weight".into(), embedding);
        let frequencies = (safetensors::Dtype::F32, vec![2], vec![0; 8]);
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), frequencies);
    });
    Checkpoint::open(&home.path()).unwrap().weights(Dtype::F32).unwrap();
    change(&home, |tensors| tensors.get_mut("lm_head.weight").unwrap().2[0] ^= 1);
    assert_eq!(
        home.complaint(),
        "DIR/model.safetensors: tensor lm_head.weight differs from model.embed_tokens.weight, but tie_word_embeddings is true"
    );
}

#[test]
fn a_directory_without_weights_is_refused() {
    let home = Home::of(&tiny());
    fs::remove_file(home.file("model.safetensors")).unwrap();
    let both = "DIR: has neither model.safetensors nor model.safetensors.index.json";
    assert_eq!(home.complaint(), both);
    fs::write(home.file("pytorch_model.bin"), "").unwrap();
    let hint = "; pickled weights must be saved as safetensors first";
    assert_eq!(home.complaint(), format!("{both}{hint}"));
}

fn sharded() -> Home {
    Home::with(&tiny(), &WriteOptions { shard_bytes: 5000, replace: false })
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn an_index_must_be_true() {
    let home = sharded();
    fs::remove_file(home.file("model-00002-of-00003.safetensors")).unwrap();
    assert_eq!(
        home.complaint(),
        "DIR/model.safetensors.index.json: names model-00002-of-00003.safetensors, which is missing"
    );

    let home = sharded();
    home.edit(INDEX, |index| {
        index["weight_map"]["model.norm.weight"] = "model-00001-of-00003.safetensors".into();
    });
    let message = home.complaint();
    assert!(message.contains("tensor model.norm.weight is missing, but DIR"), "{message}");

    let home = sharded();
    home.edit(INDEX, |index| {
        index["weight_map"].as_object_mut().unwrap().remove("model.norm.weight");
    });
    assert!(
        home.complaint().ends_with("model.norm.weight is not in DIR/model.safetensors.index.json")
    );

    let home = sharded();
    home.edit(INDEX, |index| *index = serde_json::json!({"metadata": {}}));
    assert_eq!(home.complaint(), "DIR/model.safetensors.index.json: has no weight_map");
}

#[test]
fn an_index_must_stay_in_its_directory() {
    for name in ["../other/model.safetensors", "/etc/passwd", "..", "a/b", "a\\b", ""] {
        let home = sharded();
        home.edit(INDEX, |index| index["weight_map"]["model.norm.weight"] = name.into());
        let message = home.complaint();
        let expected = "tensor model.norm.weight must lie in a file beside the index, got";
        assert!(message.contains(expected), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(
        header in "\\PC{0,60}",
        length in prop_oneof![0u64..80, any::<u64>()],
        tail in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let message = complaint_about(|_| [&length.to_le_bytes(), header.as_bytes(), &tail].concat());
        prop_assert!(message.starts_with("DIR/model.safetensors: "), "{}", message);
    }

    #[test]
    fn no_single_wrong_byte_makes_the_reader_panic(place in 0usize..2500, value: u8, cut in 0usize..3000) {
        let home = Home::of(&tiny());
        let path = home.file("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        bytes[place] = value;
        bytes.truncate(bytes.len() - cut.saturating_sub(2900));
        fs::write(&path, bytes).unwrap();
        // A byte of a blank or of a number may be harmless; what counts is a line or a result.
        if let Err(error) = Checkpoint::open(&home.path()).and_then(|c| c.weights(Dtype::Bf16)) {
            home.message(&error);
        }
    }
}
