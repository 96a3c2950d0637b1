//! What rollforge writes, read by `transformers` and `peft` (`peers/check.py`).
//!
//! Needs a Python: the one that `ROLLFORGE_PEERS_PYTHON` names, or `.venv-peers`, which `tests/peers/venv.sh .venv-peers`
//! makes. Without one the test says so and passes: `make test` needs no Python.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rollforge::{
    model::{
        ChatOptions, Companions, Head, Message, Model, ModelSpec, NewModelSpec, WriteOptions,
        new_model, with_score_head, write_model_with,
    },
    rollout::{Dtype, Weights},
};
use serde_json::{Value, json};

const TOKENS: [u32; 23] =
    [1, 5, 9, 33, 41, 7, 12, 58, 20, 3, 3, 3, 17, 26, 44, 50, 8, 31, 10, 2, 6, 29, 55];

const TEXTS: [&str; 8] = [
    "the soup was good",
    " leading and  double spaces ",
    "",
    "Zürich, naïve café — 東京 🦀",
    "tabs\tand\nnew lines\r\n\n",
    "don't they'll WE'VE 12345 3.14",
    "special <|endoftext|> inside",
    "e\u{301} combining, \u{200d} joiner",
];

const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}<|turn|>{{ message['role'] }}\n\
    {{ message['content'] | trim }}{% if not loop.last %}\n{% endif %}{{ eos_token }}{% endfor %}\
    {% if add_generation_prompt %}<|turn|>assistant\n{% endif %}";

#[test]
fn transformers_reads_what_we_write() {
    let Some(python) = python() else {
        println!(
            "skipped: no Python with transformers; `make test-peers` makes one, or set ROLLFORGE_PEERS_PYTHON"
        );
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let mut directories = rewritten(root.path());
    directories.push(sharded(root.path()));
    directories.push(narrowed(root.path(), "qwen3", Dtype::Bf16));
    directories.push(narrowed(root.path(), "llama-linear", Dtype::F16));
    directories.push(made(root.path()));
    directories.extend(scored(root.path(), &[]));
    directories.extend(scored(root.path(), &["helpfulness", "correctness", "verbosity"]));
    directories.extend(adapters(root.path()));
    let checker = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/check.py");
    let output = Command::new(python)
        .arg(checker)
        .args(&directories)
        .env("HF_HUB_OFFLINE", "1")
        .env("TRANSFORMERS_VERBOSITY", "error")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn python() -> Option<PathBuf> {
    let named = std::env::var_os("ROLLFORGE_PEERS_PYTHON").map(PathBuf::from);
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv-peers/bin/python");
    named.or_else(|| ours.exists().then_some(ours))
}

/// Every golden model, read and written again.
fn rewritten(root: &Path) -> Vec<PathBuf> {
    let again = |name: String| {
        let model = Model::open(&support::golden(&name)).unwrap();
        let spec = model.spec().clone();
        let weights = model.checkpoint.weights(spec.dtype).unwrap();
        let companions = Companions::of(&support::golden(&name)).unwrap();
        written(&root.join(name), &spec, &weights, &companions)
    };
    let classifiers_too = cfg!(feature = "libtorch");
    let wanted = |name: &String| classifiers_too || !name.ends_with("-score");
    support::golden_names().into_iter().filter(wanted).map(again).collect()
}

fn sharded(root: &Path) -> PathBuf {
    let model = Model::open(&support::golden("qwen2")).unwrap();
    let weights = model.checkpoint.weights(Dtype::F32).unwrap();
    let directory = root.join("qwen2-in-shards");
    let options = WriteOptions { shard_bytes: 10_000, ..WriteOptions::default() };
    let companions = Companions { generation: model.generation.clone(), ..Companions::default() };
    write_model_with(&directory, model.spec(), &weights, &companions, &options).unwrap();
    assert!(directory.join("model.safetensors.index.json").exists());
    described(directory)
}

fn narrowed(root: &Path, name: &str, dtype: Dtype) -> PathBuf {
    let model = Model::open(&support::golden(name)).unwrap();
    let weights = model.checkpoint.weights(dtype).unwrap();
    let spec = ModelSpec { dtype, ..model.spec().clone() };
    written(&root.join(format!("{name}-in-{dtype}")), &spec, &weights, &Companions::default())
}

/// A model from nothing, with its own tokenizer and a chat template.
fn made(root: &Path) -> PathBuf {
    let directory = root.join("new-model");
    let spec = NewModelSpec {
        vocab_size: 300,
        hidden_size: 24,
        intermediate_size: 40,
        num_layers: 2,
        num_heads: 3,
        num_kv_heads: Some(1),
        init_std: 0.3,
        extra_special_tokens: vec!["<|turn|>".into()],
        chat_template: Some(CHAT_TEMPLATE.into()),
        ..NewModelSpec::default()
    };
    let texts = (0..200).map(|i| format!("the soup number {i} was good, the bread was not ({i}%)"));
    new_model(&spec, texts, &directory).unwrap();
    described(directory)
}

/// A language model's body under a new score head: how a reward model starts, of one label or of several.
fn scored(root: &Path, labels: &[&str]) -> Option<PathBuf> {
    if !cfg!(feature = "libtorch") {
        return None;
    }
    let model = Model::open(&support::golden("mistral")).unwrap();
    let weights = model.checkpoint.weights(Dtype::F32).unwrap();
    let names: Vec<String> = labels.iter().map(ToString::to_string).collect();
    let (spec, weights) = with_score_head(model.spec(), &weights, &names, 7).unwrap();
    let companions = Companions { generation: model.generation.clone(), ..Companions::default() };
    let name = format!("mistral-under-{}-labels", spec.num_labels());
    Some(written(&root.join(name), &spec, &weights, &companions))
}

/// Adapters as we write them, and what we compute with them.
#[cfg(feature = "libtorch")]
fn adapters(root: &Path) -> Vec<PathBuf> {
    use rollforge::{
        model::{Adapter, Checkpoint, read_adapter, write_adapter},
        trainer::{
            batch::PackedBatch,
            torch::{self, Learns, ModelOptions},
        },
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let write = |(name, base): (&str, &str)| {
        let base = golden.join("models").join(base);
        let checkpoint = Checkpoint::open(&base).unwrap();
        let (spec, weights) = (checkpoint.spec(), checkpoint.weights(Dtype::F32).unwrap());
        let Adapter { lora, tensors } =
            read_adapter(&golden.join("adapters").join(name), spec).unwrap();
        let directory = root.join(format!("adapter-{name}"));
        write_adapter(&directory, (&lora, spec.head), &tensors, &base).unwrap();
        let learns = Learns { adapter: Some((lora, tensors)), ..Learns::default() };
        let options = ModelOptions::default();
        let model = torch::Model::load_with(spec, &weights, &options, &learns).unwrap();
        let selected = (0..TOKENS.len()).collect();
        let batch = PackedBatch {
            tokens: TOKENS.to_vec(),
            lengths: vec![TOKENS.len()],
            selected,
            candidates: vec![],
        };
        let outputs = match spec.head {
            Head::LanguageModel => model.logits(&batch).unwrap(),
            Head::Score => model.scores(&batch).unwrap(),
        };
        let ours = json!({ "head": spec.head, "tokens": TOKENS, "outputs": outputs });
        fs::write(directory.join("ours.json"), ours.to_string()).unwrap();
        directory
    };
    let golden = [
        ("llama-all-linear", "llama"),
        ("qwen2-q-v-down", "qwen2"),
        ("llama-score-k-o-up", "llama-score"),
    ];
    golden.into_iter().map(write).collect()
}

#[cfg(not(feature = "libtorch"))]
fn adapters(_: &Path) -> Vec<PathBuf> {
    Vec::new()
}

fn written(directory: &Path, spec: &ModelSpec, weights: &Weights, with: &Companions) -> PathBuf {
    write_model_with(directory, spec, weights, with, &WriteOptions::default()).unwrap();
    described(directory.to_path_buf())
}

/// Reads the directory back and puts beside it what we say of it.
fn described(directory: PathBuf) -> PathBuf {
    let model = Model::open(&directory).unwrap();
    let spec = model.spec();
    let weights = model.checkpoint.weights(Dtype::F32).unwrap();
    let (texts, chats) = (texts(&model), chats(&model));
    let special = model.tokenizer.as_ref().map(|tokenizer| {
        let special = tokenizer.special();
        json!({ "bos_token": special.bos, "eos_token": special.eos, "pad_token": special.pad })
    });
    let dtype = match spec.dtype {
        Dtype::F32 => "torch.float32",
        Dtype::F16 => "torch.float16",
        Dtype::Bf16 => "torch.bfloat16",
    };
    let ours = json!({
        "head": spec.head,
        "labels": (spec.head == Head::Score).then(|| spec.label_names()),
        "dtype": dtype,
        "parameters": spec.parameters(),
        "tokens": TOKENS,
        "outputs": outputs(spec, &weights),
        "texts": texts,
        "chats": chats,
        "special": special,
        "generation": generation(&model),
    });
    fs::write(directory.join("ours.json"), ours.to_string()).unwrap();
    directory
}

/// Logits at every position by the engine, or the score of the whole by the trainer.
fn outputs(spec: &ModelSpec, weights: &Weights) -> Vec<f32> {
    let f32_spec = ModelSpec { dtype: Dtype::F32, ..spec.clone() };
    match spec.head {
        Head::LanguageModel => {
            support::logits(&mut support::cpu(&f32_spec, weights, TOKENS.len()), &TOKENS)
        }
        Head::Score => scores(&f32_spec, weights),
    }
}

#[cfg(feature = "libtorch")]
fn scores(spec: &ModelSpec, weights: &Weights) -> Vec<f32> {
    use rollforge::trainer::{batch::PackedBatch, torch};
    let mut batch = PackedBatch::default();
    batch.push(&TOKENS, &[false; TOKENS.len()]);
    let options = torch::ModelOptions::default();
    torch::Model::load(spec, weights, &options).unwrap().scores(&batch).unwrap()
}

#[cfg(not(feature = "libtorch"))]
fn scores(_: &ModelSpec, _: &Weights) -> Vec<f32> {
    unreachable!("classifiers are left out in a build without libtorch")
}

fn texts(model: &Model) -> Vec<Value> {
    let Some(tokenizer) = &model.tokenizer else { return vec![] };
    let describe = |text: &&str| {
        let ids = tokenizer.encode(text, true).unwrap();
        json!({
            "text": text,
            "ids": ids,
            "plain_ids": tokenizer.encode(text, false).unwrap(),
            "decoded": tokenizer.decode(&ids, false).unwrap(),
            "decoded_plain": tokenizer.decode(&ids, true).unwrap(),
        })
    };
    TEXTS.iter().map(describe).collect()
}

fn chats(model: &Model) -> Vec<Value> {
    let (Some(template), Some(tokenizer)) = (&model.chat_template, &model.tokenizer) else {
        return vec![];
    };
    let message =
        |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let messages =
        [message("user", " How is the soup? "), message("assistant", "Good — très bon.")];
    let render = |(messages, add_generation_prompt): (&[Message], bool)| {
        let options = ChatOptions { add_generation_prompt, ..ChatOptions::default() };
        json!({
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            "text": template.render(messages, &options).unwrap().text,
            "ids": template.encode(tokenizer, messages, &options).unwrap().ids,
        })
    };
    [(&messages[..], false), (&messages[..1], true)].into_iter().map(render).collect()
}

fn generation(model: &Model) -> Value {
    let generation = &model.generation;
    let eos = match generation.eos_token_ids.as_slice() {
        [] => return json!({}),
        [id] => json!(id),
        several => json!(several),
    };
    json!({
        "eos_token_id": eos,
        "bos_token_id": generation.bos_token_id,
        "pad_token_id": generation.pad_token_id,
    })
}
