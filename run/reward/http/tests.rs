use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener},
    path::Path,
    sync::mpsc,
    thread,
};

use super::*;
use crate::{
    data::{Place, PromptSample},
    engine::EngineModel,
    rollout::{Prompt, PromptId, Rollout, StopReason},
};

fn bytes() -> Tokenizer {
    EngineModel::tiny(0).tokenizer.unwrap()
}

/// What the server does with one request.
enum Act {
    Answer(u16, &'static str),
    HangUp,
    Sleep,
}

/// Serves requests one by one, and returns where, and what they said: heads and bodies.
fn serve(acts: Vec<Act>) -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/score", listener.local_addr().unwrap());
    let (heard, requests) = mpsc::channel();
    thread::spawn(move || {
        let mut sleeping = Vec::new();
        for act in acts {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while reader.read_line(&mut head).unwrap() > 2 {
                let last = head.lines().last().unwrap().to_ascii_lowercase();
                if let Some(value) = last.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            heard.send((head, String::from_utf8(body).unwrap())).ok();
            match act {
                Act::Answer(status, text) => {
                    let length = text.len();
                    let head = format!(
                        "HTTP/1.1 {status} So\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
                    );
                    stream.write_all((head + text).as_bytes()).unwrap();
                }
                Act::HangUp => stream.shutdown(Shutdown::Both).unwrap(),
                Act::Sleep => sleeping.push(stream),
            }
        }
        // Open until the tests end.
        std::mem::forget(sleeping);
    });
    (url, requests)
}

fn options(url: &str) -> HttpReward {
    HttpReward { url: url.into(), deadline_seconds: 60.0, retries: 0, batch: 64, token_env: None }
}

/// Asks for completions of these texts after the prompt "4".
fn score(options: &HttpReward, texts: &[&str]) -> Result<Vec<Reward>, String> {
    let tokenizer = bytes();
    let place = Place { file: Path::new("a.jsonl").into(), line: 3 };
    let tokens = tokenizer.encode("4", false).unwrap().into();
    let prompt = PromptSample { tokens, extra: serde_json::Map::new(), place };
    let rollouts: Vec<Rollout> = (0..)
        .zip(texts)
        .map(|(sample, text)| Rollout {
            prompt: Prompt { id: PromptId(9), tokens: vec![0].into() },
            sample,
            completion: tokenizer.encode(text, false).unwrap(),
            rollout_logprobs: Vec::new(),
            raw_logprobs: None,
            stop: StopReason::Length,
            versions: Vec::new(),
        })
        .collect();
    let completions: Vec<_> =
        rollouts.iter().map(|rollout| Completion { prompt: &prompt, rollout }).collect();
    Http::new(options, bytes()).unwrap().score(&completions).map_err(|error| {
        let said = format!("{error:#}");
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    })
}

#[test]
fn text_and_tokens_go_out_and_scores_come_back_in_order() {
    let (url, requests) = serve(vec![
        Act::Answer(200, r#"{"scores": [0.5, [1, -2]]}"#),
        Act::Answer(200, r#"{"scores": [3]}"#),
    ]);
    let scores = score(&HttpReward { batch: 2, ..options(&url) }, &["1", "23", "5"]).unwrap();
    let expected = [Reward::Score(0.5), Reward::PerToken(vec![1.0, -2.0]), Reward::Score(3.0)];
    assert_eq!(scores, expected);
    let (head, body) = requests.recv().unwrap();
    assert!(
        head.starts_with("POST /score HTTP/1.1") && !head.to_lowercase().contains("authorization")
    );
    let question: Question = serde_json::from_str(&body).unwrap();
    assert_eq!(question.tokenizer, Some(fingerprint(&bytes().to_json().unwrap())));
    let asked = &question.completions[1];
    assert_eq!((asked.prompt.as_str(), asked.completion.as_str()), ("4", "23"));
    let tokens =
        |ids: &[u32]| ids.iter().map(|&id| char::from_u32(id).unwrap()).collect::<String>();
    assert_eq!(
        (tokens(&asked.prompt_token_ids), tokens(&asked.completion_token_ids)),
        ("4".into(), "23".into())
    );
}

#[test]
fn what_may_pass_is_asked_again() {
    let acts = vec![
        Act::Answer(503, "busy"),
        Act::HangUp,
        Act::Answer(429, r#"{"error": "later"}"#),
        Act::Answer(200, r#"{"scores": [1]}"#),
    ];
    let (url, requests) = serve(acts);
    let options = HttpReward { retries: 3, ..options(&url) };
    assert_eq!(score(&options, &["1"]), Ok(vec![Reward::Score(1.0)]));
    assert_eq!(requests.iter().count(), 4);
}

#[test]
fn what_does_not_pass_ends_with_what_was_said_last() {
    let (url, requests) =
        serve(vec![Act::Answer(503, "busy"), Act::Answer(500, r#"{"error": "no memory"}"#)]);
    let said = score(&HttpReward { retries: 1, ..options(&url) }, &["1"]).unwrap_err();
    assert!(said.starts_with(&format!("{url}: no answer (requests made: 2, in ")), "{said}");
    assert!(said.ends_with("it answered 500 Internal Server Error: no memory"), "{said}");
    assert_eq!(requests.iter().count(), 2);
}

#[test]
fn a_server_that_hangs_is_late() {
    let (url, _requests) = serve(vec![Act::Sleep]);
    let said = score(&HttpReward { deadline_seconds: 0.2, ..options(&url) }, &["1"]).unwrap_err();
    assert!(said.contains("no answer (requests made: 1") && said.contains("timeout"), "{said}");
}

#[test]
fn nobody_at_the_address_is_said() {
    // Bound and let go again: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = score(&options(&format!("http://{address}/score")), &["1"]).unwrap_err();
    assert!(said.to_lowercase().contains("refused"), "{said}");
}

#[test]
fn what_is_no_answer_is_not_asked_for_again() {
    for (status, body, expected) in [
        (200, "well", "it answered \"well\", which is no answer"),
        (200, r#"{"scores": [1, 2]}"#, "it must give 1 scores, got 2"),
        (200, r#"{"scores": [1e99]}"#, "must be finite"),
        (200, r#"{"scores": [[1, 2]]}"#, "must be one number or 1, got 2"),
        (401, r#"{"error": "who are you?"}"#, "it answered 401 Unauthorized: who are you?"),
        (404, "<html>", "it answered 404 Not Found: \"<html>\""),
        (302, "", "it answered 302 Found"),
    ] {
        let (url, requests) = serve(vec![Act::Answer(status, body)]);
        let said = score(&HttpReward { retries: 5, ..options(&url) }, &["1"]).unwrap_err();
        assert!(said.starts_with(&url) && said.contains(expected), "{said}");
        assert_eq!(requests.iter().count(), 1);
    }
}

#[test]
fn a_token_that_is_not_there_is_refused_at_once() {
    let token_env = Some("ROLLFORGE_TEST_NO_SUCH_TOKEN".to_owned());
    let Err(error) = Http::new(&HttpReward { token_env, ..options("http://a") }, bytes()) else {
        panic!("it is there")
    };
    assert!(format!("{error:#}").contains("reward.token_env: ROLLFORGE_TEST_NO_SUCH_TOKEN"));
}
