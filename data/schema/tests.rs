//! Rows made by hand, at least one for each schema: what they are taken for, what they become, and which are refused.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::data::Place;

fn rows(columns: Value) -> Vec<Row> {
    let columns = if columns.is_array() { columns } else { json!([columns]) };
    let row = |(columns, line): (&Value, u64)| Row {
        place: Place { file: Path::new("x.jsonl").into(), line },
        columns: columns.as_object().unwrap().clone(),
    };
    columns.as_array().unwrap().iter().zip(1..).map(row).collect()
}

/// Returns what the row, or the two rows, become.
fn converted(schema: Schema, columns: Value, form: Form) -> Result<Value, String> {
    let written = form.write(schema.read(rows(columns))?)?;
    Ok(written.into_iter().map(Value::from).collect())
}

/// A conversation in NeMo-Aligner's form.
fn nemo_chat() -> Value {
    json!({
        "system": "Be short.", "mask": "User", "type": "VALUE_TO_TEXT", "dataset": "oasst",
        "conversations": [
            { "from": "User", "value": "Hi", "label": null },
            { "from": "Assistant", "value": "Hello", "label": "quality:4,toxicity:0" },
        ],
    })
}

fn turns(question: &str, answer: &str) -> Value {
    json!([{ "role": "user", "content": question }, { "role": "assistant", "content": answer }])
}

#[test]
fn each_schema_is_recognised_and_becomes_what_the_loaders_read() {
    let hi = || json!([{ "role": "user", "content": "Hi" }]);
    let table = [
        // TRL's columns are ours: nothing changes.
        (Schema::Text, json!({ "text": "a" }), Form::Sft, json!([{ "text": "a" }])),
        (
            Schema::Messages,
            json!({ "messages": turns("Hi", "Hello"), "id": 7 }),
            Form::Sft,
            json!([{ "messages": turns("Hi", "Hello"), "id": 7 }]),
        ),
        (
            Schema::Messages,
            json!({ "messages": turns("Hi", "Hello") }),
            Form::Prompts,
            json!([{ "prompt": hi(), "completion": "Hello" }]),
        ),
        (
            Schema::PromptCompletion,
            json!({ "prompt": "2+2=", "completion": "4" }),
            Form::Sft,
            json!([{ "prompt": "2+2=", "completion": "4" }]),
        ),
        (
            Schema::PromptCompletion,
            json!({ "prompt": hi(), "completion": [{ "role": "assistant", "content": "4" }] }),
            Form::Prompts,
            json!([{ "prompt": hi(), "completion": "4" }]),
        ),
        (
            Schema::Prompts,
            json!({ "prompt": "2+2=", "answer": "4" }),
            Form::Prompts,
            json!([{ "prompt": "2+2=", "answer": "4" }]),
        ),
        (
            Schema::Preference,
            json!({ "prompt": "p", "chosen": "c", "rejected": "r", "margin": 0.5, "id": "x" }),
            Form::Preference,
            json!([{ "prompt": "p", "chosen": "c", "rejected": "r", "margin": 0.5, "id": "x" }]),
        ),
        (
            Schema::Preference,
            json!({ "prompt": "p", "chosen": "c", "rejected": "r", "margin": 0.5 }),
            Form::Unpaired,
            json!([
                { "prompt": "p", "completion": "c", "label": true, "source_margin": 0.5 },
                { "prompt": "p", "completion": "r", "label": false, "source_margin": 0.5 },
            ]),
        ),
        (
            Schema::Preference,
            json!({ "chosen": turns("Hi", "Hello"), "rejected": turns("Hi", "Go") }),
            Form::Sft,
            json!([{ "messages": turns("Hi", "Hello") }]),
        ),
        (
            Schema::Unpaired,
            json!({ "prompt": "p", "completion": "c", "label": false }),
            Form::Unpaired,
            json!([{ "prompt": "p", "completion": "c", "label": false }]),
        ),
        // HelpSteer.
        (
            Schema::Ratings,
            json!({ "prompt": "p", "response": "c", "helpfulness": 3, "verbosity": 1.5 }),
            Form::Ratings,
            json!([{ "prompt": "p", "completion": "c", "helpfulness": 3, "verbosity": 1.5 }]),
        ),
        (
            Schema::Ratings,
            json!({ "messages": turns("Hi", "Hello"), "helpfulness": 3 }),
            Form::Ratings,
            json!([{ "messages": turns("Hi", "Hello"), "helpfulness": 3 }]),
        ),
        // SteerLM: what was rated stands in the prompt, and nowhere else.
        (
            Schema::Ratings,
            json!({ "prompt": "p", "response": "c", "verbosity": 1.5, "helpfulness": 3.0, "id": 7 }),
            Form::SteerLm,
            json!([{ "prompt": "helpfulness:3,verbosity:1.5\np", "completion": "c", "id": 7 }]),
        ),
        (
            Schema::Ratings,
            json!({ "messages": turns("Hi", "Hello"), "toxicity": 0 }),
            Form::SteerLm,
            json!([{
                "prompt": [{ "role": "user", "content": "toxicity:0\nHi" }],
                "completion": [{ "role": "assistant", "content": "Hello" }],
            }]),
        ),
        (
            Schema::NemoChat,
            nemo_chat(),
            Form::SteerLm,
            json!([{
                "prompt": [
                    { "role": "system", "content": "Be short." },
                    { "role": "user", "content": "quality:4,toxicity:0\nHi" },
                ],
                "completion": [{ "role": "assistant", "content": "Hello" }],
                "dataset": "oasst",
            }]),
        ),
        // NeMo-Aligner.
        (
            Schema::NemoChat,
            nemo_chat(),
            Form::Sft,
            json!([{
                "messages": [
                    { "role": "system", "content": "Be short." },
                    { "role": "user", "content": "Hi" },
                    { "role": "assistant", "content": "Hello", "label": "quality:4,toxicity:0" },
                ],
                "dataset": "oasst",
            }]),
        ),
        (
            Schema::NemoChat, // ShareGPT's names
            json!({ "conversations": [{ "from": "human", "value": "Hi" }, { "from": "gpt", "value": "Hello" }] }),
            Form::Sft,
            json!([{ "messages": turns("Hi", "Hello") }]),
        ),
        (
            Schema::NemoPromptCompletion,
            json!({ "input": "2+2=", "output": "4", "source": "book" }),
            Form::Sft,
            json!([{ "prompt": "2+2=", "completion": "4", "source": "book" }]),
        ),
        (
            Schema::NemoDpo,
            json!({
                "prompt": hi(),
                "chosen_response": { "role": "assistant", "content": "Hello" },
                "rejected_response": { "role": "assistant", "content": "Go" },
                "chosen_reward": 4.5, "rejected_reward": 1,
            }),
            Form::Preference,
            json!([{
                "prompt": hi(),
                "chosen": [{ "role": "assistant", "content": "Hello" }],
                "rejected": [{ "role": "assistant", "content": "Go" }],
                "chosen_reward": 4.5, "rejected_reward": 1,
            }]),
        ),
        (
            Schema::NemoKto,
            json!({ "prompt": "p", "response": "c", "preference": "rejected" }),
            Form::Unpaired,
            json!([{ "prompt": "p", "completion": "c", "label": false }]),
        ),
        (
            Schema::NemoRegression,
            json!({ "text": "a", "label": [4, -100, -100, -100, 3.5, 2, -100, 1, 0] }),
            Form::Ratings,
            json!([{ "text": "a", "quality": 4, "helpfulness": 3.5, "correctness": 2, "complexity": 1,
                     "verbosity": 0 }]),
        ),
        (
            Schema::Verl,
            json!({
                "data_source": "gsm8k", "prompt": hi(), "ability": "math",
                "reward_model": { "style": "rule", "ground_truth": "72" },
                "extra_info": { "split": "train", "index": 3, "ability": "x", "prompt": "raw" },
            }),
            Form::Prompts,
            json!([{
                "prompt": hi(), "data_source": "gsm8k", "ability": "math",
                "reward_model_style": "rule", "ground_truth": "72",
                "split": "train", "index": 3, "extra_info_ability": "x", "source_prompt": "raw",
            }]),
        ),
        (
            Schema::Verl,
            json!({ "prompt": hi(), "reward_model": { "ground_truth": { "target": [1, 2] } } }),
            Form::Prompts,
            json!([{ "prompt": hi(), "ground_truth": "{\"target\":[1,2]}" }]),
        ),
    ];
    for (schema, columns, form, wanted) in table {
        assert_eq!(Schema::of(&rows(columns.clone())[0]), Some(schema), "{columns}");
        assert_eq!(converted(schema, columns.clone(), form), Ok(wanted), "{columns}");
    }
}

#[test]
fn comparisons_are_two_lines_and_never_guessed() {
    let lines = json!([{ "text": "Q: Hi A: Hello" }, { "text": "Q: Hi A: Go" }]);
    let wanted = json!([{ "chosen": "Q: Hi A: Hello", "rejected": "Q: Hi A: Go" }]);
    assert_eq!(converted(Schema::NemoComparisons, lines.clone(), Form::Preference), Ok(wanted));
    assert_eq!(Schema::of(&rows(lines)[0]), Some(Schema::Text));
    let odd = converted(Schema::NemoComparisons, json!({ "text": "a" }), Form::Preference);
    assert_eq!(odd.unwrap_err(), "has no line with the rejected text after it");
}

#[test]
fn what_a_form_wrote_is_recognised_and_stays_as_it_is() {
    let table = [
        (json!({ "messages": turns("Hi", "Hello") }), Schema::Messages, Form::Sft),
        (json!({ "prompt": "p", "completion": "c" }), Schema::PromptCompletion, Form::Sft),
        (json!({ "prompt": "p", "ground_truth": "4" }), Schema::Prompts, Form::Prompts),
        (
            json!({ "prompt": "p", "chosen": "c", "rejected": "r", "chosen_reward": 1.0 }),
            Schema::Preference,
            Form::Preference,
        ),
        (
            json!({ "prompt": "p", "completion": "c", "label": true }),
            Schema::Unpaired,
            Form::Unpaired,
        ),
        (
            json!({ "prompt": "p", "completion": "c", "toxicity": 0.5 }),
            Schema::Ratings,
            Form::Ratings,
        ),
    ];
    for (columns, schema, form) in table {
        assert_eq!(Schema::of(&rows(columns.clone())[0]), Some(schema));
        assert_eq!(converted(schema, columns.clone(), form), Ok(json!([columns])));
    }
}

#[test]
fn rows_that_cannot_be_used_say_why() {
    let chat = |change: &dyn Fn(&mut Value)| {
        let mut row = nemo_chat();
        change(&mut row);
        row
    };
    let nine = |rating: f64| json!({ "text": "a", "label": vec![rating; 9] });
    let table = [
        (
            Schema::PromptCompletion,
            json!({ "prompt": "p", "completion": "c" }),
            Form::SteerLm,
            "has no rating",
        ),
        (Schema::NemoRegression, nine(1.0), Form::SteerLm, "does not say what of it is the prompt"),
        (
            Schema::Messages,
            json!({ "messages": turns("Hi", "Hello") }),
            Form::SteerLm,
            "has no rating",
        ),
        (Schema::Text, json!({ "text": "" }), Form::Sft, "column \"text\" is empty"),
        (Schema::Text, json!({ "text": null }), Form::Sft, "has no column \"text\""),
        (Schema::Text, json!({ "text": "a" }), Form::Preference, "is not a pair"),
        (
            Schema::Messages,
            json!({ "messages": "Hi" }),
            Form::Sft,
            "must be a list of {role, content}",
        ),
        (Schema::Messages, json!({ "messages": [] }), Form::Sft, "column \"messages\" is empty"),
        (
            Schema::Messages,
            json!({ "messages": [{ "role": "assistant", "content": "Hi" }] }),
            Form::Prompts,
            "nothing before the assistant's turn",
        ),
        (
            Schema::PromptCompletion,
            json!({ "prompt": "p", "completion": 4 }),
            Form::Sft,
            "column \"completion\" must be text or a list",
        ),
        (Schema::Prompts, json!({ "prompt": "p" }), Form::Sft, "has a prompt, but no completion"),
        (
            Schema::Preference,
            json!({ "prompt": "p", "chosen": "c", "rejected": "c" }),
            Form::Preference,
            "chosen and rejected are the same",
        ),
        (
            Schema::Preference,
            json!({ "chosen": "c", "rejected": "r", "margin": "wide" }),
            Form::Preference,
            "column \"margin\" must be a finite number",
        ),
        (
            Schema::Preference,
            json!({ "chosen": "c", "rejected": "r" }),
            Form::Prompts,
            "has no prompt of its own",
        ),
        (
            Schema::Unpaired,
            json!({ "prompt": "p", "completion": "c", "label": "yes" }),
            Form::Unpaired,
            "column \"label\" must be true or false",
        ),
        (
            Schema::Unpaired,
            json!({ "prompt": "p", "completion": "c", "label": false }),
            Form::Sft,
            "marked as a bad one",
        ),
        (
            Schema::Ratings,
            json!({ "prompt": "p", "response": "c", "helpfulness": "3" }),
            Form::Ratings,
            "column \"helpfulness\" must be a finite number",
        ),
        (
            Schema::Ratings,
            json!({ "prompt": "p", "response": "c" }),
            Form::Ratings,
            "has no rating",
        ),
        (
            Schema::NemoChat,
            chat(&|row| row["conversations"][0]["from"] = "Narrator".into()),
            Form::Sft,
            "speaker \"Narrator\" is none of",
        ),
        (
            Schema::NemoChat,
            chat(&|row| row["conversations"][1]["value"] = json!(3)),
            Form::Sft,
            "a turn must have a text \"value\"",
        ),
        (
            Schema::NemoChat,
            chat(&|row| row["mask"] = "User,Assistant".into()),
            Form::Sft,
            "mask leaves out the assistant's turns",
        ),
        (
            Schema::NemoChat,
            chat(&|row| row["system"] = json!(["Be short."])),
            Form::Sft,
            "column \"system\" must be text",
        ),
        (Schema::NemoChat, json!({ "conversations": [] }), Form::Sft, "\"conversations\" is empty"),
        (
            Schema::NemoPromptCompletion,
            json!({ "input": "p" }),
            Form::Sft,
            "has no column \"output\"",
        ),
        (
            Schema::NemoDpo,
            json!({ "prompt": "p", "chosen_response": "c", "rejected_response": { "content": "r" } }),
            Form::Preference,
            "column \"rejected_response\" must be text or a list",
        ),
        (
            Schema::NemoKto,
            json!({ "prompt": "p", "response": "c", "preference": "better" }),
            Form::Unpaired,
            "must be \"chosen\" or \"rejected\"",
        ),
        (Schema::NemoRegression, nine(-100.0), Form::Ratings, "has no rating"),
        (
            Schema::NemoRegression,
            json!({ "text": "a", "label": [1, 2] }),
            Form::Ratings,
            "column \"label\" must have 9 numbers",
        ),
        (Schema::Verl, json!({ "reward_model": {} }), Form::Prompts, "has no column \"prompt\""),
    ];
    for (schema, columns, form, wanted) in table {
        let said = converted(schema, columns.clone(), form).unwrap_err();
        assert!(said.contains(wanted), "{columns}: {said}");
        assert!(!said.contains('\n'), "{said}");
    }
}

#[test]
fn a_mask_that_trains_on_later_user_turns_is_refused() {
    let mut row = nemo_chat();
    row["mask"] = "".into();
    // The first turn is masked whatever the mask says.
    assert!(converted(Schema::NemoChat, row.clone(), Form::Sft).is_ok());
    let turns = row["conversations"].as_array_mut().unwrap();
    turns.extend(turns.clone());
    let said = converted(Schema::NemoChat, row, Form::Sft).unwrap_err();
    assert!(said.contains("mask trains on the user's turns"), "{said}");
}

#[test]
fn names_read_back_and_unknown_ones_list_the_known() {
    for schema in Schema::ALL {
        assert_eq!(schema.name().parse(), Ok(schema));
    }
    for form in Form::ALL {
        assert_eq!(form.name().parse(), Ok(form));
    }
    let said = "sharegpt".parse::<Schema>().unwrap_err().to_string();
    assert!(
        said.starts_with("must be one of text, messages,") && said.ends_with("got \"sharegpt\"")
    );
}
