//! Files into samples, with a small tokenizer made here.

use std::path::PathBuf;

use super::*;
use crate::model::{ChatTemplate, GenerationConfig, SpecialTokens, Tokenizer};

/// A token for each of these and for each other character of the alphabet below.
const SPECIAL: [&str; 5] = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"];
const LETTERS: &str = " abcdefghijklmnopqrstuvwxyz:\n";
const CHAT: &str = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}\
                    {% if add_generation_prompt %}<|assistant|>\n{% endif %}";
const MARKED: &str = "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\
                      {% generation %}{{ m.content }}<|end|>{% endgeneration %}\
                      {% else %}<|user|>{{ m.content }}{% endif %}{% endfor %}\
                      {% if add_generation_prompt %}<|assistant|>{% endif %}";

fn special() -> SpecialTokens {
    SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), pad: None, unk: None }
}

/// Characters as tokens, "ab" as one, `<s>` before every text.
pub(super) fn tokenizer() -> Tokenizer {
    let letters = LETTERS.chars().map(String::from);
    let all = SPECIAL.iter().map(ToString::to_string).chain(letters).chain(["ab".into()]);
    let vocab: serde_json::Map<_, _> = all.zip(0..).map(|(t, id)| (t, id.into())).collect();
    let added = |(id, content): (usize, &&str)| {
        serde_json::json!({ "id": id, "content": content, "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false })
    };
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": SPECIAL.iter().enumerate().map(added).collect::<Vec<_>>(),
        "model": { "type": "BPE", "vocab": vocab, "merges": ["a b"] },
        "post_processor": { "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } },
                       { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } },
                     { "Sequence": { "id": "B", "type_id": 0 } }],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [0], "tokens": ["<s>"] } } },
    });
    Tokenizer::new(json.to_string().parse().unwrap(), special()).unwrap()
}

struct Files {
    folder: tempfile::TempDir,
    config: DataConfig,
    template: Option<ChatTemplate>,
}

impl Files {
    fn new(rows: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, rows).unwrap();
        Self { folder, config: DataConfig::new(vec![path]), template: None }
    }

    fn chat(rows: &str, template: &str) -> Self {
        let template = ChatTemplate::new(template, special()).unwrap();
        Self { template: Some(template), ..Self::new(rows) }
    }

    fn load<S: Sample>(&self) -> Result<Loaded<S>, Error> {
        let tokenizer = tokenizer();
        let generation = GenerationConfig { eos_token_ids: vec![1, 4], ..Default::default() };
        let encoder =
            TextEncoder::new(&self.config, &tokenizer, self.template.as_ref(), &generation)?;
        load_train(&self.config, &encoder)
    }

    fn samples<S: Sample>(&self) -> Vec<S> {
        self.load().unwrap().samples
    }

    /// Returns the report or the error, without the folder.
    fn said<S: Sample>(&self) -> String {
        let said = match self.load::<S>() {
            Ok(loaded) => loaded.report.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(!said.contains('\n'), "{said}");
        said.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

fn text(ids: &[u32]) -> String {
    let tokenizer = tokenizer();
    ids.iter().map(|&id| tokenizer.id_to_token(id).unwrap()).collect::<Vec<_>>().join("·")
}

/// Writes what is trained on in brackets.
fn shown(sample: &SftSample) -> String {
    assert_eq!(sample.tokens.len(), sample.loss_mask.len());
    let mut shown = String::new();
    let mut before = false;
    for (&id, &trained) in sample.tokens.iter().zip(&sample.loss_mask) {
        shown += match (before, trained) {
            (false, true) => "[",
            (true, false) => "]",
            _ => "",
        };
        shown += &text(&[id]);
        before = trained;
    }
    if before { shown + "]" } else { shown }
}

#[test]
fn prompt_and_completion_are_trained_on_the_completion_and_its_end() {
    let files = Files::new(r#"{"prompt": "hi ", "completion": "you"}"#);
    assert_eq!(shown(&files.samples()[0]), "<s>hi [you</s>]");
}

#[test]
fn no_token_spans_the_boundary_of_prompt_and_completion() {
    let files = Files::new(r#"{"prompt": "a", "completion": "bab"}"#);
    let samples: Vec<SftSample> = files.samples();
    assert_eq!(text(&samples[0].tokens), "<s>·a·b·ab·</s>");
    let prompts: Vec<PromptSample> = files.samples();
    assert!(samples[0].tokens.starts_with(prompts[0].tokens.ids()));
}

#[test]
fn plain_text_is_trained_on_as_a_whole() {
    let mut files = Files::new(r#"{"text": "abc"}"#);
    assert_eq!(shown(&files.samples()[0]), "<s>[abc</s>]");
    files.config.append_eos = false;
    assert_eq!(shown(&files.samples()[0]), "<s>[abc]");
}

#[test]
fn conversations_are_trained_on_the_assistants_turns() {
    let rows =
        r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"},
        {"role": "user", "content": "and"}, {"role": "assistant", "content": "bye"}]}"#
            .replace('\n', " ");
    assert_eq!(
        shown(&Files::chat(&rows, CHAT).samples()[0]),
        "<|user|>\nhi<|end|>\n<|assistant|>\n[yo<|end|>]\n<|user|>\nand<|end|>\n<|assistant|>\n[bye<|end|>]"
    );
    assert_eq!(
        shown(&Files::chat(&rows, MARKED).samples()[0]),
        "<|user|>hi<|assistant|>[yo<|end|>]<|user|>and<|assistant|>[bye<|end|>]"
    );
}

#[test]
fn prompts_are_trained_on_where_that_is_asked_for() {
    let mut files = Files::new(r#"{"prompt": "hi ", "completion": "you"}"#);
    files.config.completion_only = false;
    assert_eq!(shown(&files.samples()[0]), "[<s>hi you</s>]");
    let forgetful =
        "{% for m in messages %}{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}";
    let rows = r#"{"messages": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "yz"}]}"#;
    let mut files = Files::chat(rows, forgetful);
    files.config.completion_only = false;
    assert_eq!(shown(&files.samples()[0]), "[yz</s>]");
}

#[test]
fn a_conversational_prompt_has_the_tokens_it_has_when_it_is_completed() {
    let rows = r#"{"prompt": [{"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "yo"}]}
{"prompt": [{"role": "user", "content": "hi"}], "completion": "yo"}
{"prompt": "hi", "completion": {"role": "assistant", "content": "yo"}}"#;
    let files = Files::chat(rows, CHAT);
    for sample in files.samples() {
        assert_eq!(shown(&sample), "<|user|>\nhi<|end|>\n<|assistant|>\n[yo<|end|>]");
    }
    let prompts: Vec<PromptSample> = files.samples();
    assert_eq!(text(prompts[0].tokens.ids()), "<|user|>·\n·h·i·<|end|>·\n·<|assistant|>·\n");
}

#[test]
fn a_template_that_rewrites_earlier_turns_is_named() {
    let forgetful = "{% for m in messages %}{{ m.role }}:{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}";
    let rows = r#"{"messages": [{"role": "assistant", "content": "x"}, {"role": "assistant", "content": "y"}]}"#;
    assert_eq!(
        Files::chat(rows, forgetful).said::<SftSample>(),
        "nothing to use: 0 of 1 rows used; 1 not: chat template rewrites earlier turns; mark the assistant's with \
         {% generation %} (rows.jsonl:1)"
    );
}

#[test]
fn pairs_end_where_completions_do() {
    let files = Files::new(r#"{"prompt": "hi", "chosen": "yes", "rejected": "no", "margin": 0.5}"#);
    let pair: PairSample = files.samples().remove(0);
    assert_eq!(text(&pair.chosen), "<s>·h·i·y·e·s·</s>");
    assert_eq!(text(&pair.rejected), "<s>·h·i·n·o·</s>");
    assert_eq!(pair.margin, Some(0.5));
}

#[test]
fn pairs_may_be_whole_conversations_or_answers_to_one() {
    let whole = r#"{"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
        "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "c"}]}"#;
    let answers = r#"{"prompt": [{"role": "user", "content": "q"}], "chosen": "b",
        "rejected": {"role": "assistant", "content": "c"}}"#;
    for row in [whole, answers] {
        let files = Files::chat(&row.replace('\n', " "), CHAT);
        let pair: PairSample = files.samples().remove(0);
        assert_eq!(text(&pair.chosen), "<|user|>·\n·q·<|end|>·\n·<|assistant|>·\n·b·<|end|>");
        assert_eq!(text(&pair.rejected), "<|user|>·\n·q·<|end|>·\n·<|assistant|>·\n·c·<|end|>");
        assert_eq!(pair.margin, None);
    }
}

#[test]
fn other_columns_are_kept_for_reward_functions() {
    let files = Files::new(r#"{"prompt": "one", "answer": "two", "extra_info": {"index": 3}}"#);
    let samples: Vec<PromptSample> = files.samples();
    assert_eq!(
        serde_json::Value::from(samples[0].extra.clone()),
        serde_json::json!({ "answer": "two", "extra_info": { "index": 3 } })
    );
}

#[test]
fn the_names_of_other_frameworks_are_understood() {
    let files = Files::new(r#"{"input": "a", "output": "c"}"#);
    assert_eq!(shown(&files.samples()[0]), "<s>a[c</s>]");
    let files = Files::new(r#"{"prompt": "a", "chosen_response": "c", "rejected_response": "d"}"#);
    assert_eq!(files.samples::<PairSample>()[0].chosen, [0, 6, 8, 1]);
    let files = Files::new(r#"{"text": "a"}"#);
    assert_eq!(files.samples::<PromptSample>()[0].tokens.ids(), [0, 6]);
}

#[test]
fn a_wrong_column_names_those_there_are_and_the_likely_one() {
    let mut files = Files::new(r#"{"question": "a", "answer": "b"}"#);
    assert_eq!(
        files.said::<PromptSample>(),
        "rows.jsonl: no column \"prompt\"; found \"question\", \"answer\"; if \"question\" is it, set \
         data.columns.prompt = \"question\""
    );
    files.config.columns.prompt = Some("question".into());
    assert_eq!(
        files.said::<SftSample>(),
        "rows.jsonl: no column \"completion\"; found \"question\", \"answer\"; if \"answer\" is it, set \
         data.columns.completion = \"answer\""
    );
    files.config.columns.completion = Some("anwser".into());
    assert_eq!(
        files.said::<SftSample>(),
        "rows.jsonl: no column \"anwser\" (data.columns.completion); found \"question\", \"answer\"; did you mean \
         \"answer\"?"
    );
    files.config.columns.completion = Some("answer".into());
    assert_eq!(shown(&files.samples()[0]), "<s>a[b</s>]");
}

#[test]
fn unusable_rows_are_counted_by_reason_and_the_first_few_named() {
    let mut files = Files::new(
        r#"{"prompt": "a", "completion": "b"}
{"prompt": "a", "completion": ""}
{"prompt": "a"}
{"prompt": "a", "completion": 3}
{"prompt": "a", "completion": ""}
{"prompt": "a", "completion": ""}
{"prompt": "a", "completion": ""}
{"prompt": "a", "completion": [{"role": "assistant", "content": "c"}]}
{"prompt": "abcabcabc", "completion": "abc"}"#,
    );
    files.config.max_tokens = 8;
    assert_eq!(
        files.said::<SftSample>(),
        "1 of 9 rows used; 4 not: column \"completion\" is empty (rows.jsonl:2, rows.jsonl:5, rows.jsonl:6, ...); \
         1 not: has no column \"completion\" (rows.jsonl:3); \
         1 not: column \"completion\" must be text or a list of {role, content} (rows.jsonl:4); \
         1 not: is a conversation, and the model has no chat template (rows.jsonl:8); \
         1 not: longer than 8 tokens (rows.jsonl:9)"
    );
}

#[test]
fn nothing_left_is_an_error() {
    let files = Files::new(r#"{"text": ""}"#);
    assert_eq!(
        files.said::<SftSample>(),
        "nothing to use: 0 of 1 rows used; 1 not: column \"text\" is empty (rows.jsonl:1)"
    );
    assert_eq!(Files::new("\n\n").said::<SftSample>(), "rows.jsonl: has no rows");
}

#[test]
fn over_long_samples_are_cut_where_that_is_asked_for() {
    let mut files = Files::new(
        "{\"prompt\": \"cdef\", \"completion\": \"gh\"}\n{\"prompt\": \"cdefg\", \"completion\": \"h\"}",
    );
    files.config.over_long = OverLong::Truncate;
    files.config.max_tokens = 6;
    let loaded: Loaded<SftSample> = files.load().unwrap();
    assert_eq!(loaded.samples.iter().map(shown).collect::<Vec<_>>(), ["<s>cdef[g]"]);
    assert_eq!(
        files.said::<SftSample>(),
        "1 of 2 rows used, 1 of them cut; 1 not: no token to train on (rows.jsonl:2)"
    );
    files.config.max_tokens = 3;
    let prompts: Vec<PromptSample> = files.samples();
    assert_eq!(text(prompts[1].tokens.ids()), "<s>·f·g");
}

#[test]
fn a_column_asked_for_by_name_is_taken_before_the_usual_one() {
    let mut files = Files::new(r#"{"prompt": "a", "body": "c"}"#);
    files.config.columns.text = Some("body".into());
    assert_eq!(files.samples::<PromptSample>()[0].tokens.ids(), [0, 8]);
    files.config.columns.prompt = Some("prompt".into());
    assert_eq!(files.samples::<PromptSample>()[0].tokens.ids(), [0, 6]);
}

#[test]
fn pairs_of_which_nothing_is_left_are_refused() {
    let rows = r#"{"chosen": [{"role": "user", "content": "QQ"}], "rejected": [{"role": "user", "content": "a"}]}"#;
    let mut files = Files::chat(rows, "{% for m in messages %}{{ m.content }}{% endfor %}");
    files.config.append_eos = false;
    assert!(files.said::<PairSample>().contains("1 not: chosen or rejected has no tokens"));
}

#[test]
fn a_pairs_masks_are_those_of_its_completions() {
    let shown = |rows: &str| {
        let pair: PairSample = Files::new(rows).samples().remove(0);
        [(pair.chosen, pair.chosen_mask), (pair.rejected, pair.rejected_mask)]
            .map(|(tokens, loss_mask)| shown(&SftSample { tokens, loss_mask }))
    };
    let apart = shown(r#"{"prompt": "ab", "chosen": "ab", "rejected": "b"}"#);
    // Without a prompt it is what both begin with; the end of each is its own.
    let whole = shown(r#"{"chosen": "abab", "rejected": "abb"}"#);
    assert_eq!(apart, whole);
    let mut one_goes_on = Files::new(r#"{"chosen": "ab", "rejected": "abb"}"#);
    one_goes_on.config.append_eos = false;
    let pair: PairSample = one_goes_on.samples().remove(0);
    assert_eq!(
        (pair.chosen_mask, pair.rejected_mask),
        (vec![false, true], vec![false, false, true])
    );
}

#[test]
fn known_rewards_are_read_where_there_are_some() {
    let rows = r#"{"prompt": "a", "chosen": "b", "rejected": "a", "chosen_reward": 2.5}"#;
    let pair: PairSample = Files::new(rows).samples().remove(0);
    assert_eq!((pair.chosen_reward, pair.rejected_reward), (Some(2.5), None));
}

#[test]
fn equal_pairs_are_refused() {
    let files = Files::new(r#"{"prompt": "a", "chosen": "b", "rejected": "b"}"#);
    assert!(files.said::<PairSample>().contains("1 not: chosen and rejected are the same"));
}

#[test]
fn a_limit_counts_the_rows_of_all_files() {
    let mut files = Files::new("{\"text\": \"a\"}\n{\"text\": \"b\"}\n");
    let second = files.folder.path().join("more.jsonl");
    std::fs::write(&second, "{\"text\": \"c\"}\nbroken\n").unwrap();
    files.config.train.push(second);
    files.config.train_rows = Some(3);
    assert_eq!(files.samples::<SftSample>().len(), 3);
    files.config.train_rows = None;
    assert!(files.said::<SftSample>().starts_with("more.jsonl:2: each line must be a JSON object"));
}

#[test]
fn a_file_that_is_missing_or_of_another_kind_is_named() {
    let mut files = Files::new("");
    files.config.train = vec![PathBuf::from("no/such.jsonl")];
    assert_eq!(files.said::<SftSample>(), "cannot read no/such.jsonl");
    files.config.train = vec![PathBuf::from("rows.csv")];
    assert_eq!(
        files.said::<SftSample>(),
        "rows.csv: the name must end in .jsonl, .json, .ndjson or .parquet"
    );
}

#[test]
fn completions_without_an_end_must_be_asked_for() {
    let tokenizer = {
        let special = SpecialTokens { eos: None, ..special() };
        Tokenizer::new(super::tests::tokenizer().to_json().unwrap().parse().unwrap(), special)
    };
    let mut config = DataConfig::new(vec![]);
    let (tokenizer, generation) = (tokenizer.unwrap(), GenerationConfig::default());
    let error = TextEncoder::new(&config, &tokenizer, None, &generation).unwrap_err();
    assert_eq!(
        error.to_string(),
        "data.append_eos must be false where neither tokenizer nor model names an EOS token, got true"
    );
    config.append_eos = false;
    TextEncoder::new(&config, &tokenizer, None, &generation).unwrap();
}

#[test]
fn samples_are_in_the_order_of_the_rows() {
    let rows: String = (0..500).map(|i| format!("{{\"prompt\": \"a\", \"row\": {i}}}\n")).collect();
    let samples: Vec<PromptSample> = Files::new(&rows).samples();
    let order: Vec<_> =
        samples.iter().map(|sample| sample.extra["row"].as_u64().unwrap()).collect();
    assert_eq!(order, (0..500).collect::<Vec<_>>());
    assert_eq!(samples[499].place.line, 500);
}

#[test]
fn a_rated_completion_is_its_prompt_and_completion_with_the_ratings_that_are_there() {
    let mut files = Files::new(
        "{\"prompt\": \"ab\", \"response\": \"c\", \"verbosity\": 2, \"helpfulness\": null, \"fluency\": 1.5}\n\
         {\"prompt\": \"ab\", \"response\": \"c\", \"helpfulness\": 3}\n\
         {\"prompt\": \"ab\", \"response\": \"c\", \"helpfulness\": null}\n\
         {\"prompt\": \"ab\", \"response\": \"c\", \"helpfulness\": \"high\"}\n",
    );
    let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let pairs = Files::new("{\"prompt\": \"ab\", \"chosen\": \"c\", \"rejected\": \"d\"}\n")
        .samples::<PairSample>();
    assert_eq!(rated_attributes(&files.config).unwrap(), ["helpfulness", "verbosity"]);
    files.config.columns.attributes = named(&["fluency", "helpfulness"]);
    let samples = files.samples::<RatedSample>();
    assert_eq!(samples[0].ratings, [Some(1.5), None]);
    assert_eq!(samples[1].ratings, [None, Some(3.0)]);
    assert_eq!(
        (samples.len(), &samples[0].tokens),
        (2, &pairs[0].chosen),
        "as a reward model reads it"
    );
    let said = files.said::<RatedSample>();
    let reasons =
        ["has no rating (rows.jsonl:3)", "\"helpfulness\" must be a finite number (rows.jsonl:4)"];
    assert!(reasons.iter().all(|reason| said.contains(reason)), "{said}");
    let judged = files.samples::<JudgedSample>();
    assert_eq!((judged.len(), &judged[0].tokens), (4, &samples[0].tokens));
    assert_eq!(judged[0].columns["fluency"], 1.5);
}

#[test]
fn what_a_policy_is_told_is_the_same_in_training_and_afterwards() {
    let plain = "{\"prompt\": \"ab\", \"completion\": \"c\", \"humor\": 1}\n";
    let turns = "[{\"role\": \"user\", \"content\": \"ab\"}]";
    let chat = format!("{{\"prompt\": {turns}, \"completion\": \"c\", \"humor\": 1}}\n");
    for (rows, template) in
        [(plain, None), (chat.as_str(), Some(MARKED)), (chat.as_str(), Some(CHAT))]
    {
        let files = |rows: &str| match template {
            Some(template) => Files::chat(rows, template),
            None => Files::new(rows),
        };
        let given = files(rows);
        let steered = given.folder.path().join("steered.jsonl");
        let reading = Reading::default();
        convert(&given.config.train[0], &steered, (Form::SteerLm, &reading), false).unwrap();
        let sft = files(&std::fs::read_to_string(steered).unwrap()).samples::<SftSample>();
        let trained = sft[0].loss_mask.iter().position(|&trained| trained).unwrap();

        let (tokenizer, generation) = (tokenizer(), GenerationConfig::default());
        let attributes = Attributes::new([("humor".to_owned(), 1.0)]).unwrap();
        let template = given.template.as_ref();
        let encoder = TextEncoder::new(&given.config, &tokenizer, template, &generation).unwrap();
        let asked =
            load_train::<PromptSample>(&given.config, &encoder.with_attributes(Some(attributes)));
        let asked = asked.unwrap().samples;
        assert_eq!(asked[0].tokens.ids(), &sft[0].tokens[..trained], "{rows}");
    }
}
