use super::*;

#[test]
fn what_is_written_is_read_back_bit_for_bit() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let labels = ["helpfulness", "verbosity"].map(String::from);
        let heads = [tiny(), tiny().with_head(Head::Score), tiny().with_labels(&labels)];
        for spec in heads {
            for shard_bytes in [1_000_000, 500] {
                let spec = ModelSpec { dtype, ..spec.clone() };
                let home = Home::with(&spec, &WriteOptions { shard_bytes, replace: false });
                let checkpoint = Checkpoint::open(&home.path()).unwrap();
                assert_eq!(*checkpoint.spec(), spec);
                let weights = checkpoint.weights(dtype).unwrap();
                assert_eq!(checksum(&weights), checksum(&weights_of(&spec)));
                assert_eq!(home.file("model.safetensors").exists(), shard_bytes == 1_000_000);
            }
        }
    }
}

#[test]
fn weights_in_the_files_format_are_the_map_itself() {
    let home = Home::of(&tiny());
    let checkpoint = Checkpoint::open(&home.path()).unwrap();
    let [first, second] = [(); 2].map(|()| checkpoint.weights(Dtype::F32).unwrap());
    let name = "model.norm.weight";
    let address = |weights: &Weights| weights.get(name).unwrap().memory.address();
    assert_eq!(address(&first), address(&second));
    let [first, second] = [(); 2].map(|()| checkpoint.weights(Dtype::Bf16).unwrap());
    assert_ne!(address(&first), address(&second));
}

#[test]
fn a_misaligned_tensor_is_read_all_the_same() {
    let home = Home::of(&tiny());
    let path = home.file("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    // One blank more in the header shifts every tensor by a byte.
    let header = [&bytes[8..8 + length as usize], b" "].concat();
    let shifted = [&(length + 1).to_le_bytes(), header.as_slice(), &bytes[8 + length as usize..]];
    fs::write(&path, shifted.concat()).unwrap();
    let weights = Checkpoint::open(&home.path()).unwrap().weights(Dtype::F32).unwrap();
    assert_eq!(checksum(&weights), checksum(&weights_of(&tiny())));
    for (_, tensor) in weights.iter() {
        assert!(tensor.memory.address().is_multiple_of(4));
    }
}

#[test]
fn converted_numbers_are_rounded_to_the_nearest() {
    let home = Home::of(&tiny());
    let checkpoint = Checkpoint::open(&home.path()).unwrap();
    let narrow = checkpoint.weights(Dtype::Bf16).unwrap();
    let source = weights_of(&tiny());
    let (reading, narrow_reading) = (
        source.lease().read(Duration::ZERO).unwrap(),
        narrow.lease().read(Duration::ZERO).unwrap(),
    );
    for (name, tensor) in source.iter() {
        let expected: Vec<half::bf16> =
            tensor.f32(&reading).iter().map(|&number| half::bf16::from_f32(number)).collect();
        assert_eq!(narrow.get(name).unwrap().bf16(&narrow_reading), expected, "{name}");
    }
}

#[test]
fn an_existing_directory_is_refused_unless_told() {
    let home = Home::of(&tiny());
    fs::write(home.file("mine.txt"), "kept").unwrap();
    let other = ModelSpec { head: Head::Score, ..tiny() };
    let (weights, companions) = (weights_of(&other), Companions::default());
    let error = write_model(&home.path(), &other, &weights, &companions).unwrap_err();
    assert_eq!(home.message(&error), "DIR exists already; choose another directory or remove it");
    assert_eq!(fs::read_to_string(home.file("mine.txt")).unwrap(), "kept");

    let options = WriteOptions { replace: true, ..WriteOptions::default() };
    write_model_with(&home.path(), &other, &weights, &companions, &options).unwrap();
    assert_eq!(Checkpoint::open(&home.path()).unwrap().spec().head, Head::Score);
    assert!(!home.file("mine.txt").exists());
    // Nothing temporary stays behind.
    assert_eq!(fs::read_dir(home.dir.path()).unwrap().count(), 1);
}

#[test]
fn weights_of_another_model_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let scored = ModelSpec { head: Head::Score, ..tiny() };
    let error = write_model(&path, &scored, &weights_of(&tiny()), &Companions::default());
    let message = error.unwrap_err().to_string();
    assert!(message.contains("missing score.weight; extra lm_head.weight"), "{message}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_failure_half_way_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let mut companions = Companions::default();
    companions.files.insert("no/such/folder.json".into(), vec![]);
    write_model(&path, &tiny(), &weights_of(&tiny()), &companions).unwrap_err();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_parent_that_is_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let path = dir.path().join("file/model");
    let error = write_model(&path, &tiny(), &weights_of(&tiny()), &Companions::default());
    let message = error.unwrap_err().to_string();
    assert!(message.starts_with("cannot create ") && !message.contains('\n'), "{message}");
}

#[cfg(unix)]
#[test]
fn a_written_directory_is_as_open_as_any_other() {
    use std::os::unix::fs::MetadataExt;
    let home = Home::of(&tiny());
    let plain = home.dir.path().join("plain");
    fs::create_dir(&plain).unwrap();
    assert_eq!(fs::metadata(home.path()).unwrap().mode(), fs::metadata(&plain).unwrap().mode());
}

#[test]
fn companions_travel_with_a_model() {
    let home = Home::of(&tiny());
    fs::write(home.file("tokenizer_config.json"), r#"{"eos_token": "x"}"#).unwrap();
    fs::write(
        home.file("generation_config.json"),
        r#"{"eos_token_id": [5, 6], "pad_token_id": -1, "temperature": 0.5, "top_k": 0, "new": 1}"#,
    )
    .unwrap();
    let companions = Companions::of(&home.path()).unwrap();
    assert_eq!(companions.generation.eos_token_ids, [5, 6]);
    let copy = home.dir.path().join("copy");
    write_model(&copy, &tiny(), &weights_of(&tiny()), &companions).unwrap();
    assert_eq!(Companions::of(&copy).unwrap(), companions);
}

#[test]
fn ids_that_the_generation_config_lacks_are_those_of_the_config() {
    let home = Home::of(&tiny());
    fs::write(home.file("generation_config.json"), r#"{"bos_token_id": 9}"#).unwrap();
    home.edit("config.json", |config| {
        config["eos_token_id"] = 7.into();
        config["bos_token_id"] = 8.into();
        config["temperature"] = 0.1.into();
    });
    let read = GenerationConfig::open(&home.path()).unwrap();
    let expected = GenerationConfig {
        eos_token_ids: vec![7],
        bos_token_id: Some(9),
        ..GenerationConfig::default()
    };
    assert_eq!(read, expected);
    fs::remove_file(home.file("generation_config.json")).unwrap();
    let read = GenerationConfig::open(&home.path()).unwrap();
    assert_eq!(read, GenerationConfig { bos_token_id: Some(8), ..expected });
}

#[test]
fn a_score_head_takes_the_place_of_the_language_models() {
    for tie_word_embeddings in [true, false] {
        let spec = ModelSpec { tie_word_embeddings, ..tiny() };
        let weights = weights_of(&spec);
        let (scored, reward) = with_score_head(&spec, &weights, &[], 1).unwrap();
        reward.check_coverage(&scored.tensors()).unwrap();
        let name = "model.layers.1.mlp.up_proj.weight";
        assert_eq!(
            weights.get(name).unwrap().memory.address(),
            reward.get(name).unwrap().memory.address()
        );
        let (_, other) = with_score_head(&spec, &weights, &[], 2).unwrap();
        assert_ne!(checksum(&reward), checksum(&other));
        // A second head would throw away what was learned.
        assert_eq!(
            checksum(&with_score_head(&scored, &reward, &[], 2).unwrap().1),
            checksum(&reward)
        );
    }
}

#[test]
fn random_weights_have_the_spread_asked_for() {
    let spec = ModelSpec { vocab_size: 5000, ..tiny() };
    let weights = random_weights(&spec, Init { std: 0.02, seed: 1 });
    let reading = weights.lease().read(Duration::ZERO).unwrap();
    let numbers = weights.get("model.embed_tokens.weight").unwrap().f32(&reading);
    let count = numbers.len() as f64;
    let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let std = (numbers.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / count).sqrt();
    // Four standard errors of 60,000 draws.
    assert!(mean.abs() < 4.0 * 0.02 / count.sqrt(), "{mean}");
    assert!((std - 0.02).abs() < 4.0 * 0.02 / (2.0 * count).sqrt(), "{std}");
    assert!(weights.get("model.norm.weight").unwrap().f32(&reading).iter().all(|&x| x == 1.0));
}
