use std::{path::Path, thread};

use super::*;
use crate::{
    data::Place,
    engine::{
        Backend, EngineConfig, EngineModel, Error, Event, RefitInFlight, RefitMode, RefitReport,
        RequestId, Stats, open,
    },
    rollout::{Consumer, QueueOptions, QueueSnapshot, WeightVersion, Weights, queue, restore},
};

type Answer = Arc<Answered>;

const TOKENS: usize = 8;
/// What the model's context leaves of a completion after a long prompt.
const LEFT: usize = 2;

/// Prompts of so many tokens.
fn prompts<const N: usize>(lengths: [usize; N]) -> Vec<PromptSample> {
    let place = Place { file: Arc::from(Path::new("prompts.jsonl")), line: 1 };
    let prompt = |(row, length)| PromptSample {
        tokens: vec![65 + row as u32; length].into(),
        extra: serde_json::Map::new(),
        place: place.clone(),
    };
    lengths.into_iter().enumerate().map(prompt).collect()
}

fn options(max_staleness: usize, order: crate::rollout::Order) -> QueueOptions {
    QueueOptions { batch: 2, max_staleness, order, ..QueueOptions::default() }
}

fn tiny() -> Engine {
    Engine::builder().model(EngineModel::tiny(3)).build().unwrap()
}

/// Lets `trainer` play its part while a generator answers.
fn play<R>(
    engine: &Engine,
    prompts: &[PromptSample],
    (issuer, mut consumer): (Issuer<Answer>, Consumer<Answer>),
    trainer: impl FnOnce(&mut Consumer<Answer>) -> R,
) -> (R, Result<()>) {
    let sampling =
        SamplingParams { max_new_tokens: TOKENS, ignore_eos: true, ..SamplingParams::default() };
    let generator = Generator {
        engine: engine.clone(),
        issuer,
        heartbeat: Heartbeat::new("playing"),
        patience: std::time::Duration::from_secs(60),
        prompts,
        order: Order::sequential(prompts.len()),
        sampling: Arc::new(sampling),
        finished: Finished::default(),
    };
    thread::scope(|scope| {
        let generator = scope.spawn(|| generator.run());
        let played = trainer(&mut consumer);
        drop(consumer);
        (played, generator.join().unwrap())
    })
}

#[test]
fn the_next_batch_is_answered_while_the_trainer_has_this_one() {
    let (prompts, by_ticket) = (prompts([3, 4, 5]), crate::rollout::Order::Ticket);
    let engine = tiny();
    let (tickets, ended) = play(&engine, &prompts, queue(options(1, by_ticket)), |consumer| {
        let first = consumer.take().unwrap();
        // The trainer is still at the first batch: nothing has been refitted or advanced.
        consumer.settle().unwrap();
        let refit = weights(1);
        engine.blocking().refit(&refit, RefitMode::Copy).unwrap();
        consumer.advance(refit.version());
        let second = consumer.take().unwrap();
        first.iter().chain(&second).map(|one| (one.ticket.0, versions(one))).collect::<Vec<_>>()
    });
    ended.unwrap();
    assert_eq!(tickets, [0, 1, 2, 3].map(|ticket| (ticket, vec![(0, TOKENS as u32)])));
}

#[test]
fn a_restored_queue_is_answered_bit_for_bit() {
    let (prompts, by_ticket) = (prompts([3, 4, 5]), crate::rollout::Order::Ticket);
    let two_batches = |consumer: &mut Consumer<Answer>| {
        let first = consumer.take().unwrap();
        consumer.advance(WeightVersion(0));
        (first, consumer.take().unwrap())
    };
    let whole = play(&tiny(), &prompts, queue(options(2, by_ticket)), |consumer| {
        consumer.take().unwrap();
        consumer.advance(WeightVersion(0));
        two_batches(consumer)
    });
    let (ref second, ref third) = whole.0;
    let cut = QueueSnapshot {
        iteration: 1,
        next: Ticket(5),
        ends: vec![Ticket(5)],
        out: vec![Ticket(2), Ticket(4)],
        answered: vec![(Ticket(3), second[1].clone())],
        ..QueueSnapshot::default()
    };
    let text = serde_json::to_string(&cut).unwrap();
    let cut = serde_json::from_str(&text).unwrap();
    let restored = restore(options(2, by_ticket), cut).unwrap();
    let (again, ended) = play(&tiny(), &prompts, restored, two_batches);
    ended.unwrap();
    assert_eq!((&again.0, &again.1), (second, third));
}

#[test]
fn a_prompt_that_cannot_be_answered_ends_both_sides_and_is_named() {
    let (prompts, by_ticket) = (prompts([3, 300]), crate::rollout::Order::Ticket);
    let (taken, ended) =
        play(&tiny(), &prompts, queue(options(0, by_ticket)), |consumer| consumer.take());
    assert!(matches!(taken, Err(QueueError::EngineGone { .. })), "{taken:?}");
    let said = format!("{:#}", ended.unwrap_err());
    assert!(said.contains("300 tokens"), "{said}");
}

/// An engine that begins when so many requests are in it; once but one has been answered, it waits for a refit.
struct Meets {
    engine: Box<dyn Backend>,
    requests: usize,
    submitted: usize,
}

impl Backend for Meets {
    fn submit(&mut self, request: Request) -> Result<RequestId, Error> {
        self.submitted += 1;
        self.engine.submit(request)
    }

    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let Stats { version, running, waiting, .. } = self.engine.stats();
        let last = running + waiting == 1 && version == WeightVersion(0);
        if self.submitted < self.requests || last {
            thread::yield_now();
            return Ok(());
        }
        self.engine.poll(events)
    }

    fn cancel(&mut self, id: RequestId) {
        self.engine.cancel(id);
    }

    fn is_busy(&self) -> bool {
        self.engine.is_busy()
    }

    fn is_drained(&self) -> bool {
        self.engine.is_drained()
    }

    fn hold_admission(&mut self, hold: bool) {
        self.engine.hold_admission(hold);
    }

    fn refit(
        &mut self,
        weights: &Weights,
        mode: RefitMode,
        checksum: bool,
    ) -> Result<RefitReport, Error> {
        self.engine.refit(weights, mode, checksum)
    }

    fn stats(&self) -> Stats {
        self.engine.stats()
    }
}

/// Weights that a refit brings.
fn weights(version: u64) -> Weights {
    let weights = EngineModel::tiny(version).weights;
    let tensors = weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    Weights::new(WeightVersion(version), weights.lease().clone(), tensors)
}

fn versions(answered: &Answered) -> Vec<(u64, u32)> {
    let spans = answered.rollouts.iter().flat_map(|rollout| &rollout.versions);
    spans.map(|span| (span.version.0, span.tokens)).collect()
}

#[test]
fn what_is_in_flight_at_a_refit_is_overtaken_and_comes_with_both_versions() {
    // One short prompt with a long completion, three the other way round.
    let context = 256;
    let prompts = prompts([3, context - LEFT, context - LEFT, context - LEFT]);
    for in_flight in [RefitInFlight::Recompute, RefitInFlight::Keep] {
        let config =
            EngineConfig { threads: 1, refit_in_flight: in_flight, ..EngineConfig::default() };
        let inner = open(&config, EngineModel::tiny(0)).unwrap();
        let backend = Meets { engine: inner, requests: 4, submitted: 0 };
        let engine = Engine::builder().config(config).backend(Box::new(backend), None);
        let engine = engine.build().unwrap();
        let queue = queue(options(1, crate::rollout::Order::Arrival));
        let ((first, second), ended) = play(&engine, &prompts, queue, |consumer| {
            let first = consumer.take().unwrap();
            engine.blocking().refit(&weights(1), RefitMode::Copy).unwrap();
            consumer.advance(WeightVersion(1));
            (first, consumer.take().unwrap())
        });
        ended.unwrap();
        assert!(first.iter().all(|one| one.ticket.0 > 0 && versions(one) == [(0, LEFT as u32)]));
        let long = second.iter().find(|one| one.ticket.0 == 0).expect("it is due");
        let [(0, before), (1, after)] = versions(long)[..] else { panic!("{:?}", versions(long)) };
        assert!(before > 0 && after > 0 && before + after == TOKENS as u32, "{in_flight:?}");
    }
}
