//! Files written by hand, and what is said of them.

use std::fs;

use super::*;
use crate::data::{DataConfig, OverLong, tests::tokenizer};
use crate::model::{GenerationConfig, Tokenizer};

struct Files {
    folder: tempfile::TempDir,
    files: Vec<PathBuf>,
}

impl Files {
    fn new(contents: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |(index, content): (usize, &&str)| {
            let path = folder.path().join(format!("{index}.jsonl"));
            fs::write(&path, content).unwrap();
            path
        };
        let files = contents.iter().enumerate().map(write).collect();
        Self { folder, files }
    }

    fn check(&self, task: Option<Task>) -> Check {
        let options = CheckOptions { reading: Reading::default(), task, encoder: None };
        check(&self.files, &options).unwrap()
    }

    /// Checks with a tokenizer that has a token for each letter.
    fn encoded(&self, max_tokens: usize, over_long: OverLong) -> FileCheck {
        let config = DataConfig { max_tokens, over_long, ..DataConfig::new(Vec::new()) };
        let tokenizer: Tokenizer = tokenizer();
        let encoder =
            TextEncoder::new(&config, &tokenizer, None, &GenerationConfig::default()).unwrap();
        let options =
            CheckOptions { reading: Reading::default(), task: None, encoder: Some(encoder) };
        check(&self.files, &options).unwrap().files.remove(0)
    }

    fn name(&self, place: &str) -> String {
        self.folder.path().join(place).display().to_string()
    }
}

#[test]
fn rows_are_counted_and_the_unusable_ones_have_reasons_and_places() {
    let files = Files::new(&[r#"{"prompt": "a", "completion": "b"}
{"prompt": "", "completion": "b"}
{"prompt": "a", "completion": "  "}

{"prompt": "c"}
{"prompt": "d"}
"#]);
    let found = files.check(None).files.remove(0);
    assert_eq!((found.schema, found.task), ("prompt-completion", Some(Task::Sft)));
    assert_eq!((found.rows, found.usable, found.blank), (5, 2, 1));
    let wanted = [
        Refused {
            reason: "column \"prompt\" is empty".into(),
            rows: 1,
            first: vec![files.name("0.jsonl:2")],
        },
        Refused {
            reason: "has no column \"completion\"".into(),
            rows: 2,
            first: vec![files.name("0.jsonl:5"), files.name("0.jsonl:6")],
        },
    ];
    assert_eq!(found.refused, wanted);
    assert_eq!(found.left(), 2);
}

#[test]
fn a_broken_line_is_counted_and_leaves_nothing_to_use() {
    let files = Files::new(&["{\"text\": \"a\"}\n{\"text\": \n{\"text\": \"b\"}\n"]);
    let found = files.check(None).files.remove(0);
    assert_eq!((found.rows, found.usable, found.broken, found.left()), (2, 2, 1, 0));
    assert!(found.first_broken.unwrap().contains("0.jsonl:2: malformed JSON"));
}

#[test]
fn duplicates_are_counted_by_what_training_sees() {
    let files = Files::new(&[r#"{"id": 1, "prompt": "a", "chosen": "b", "rejected": "c"}
{"id": 2, "rejected": "c", "chosen": "b", "prompt": "a"}
{"id": 3, "prompt": "a", "chosen": "c", "rejected": "b"}
{"id": 4, "prompt": "b", "chosen": "c", "rejected": "b"}
{"id": 5, "prompt": "a", "chosen": "d", "rejected": "b"}
"#]);
    let found = files.check(None).files.remove(0);
    assert_eq!((found.duplicates, found.duplicate_prompts), (1, 3));
}

#[test]
fn what_files_have_in_common_is_named() {
    let chat = |question: &str, answer: &str| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{question}\"}}, \
             {{\"role\": \"assistant\", \"content\": \"{answer}\"}}]}}\n"
        )
    };
    let train = chat("a", "b") + &chat("c", "d") + &chat("e", "f");
    let eval = chat("c", "d") + &chat("e", "g") + &chat("e", "g") + &chat("h", "i");
    let files = Files::new(&[&train, &eval, &chat("x", "y")]);
    let wanted = Overlap {
        file: files.files[1].clone(),
        earlier: files.files[0].clone(),
        examples: 1,
        prompts: 2,
    };
    assert_eq!(files.check(None).overlaps, [wanted]);
}

#[test]
fn a_command_that_needs_other_rows_finds_none() {
    let files = Files::new(&["{\"text\": \"a\"}\n"]);
    let found = files.check(Some(Task::Dpo)).files.remove(0);
    assert_eq!(found.left(), 0);
    assert!(found.refused[0].reason.contains("is not a pair"), "{found:?}");
}

#[test]
fn lengths_are_those_before_anything_is_cut() {
    // Each with <s> before and </s> after it.
    let rows = "{\"text\": \"cc\"}\n{\"text\": \"dddd\"}\n{\"text\": \"eeeeeeee\"}\n";
    let dropped = Files::new(&[rows]).encoded(6, OverLong::Drop);
    let wanted = Lengths { what: "tokens", mean: 20.0 / 3.0, p50: 6, p95: 10, max: 10 };
    assert_eq!(dropped.lengths[0], wanted);
    assert_eq!(dropped.lengths[1].max, 9);
    assert_eq!((dropped.usable, dropped.cut), (2, 0));
    assert_eq!(dropped.refused[0].reason, "longer than 6 tokens");
    let cut = Files::new(&[rows]).encoded(6, OverLong::Truncate);
    assert_eq!((cut.usable, cut.cut, cut.lengths), (3, 1, dropped.lengths));
}

#[test]
fn a_row_that_is_cut_down_to_its_prompt_is_not_usable() {
    let files = Files::new(&["{\"prompt\": \"eeeee\", \"completion\": \"f\"}\n"]);
    let found = files.encoded(4, OverLong::Truncate);
    assert_eq!(found.refused[0].reason, "no token to train on");
    assert_eq!(found.left(), 0);
}

#[test]
fn rows_of_another_schema_are_measured_as_they_would_be_converted() {
    let files = Files::new(&["{\"text\": \"ab c\"}\n{\"text\": \"ab dd\"}\n"]);
    let config = DataConfig::new(Vec::new());
    let tokenizer: Tokenizer = tokenizer();
    let encoder =
        TextEncoder::new(&config, &tokenizer, None, &GenerationConfig::default()).unwrap();
    let reading = Reading { schema: Some(Schema::NemoComparisons), ..Reading::default() };
    let options = CheckOptions { reading, task: None, encoder: Some(encoder) };
    let found = check(&files.files, &options).unwrap().files.remove(0);
    assert_eq!((found.task, found.is_direct, found.rows), (Some(Task::Dpo), false, 2));
    let lengths: Vec<_> = found.lengths.iter().map(|length| (length.what, length.max)).collect();
    // <s>, ab as one token, what follows it, </s>.
    assert_eq!(lengths, [("chosen", 5), ("rejected", 6)]);
}

#[test]
fn a_pair_is_measured_as_two_completions_where_each_stands_by_itself() {
    let files = Files::new(&["{\"prompt\": \"a\", \"chosen\": \"c\", \"rejected\": \"ddd\"}\n"]);
    let tokenizer: Tokenizer = tokenizer();
    let config = DataConfig::new(Vec::new());
    let encoder =
        TextEncoder::new(&config, &tokenizer, None, &GenerationConfig::default()).unwrap();
    let options =
        CheckOptions { reading: Reading::default(), task: Some(Task::Kto), encoder: Some(encoder) };
    let found = check(&files.files, &options).unwrap().files.remove(0);
    assert_eq!((found.usable, found.is_direct), (1, false));
    // <s>, a, c or ddd, </s>.
    let lengths: Vec<_> = found.lengths.iter().map(|one| (one.what, one.mean, one.max)).collect();
    assert_eq!(lengths, [("tokens", 5.0, 6), ("completion", 3.0, 4)]);
}

#[test]
fn files_that_are_no_data_are_refused() {
    let refuse = |content: &str| {
        let files = Files::new(&[content]);
        let options = CheckOptions { reading: Reading::default(), task: None, encoder: None };
        check(&files.files, &options).unwrap_err().to_string()
    };
    let said = refuse("{\"question\": \"a\", \"answer\": \"b\"}\n");
    let wanted = "0.jsonl: is of no schema that is known; its columns are \"question\", \"answer\"";
    assert!(said.ends_with(wanted), "{said}");
    assert!(refuse("").ends_with("0.jsonl: has no rows"));
    assert!(refuse("hello\n").contains("has no row that can be read: "));
}

#[test]
fn columns_may_go_by_other_names() {
    let files = Files::new(&["{\"question\": \"a\", \"answer\": \"b\"}\n"]);
    let columns = [("prompt", "question"), ("completion", "answer")];
    let columns = columns.map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned())).to_vec();
    let reading = Reading { columns, ..Reading::default() };
    let options = CheckOptions { reading, task: None, encoder: None };
    let found = check(&files.files, &options).unwrap().files.remove(0);
    assert_eq!((found.schema, found.usable), ("prompt-completion", 1));
}
