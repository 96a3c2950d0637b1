use super::*;
use crate::{
    engine::{Request, SamplingParams, tensorrt_llm::asked::Rules},
    rollout::{Prompt, PromptId},
};

const ID: RequestId = RequestId(3);

fn table(capabilities: Capabilities) -> Table {
    Table::new(Surroundings {
        capacity: 4,
        vocab_size: 16,
        capabilities,
        tokenizer: None,
        library: "a library".into(),
    })
}

/// A request for `n` samples of four tokens, of which 9 is a stop id.
fn asked(n: u32) -> Asked {
    let sampling = SamplingParams {
        n,
        max_new_tokens: 4,
        stop_token_ids: vec![9],
        ..SamplingParams::default()
    };
    let rules = Rules {
        vocab_size: 16,
        max_input_len: 8,
        max_seq_len: 16,
        kv_tokens: None,
        tokens_per_block: 4,
        eos: vec![],
        has_tokenizer: false,
        capabilities: Capabilities::default(),
    };
    let prompt = Prompt { id: PromptId(0), tokens: vec![1, 2].into() };
    Asked::new(Request::new(prompt, sampling), &rules).unwrap()
}

/// A table with one request in the executor, under the id 7.
fn flying() -> Table {
    let mut table = table(Capabilities::default());
    table.push(ID, asked(1));
    let job = table.admit(0).unwrap();
    table.enqueued(7, job, &mut Vec::new());
    table
}

fn response(tokens: &[i32], finish: FinishReason) -> Response {
    let over = finish != FinishReason::NotFinished;
    Response {
        request: 7,
        sequence: 0,
        tokens: tokens.to_vec(),
        log_probs: vec![-0.5; tokens.len()],
        finish,
        is_sequence_final: over,
        is_final: over,
        error: None,
    }
}

fn take(table: &mut Table, response: &Response) -> Vec<Event> {
    let mut events = Vec::new();
    table.take(response, WeightVersion(0), &mut events);
    events
}

fn failure(events: &[Event]) -> String {
    let [.., Event::Failed { id: ID, error }] = events else { panic!("{events:?}") };
    error.to_string()
}

#[test]
fn a_stop_id_ends_a_sample_whatever_else_comes() {
    let mut table = flying();
    let events = take(&mut table, &response(&[5, 9, 6], FinishReason::NotFinished));
    let finished = Event::Finished { id: ID, sample: 0, stop: StopReason::Token(9) };
    assert_eq!((events.len(), events.last()), (3, Some(&finished)));
    assert_eq!(take(&mut table, &response(&[4], FinishReason::StopWords)), []);
    assert_eq!(table.flights(), 0);
}

#[test]
fn the_last_token_may_come_before_the_end_is_said() {
    let mut table = flying();
    let events = take(&mut table, &response(&[5, 6, 7, 8], FinishReason::NotFinished));
    assert!(matches!(events.last(), Some(Event::Finished { stop: StopReason::Length, .. })));
    assert_eq!(table.flights(), 1);
    assert_eq!(take(&mut table, &response(&[], FinishReason::Length)), []);
    assert_eq!((table.flights(), table.take_cancels().len()), (0, 0));
}

#[test]
fn what_cannot_be_fails_the_request_with_a_sentence() {
    let bad = |change: &dyn Fn(&mut Response)| {
        let mut response = response(&[5], FinishReason::NotFinished);
        change(&mut response);
        failure(&take(&mut flying(), &response))
    };
    let ends = |finish| failure(&take(&mut flying(), &response(&[5], finish)));
    let cases = [
        (bad(&|r| r.tokens[0] = 16), "token id 16 lies beyond the vocabulary of 16"),
        (bad(&|r| r.tokens[0] = -1), "token id -1 lies beyond the vocabulary of 16"),
        (bad(&|r| r.log_probs[0] = f32::NAN), "the log-prob of token id 5 is NaN"),
        (bad(&|r| r.log_probs.clear()), "1 tokens came with 0 log-probs"),
        (bad(&|r| r.sequence = 1), "sequence 1 was not asked for"),
        (bad(&|r| r.sequence = -1), "sequence -1 was not asked for"),
        (bad(&|r| r.error = Some("as planned".into())), "as planned"),
        (ends(FinishReason::Other(7)), "finish reason 7 is not known"),
        (ends(FinishReason::EndId), "a sequence of 1 tokens ended at the end id without it"),
        (ends(FinishReason::StopWords), "a sequence of 1 tokens ended at no stop id"),
        (ends(FinishReason::Length), "a sequence ended after 1 tokens, too early"),
        (ends(FinishReason::Cancelled), "a sequence was cancelled by somebody else"),
        (ends(FinishReason::TimedOut), "a sequence ran out of time, though it had no limit"),
    ];
    for (got, wanted) in cases {
        assert_eq!(got, format!("a library: response: {wanted}"));
    }
}

#[test]
fn a_cancelled_request_is_heard_of_no_more_but_awaited() {
    let mut table = flying();
    table.cancel(ID);
    table.cancel(ID);
    assert_eq!(table.take_cancels(), [7]);
    assert_eq!(take(&mut table, &response(&[5], FinishReason::NotFinished)), []);
    assert_eq!(table.flights(), 1);
    assert_eq!(take(&mut table, &response(&[], FinishReason::Cancelled)), []);
    assert_eq!(table.flights(), 0);
    // An error after it, as TensorRT-LLM may send, is a stray.
    let late = Response {
        error: Some("already terminated".into()),
        ..response(&[], FinishReason::NotFinished)
    };
    assert_eq!(take(&mut table, &late), []);
    assert_eq!(table.strays(), 1);
}

#[test]
fn samples_are_cut_into_as_many_requests_as_it_takes() {
    let jobs = |capabilities| {
        let mut table = table(capabilities);
        table.push(ID, asked(6));
        assert_eq!(table.waiting(), 6);
        let mut jobs = Vec::new();
        let mut admitted = 0;
        while let Some(job) = table.admit(admitted) {
            admitted += job.count as usize;
            jobs.push((job.first, job.count));
        }
        jobs
    };
    // The executor has room for four sequences.
    assert_eq!(jobs(Capabilities::default()), [(0, 1), (1, 1), (2, 1), (3, 1)]);
    assert_eq!(jobs(Capabilities::RETURN_SEQUENCES), [(0, 4)]);
}
