use serde_json::json;

use super::{
    text::{ids, json, texts},
    *,
};

fn options(case: &Value) -> ChatOptions {
    ChatOptions {
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
        variables: case["variables"].as_object().unwrap().clone(),
    }
}

#[test]
fn conversations_are_rendered_and_masked_as_by_transformers() {
    let golden = json(&texts().join("chats.json"));
    let tokenizer = Tokenizer::open(&texts().join("bytes")).unwrap();
    let mut masked = 0;
    for case in golden["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let source = golden["templates"][name].as_str().unwrap();
        let template = ChatTemplate::new(source, tokenizer.special().clone()).unwrap();
        let messages = case["messages"].as_array().unwrap();
        let chat = template.render(messages, &options(case)).unwrap();
        assert_eq!(chat.text, case["text"], "{name}");
        let said: Vec<&str> = chat.assistant.iter().map(|span| &chat.text[span.clone()]).collect();
        assert_eq!(json!(said), case["assistant"], "{name}");
        let tokens = template.encode(&tokenizer, messages, &options(case)).unwrap();
        assert_eq!(tokens.ids, ids(&case["ids"]), "{name}");
        let mask: Vec<u32> = tokens.assistant_mask.iter().map(|&said| u32::from(said)).collect();
        assert_eq!(mask, ids(&case["assistant_mask"]), "{name}");
        assert_eq!(template.marks_assistant(), source.contains("endgeneration"));
        masked += mask.iter().sum::<u32>();
    }
    assert!(masked > 0);
}

fn failure(source: &str, messages: Value) -> String {
    let message = match ChatTemplate::new(source, SpecialTokens::default()) {
        Ok(template) => {
            let messages = messages.as_array().unwrap();
            template.render(messages, &ChatOptions::default()).unwrap_err().to_string()
        }
        Err(error) => error.to_string(),
    };
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn a_template_refuses_in_its_own_words() {
    let source =
        "{% if messages[0].role != 'user' %}\n{{ raise_exception('user\nfirst') }}{% endif %}";
    let messages = json!([{"role": "system", "content": ""}]);
    assert_eq!(failure(source, messages), "chat template: user first (line 2)");
}

#[test]
fn a_broken_template_is_one_line() {
    assert!(failure("{% if %}", json!([])).starts_with("chat template: "));
    assert!(failure("{% generation %}", json!([])).starts_with("chat template: "));
    assert!(failure("{{ messages | nosuch }}", json!([])).contains("nosuch"));
    assert!(failure("{{ messages[0].role.x.y }}", json!([])).starts_with("chat template: "));
}

#[test]
fn a_template_that_never_ends_or_fills_the_memory_is_stopped() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let doubling = "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}";
    for source in [endless, doubling] {
        let message = failure(source, json!([]));
        assert!(
            message.starts_with("chat template: does more work than any conversation needs"),
            "{message}"
        );
    }
    assert!(failure("{{ 'x' * 100000000000 }}", json!([])).starts_with("chat template: "));
    let calls_itself = "{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(1) }}";
    assert!(failure(calls_itself, json!([])).starts_with("chat template: "));
}

#[test]
fn a_tag_that_opens_and_closes_in_three_characters_is_no_tag() {
    assert!(failure("{%}", json!([])).starts_with("chat template: "));
}

#[test]
fn a_template_beyond_a_mebibyte_is_refused() {
    let message = failure(&"x".repeat((1 << 20) + 1), json!([]));
    assert_eq!(message, "chat template: must be at most 1 MiB, got 1048577 bytes");
}

#[test]
fn a_message_must_be_an_object() {
    assert_eq!(
        failure("", json!(["hi"])),
        "chat template: a message must be an object, got \"hi\""
    );
}

#[test]
fn text_that_imitates_the_marks_is_refused() {
    let messages = json!([{"role": "user", "content": "a\u{fdd0}b"}]);
    assert!(failure("{{ messages[0].content }}", messages).contains("U+FDD0"));
}

#[test]
fn the_template_is_found_where_transformers_finds_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("tokenizer_config.json");
    let opened = || ChatTemplate::open(dir.path(), &SpecialTokens::default());
    let said = || {
        let template = opened().unwrap().unwrap();
        template.render(&[json!({})], &ChatOptions::default()).unwrap().text
    };
    assert!(opened().unwrap().is_none());
    fs::write(&config, r#"{"chat_template": "one"}"#).unwrap();
    assert_eq!(said(), "one");
    let named = json!({"chat_template": [
        {"name": "tool_use", "template": "no"}, {"name": "default", "template": "two"}]});
    fs::write(&config, named.to_string()).unwrap();
    assert_eq!(said(), "two");
    fs::write(dir.path().join("chat_template.jinja"), "three").unwrap();
    assert_eq!(said(), "three");
    fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
    fs::write(&config, r#"{"chat_template": [{"name": "rag", "template": ""}]}"#).unwrap();
    let message = opened().unwrap_err().to_string();
    assert!(message.ends_with("chat_template has no template named default"), "{message}");
}
