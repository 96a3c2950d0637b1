use std::{sync::atomic::AtomicU64, time::Duration};

use proptest::prelude::*;

use super::*;

mod rest;

/// What the tests send: which ticket, and the version when it was issued.
type Item = (Ticket, WeightVersion);

fn options(batch: usize, max_staleness: usize, order: Order) -> QueueOptions {
    let deadline = Duration::from_millis(20);
    QueueOptions { batch, max_staleness, order, deadline }
}

fn issue<T>(issuer: &Issuer<T>) -> Permit<T> {
    issuer.try_issue().unwrap().expect("a permit is free")
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

#[test]
fn tickets_restore_the_order_of_issue() {
    let (issuer, mut consumer) = queue(options(4, 0, Order::Ticket));
    let mut permits: Vec<_> = (0..4).map(|_| issue(&issuer)).collect();
    for place in [2, 2, 0, 0] {
        let permit = permits.remove(place);
        let ticket = permit.ticket();
        permit.push(ticket.0).unwrap();
    }
    assert_eq!(consumer.take().unwrap(), [0, 1, 2, 3]);
}

#[test]
fn arrivals_are_taken_as_they_come() {
    let (issuer, mut consumer) = queue(options(2, 1, Order::Arrival));
    let slow = issue(&issuer);
    issue(&issuer).push("second").unwrap();
    issue(&issuer).push("third").unwrap();
    assert_eq!(consumer.take().unwrap(), ["second", "third"]);
    slow.push("first").unwrap();
}

#[test]
fn an_arrival_does_not_overtake_what_is_due() {
    let (issuer, mut consumer) = queue(options(1, 1, Order::Arrival));
    let slow = issue(&issuer);
    issue(&issuer).push("fast").unwrap();
    assert_eq!(consumer.take().unwrap(), ["fast"]);
    consumer.advance(WeightVersion(1));
    issue(&issuer).push("faster").unwrap();
    assert_eq!(consumer.try_take(), None, "the slow one would become two versions old");
    slow.push("slow").unwrap();
    assert_eq!(consumer.take().unwrap(), ["slow"]);
}

#[test]
fn the_limit_moves_with_the_iteration_even_without_a_refit() {
    let (issuer, mut consumer) = queue(options(1, 1, Order::Ticket));
    issue(&issuer).push(()).unwrap();
    issue(&issuer).push(()).unwrap();
    assert!(issuer.try_issue().unwrap().is_none());
    consumer.take().unwrap();
    assert!(issuer.try_issue().unwrap().is_none(), "the refit is still to come");
    consumer.advance(WeightVersion(0));
    assert!(issuer.try_issue().unwrap().is_some());
}

#[test]
fn a_dropped_permit_is_skipped_and_replaced() {
    for order in [Order::Ticket, Order::Arrival] {
        let (issuer, mut consumer) = queue(options(2, 0, order));
        let failed = issue(&issuer);
        issue(&issuer).push("b").unwrap();
        drop(failed);
        assert_eq!(consumer.try_take(), None);
        issue(&issuer).push("c").unwrap();
        assert_eq!(consumer.take().unwrap(), ["b", "c"]);
        assert_eq!(consumer.state().out, 0);
    }
}

#[test]
fn what_is_refused_is_made_up_for_in_the_same_iteration() {
    for order in [Order::Ticket, Order::Arrival] {
        let (issuer, mut consumer) = queue(options(3, 0, order));
        ["a", "b", "c"].into_iter().for_each(|item| issue(&issuer).push(item).unwrap());
        assert_eq!(consumer.take().unwrap(), ["a", "b", "c"]);
        assert!(issuer.try_issue().unwrap().is_none());
        consumer.refuse(2);
        ["d", "e"].into_iter().for_each(|item| issue(&issuer).push(item).unwrap());
        assert!(issuer.try_issue().unwrap().is_none(), "two were refused");
        assert_eq!(consumer.take().unwrap(), ["d", "e"]);
        consumer.refuse(1);
        assert_eq!(consumer.try_take(), None);
        issue(&issuer).push("f").unwrap();
        assert_eq!(consumer.take().unwrap(), ["f"]);
        consumer.advance(WeightVersion(1));
        let snapshot = consumer.snapshot();
        assert_eq!((snapshot.iteration, snapshot.next, snapshot.refused), (1, Ticket(6), 3));
        assert!(restore(options(3, 0, order), snapshot).is_ok());
        ["g", "h", "i"].into_iter().for_each(|item| issue(&issuer).push(item).unwrap());
        assert_eq!(consumer.take().unwrap(), ["g", "h", "i"], "a whole batch again");
    }
}

#[test]
#[should_panic(expected = "only what was taken can be refused")]
fn more_than_was_taken_cannot_be_refused() {
    let (issuer, mut consumer) = queue(options(2, 0, Order::Ticket));
    [(), ()].into_iter().for_each(|item| issue(&issuer).push(item).unwrap());
    consumer.take().unwrap();
    consumer.refuse(1);
    issue(&issuer).push(()).unwrap();
    consumer.take().unwrap();
    consumer.refuse(2);
}

#[test]
fn a_trainer_never_waits_for_a_dropped_ticket() {
    let (issuer, mut consumer) = queue::<()>(options(2, 0, Order::Ticket));
    let (failed, _slow) = (issue(&issuer), issue(&issuer));
    drop(failed);
    let message = consumer.take().unwrap_err().to_string();
    assert!(message.contains("next ticket 1 is with the engine"), "{message}");
}

#[test]
#[should_panic(expected = "one batch per iteration")]
fn two_batches_in_one_iteration_are_refused() {
    let (issuer, mut consumer) = queue(options(1, 1, Order::Ticket));
    issue(&issuer).push(()).unwrap();
    issue(&issuer).push(()).unwrap();
    consumer.take().unwrap();
    consumer.try_take();
}

#[test]
#[should_panic(expected = "one refit at most, got 0 to 2")]
fn two_refits_in_one_iteration_are_refused() {
    let (issuer, mut consumer) = queue(options(1, 0, Order::Ticket));
    issue(&issuer).push(()).unwrap();
    consumer.take().unwrap();
    consumer.advance(WeightVersion(2));
}

#[test]
fn a_trainer_that_waits_in_vain_says_for_whom() {
    let (issuer, mut consumer) = queue(options(3, 1, Order::Ticket));
    issue(&issuer).push(()).unwrap();
    let slow = issue(&issuer);
    issue(&issuer).push(()).unwrap();
    let message = consumer.take().unwrap_err().to_string();
    let (waited, rest) = message.split_once(": ").unwrap();
    assert!(waited.starts_with("trainer waited "), "{waited}");
    assert!(waited.contains(" s for rollouts"), "{waited}");
    let expected =
        "1 of 3 arrived, next ticket 1 is with the engine, 1 permits out, 3 more could be issued";
    assert_eq!(rest, expected);
    slow.push(()).unwrap();
    assert_eq!(consumer.take().unwrap().len(), 3, "nothing was lost by the missed deadline");
}

#[test]
fn a_trainer_that_waits_for_nobody_says_so() {
    let (_issuer, mut consumer) = queue::<()>(options(2, 0, Order::Ticket));
    let message = consumer.take().unwrap_err().to_string();
    assert!(
        message.ends_with(
            "0 of 2 arrived, next ticket 0 was never issued, 0 permits out, 2 more could be issued"
        ),
        "{message}"
    );
}

#[test]
fn an_engine_that_waits_in_vain_says_for_whom() {
    let (issuer, _consumer) = queue(options(2, 0, Order::Ticket));
    issue(&issuer).push(()).unwrap();
    let _out = issue(&issuer);
    let message = block_on(issuer.issue()).err().unwrap().to_string();
    assert!(
        message.ends_with(
            "for a permit: the trainer is still at version 0, with max_staleness 0 and batch 2 all 2 permits so far \
             are issued, 1 of them out and 1 waiting for the trainer"
        ),
        "{message}"
    );
}

#[test]
fn an_issuer_wakes_when_the_trainer_advances() {
    let mut options = options(1, 0, Order::Ticket);
    options.deadline = Duration::from_secs(60);
    let (issuer, mut consumer) = queue(options);
    issue(&issuer).push(()).unwrap();
    let waiting = std::thread::spawn(move || block_on(issuer.issue()).unwrap().ticket());
    consumer.take().unwrap();
    consumer.advance(WeightVersion(1));
    assert_eq!(waiting.join().unwrap(), Ticket(1));
}

#[test]
fn either_side_notices_that_the_other_is_gone() {
    let (issuer, consumer) = queue(options(1, 0, Order::Ticket));
    let permit = issue(&issuer);
    drop(consumer);
    assert!(matches!(permit.push(()), Err(QueueError::TrainerGone { .. })));
    assert!(matches!(issuer.try_issue(), Err(QueueError::TrainerGone { .. })));

    let (issuer, mut consumer) = queue(options(2, 0, Order::Ticket));
    issue(&issuer).push(()).unwrap();
    drop(issuer);
    let error = consumer.take().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the engine's side of the queue is gone: 1 of 2 rollouts arrived at version 0, no permit is out"
    );
}

#[test]
fn the_last_batch_is_taken_after_its_issuer_has_gone() {
    let (issuer, mut consumer) = queue(options(1, 0, Order::Ticket));
    let permit = issue(&issuer);
    drop(issuer);
    permit.push(7).unwrap();
    assert_eq!(consumer.take().unwrap(), [7]);
}

/// Many producers against one consumer: everything arrives once, in order, and never too stale.
fn stress(order: Order, producers: usize, iterations: u64) {
    let mut options = options(8, 2, order);
    options.deadline = Duration::from_secs(60);
    let (issuer, mut consumer) = queue::<Item>(options);
    let version = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..producers)
        .map(|_| {
            let (issuer, version) = (issuer.clone(), version.clone());
            std::thread::spawn(move || {
                block_on(async {
                    while let Ok(permit) = issuer.issue().await {
                        let ticket = permit.ticket();
                        let issued = WeightVersion(version.load(Ordering::Relaxed));
                        if ticket.0 % 7 == 3 {
                            drop(permit);
                        } else if permit.push((ticket, issued)).is_err() {
                            break;
                        }
                    }
                });
            })
        })
        .collect();
    drop(issuer);
    let mut tickets = Vec::new();
    for iteration in 0..iterations {
        for (ticket, issued) in consumer.take().unwrap() {
            assert!(issued.staleness(WeightVersion(iteration)) <= 2);
            tickets.push(ticket);
        }
        version.store(iteration + 1, Ordering::Relaxed);
        consumer.advance(WeightVersion(iteration + 1));
    }
    drop(consumer);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(tickets.len() as u64, 8 * iterations);
    if order == Order::Arrival {
        tickets.sort_unstable();
        tickets.dedup();
        assert_eq!(tickets.len() as u64, 8 * iterations);
    } else {
        let kept = (0..).map(Ticket).filter(|ticket| ticket.0 % 7 != 3);
        assert!(kept.zip(&tickets).all(|(expected, &got)| expected == got));
    }
}

const ITERATIONS: u64 = if cfg!(miri) { 3 } else { 500 };

#[test]
fn one_producer_keeps_the_promises() {
    stress(Order::Ticket, 1, ITERATIONS);
    stress(Order::Arrival, 1, ITERATIONS);
}

#[test]
fn many_producers_keep_the_promises() {
    stress(Order::Ticket, 4, ITERATIONS);
    stress(Order::Arrival, 4, ITERATIONS);
}

/// One thread plays all parts by a random script; `refit` says which iterations end in one.
struct Play {
    issuer: Issuer<Item>,
    consumer: Consumer<Item>,
    out: Vec<Permit<Item>>,
    /// The version when each ticket was first issued.
    issued_at: Vec<WeightVersion>,
    taken: Vec<Ticket>,
    dropped: usize,
    /// How many of those taken were refused, and how many of them are still to be made up for in this iteration.
    refused: usize,
    lacking: usize,
    /// Which tickets are dropped: every so many.
    drops: u64,
    options: QueueOptions,
}

impl Play {
    fn new(options: QueueOptions, drops: u64) -> Self {
        let (issuer, consumer) = queue(options);
        let (out, issued_at, taken) = (Vec::new(), Vec::new(), Vec::new());
        let (dropped, refused, lacking) = (0, 0, 0);
        Self { issuer, consumer, out, issued_at, taken, dropped, refused, lacking, drops, options }
    }

    fn is_dropped(&self, ticket: Ticket) -> bool {
        ticket.0 % self.drops == 1
    }

    fn issue(&mut self) -> bool {
        let Some(permit) = self.issuer.try_issue().unwrap() else { return false };
        let place = permit.ticket().0 as usize;
        assert!(place <= self.issued_at.len(), "tickets leave no gap");
        if place == self.issued_at.len() {
            self.issued_at.push(self.consumer.version());
        }
        self.out.push(permit);
        true
    }

    /// Answers a prompt, or fails to.
    fn push(&mut self, which: usize) {
        let permit = self.out.swap_remove(which % self.out.len());
        let ticket = permit.ticket();
        if self.is_dropped(ticket) {
            drop(permit);
            self.dropped += 1;
        } else {
            permit.push((ticket, self.issued_at[ticket.0 as usize])).unwrap();
        }
    }

    /// Takes a batch, or what makes up for what was refused; refuses some of it, or ends the iteration.
    fn take(&mut self, refit: bool, refused: usize) -> bool {
        let Some(batch) = self.consumer.try_take() else { return false };
        let wanted = if self.lacking > 0 { self.lacking } else { self.options.batch };
        assert_eq!(batch.len(), wanted);
        let now = self.consumer.version();
        for (ticket, issued) in batch {
            let lag = issued.staleness(now);
            assert!(lag <= self.options.max_staleness as u64, "{ticket} is {lag} versions late");
            self.taken.push(ticket);
        }
        self.lacking = refused.min(wanted);
        self.refused += self.lacking;
        self.consumer.refuse(self.lacking);
        if self.lacking == 0 {
            self.consumer.advance(if refit { now.next() } else { now });
        }
        true
    }

    /// The process ends and another goes on: what was out is lost, and issued again before anything new.
    fn restart(&mut self) {
        let text = serde_json::to_string(&self.consumer.snapshot()).unwrap();
        let snapshot: QueueSnapshot<Item> = serde_json::from_str(&text).unwrap();
        // What was dropped and noticed by the snapshot is let in anew.
        self.consumer.open();
        let before = self.consumer.state();
        let mut out: Vec<Ticket> = self.out.drain(..).map(|permit| permit.ticket()).collect();
        out.extend(snapshot.out.iter().filter(|ticket| !out.contains(ticket)).collect::<Vec<_>>());
        out.sort_unstable();
        assert_eq!(snapshot.out, out);
        (self.issuer, self.consumer) = restore(self.options, snapshot.clone()).unwrap();
        assert_eq!(self.consumer.snapshot(), snapshot);
        let state = self.consumer.state();
        let may_issue = before.may_issue + before.out;
        assert_eq!(state, QueueState { out: 0, may_issue, ..before });
        for ticket in out {
            assert!(self.issue());
            assert_eq!(self.out.last().map(Permit::ticket), Some(ticket));
        }
    }

    fn act(&mut self, (what, which): (u8, usize)) {
        match what {
            0..4 => drop(self.issue()),
            4..8 if !self.out.is_empty() => self.push(which),
            8 if self.lacking == 0 => self.restart(),
            _ => drop(self.take(which % 4 > 0, (which / 4 % 8).saturating_sub(4))),
        }
    }

    /// Whatever happened, with every permit used the trainer gets its batch.
    fn ends_well(mut self) {
        while !self.out.is_empty() || self.issue() {
            self.push(0);
        }
        while !self.take(true, 0) {
            assert!(self.issue(), "no batch and no permit: {:?}", self.consumer.state());
            self.push(0);
        }
        let state = self.consumer.state();
        assert_eq!(self.issued_at.len(), self.taken.len() + self.dropped + state.queued);
        assert_eq!(state.out, 0);
        if self.options.order == Order::Ticket {
            let kept = (0..).map(Ticket).filter(|&ticket| !self.is_dropped(ticket));
            assert!(kept.zip(&self.taken).all(|(expected, &got)| expected == got));
        }
        self.taken.sort_unstable();
        self.taken.dedup();
        assert_eq!((self.taken.len() - self.refused) % self.options.batch, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_schedule_breaks_the_bound_or_loses_a_permit(
        batch in 1usize..5,
        max_staleness in 0usize..4,
        by_arrival: bool,
        drops in 2u64..9,
        script in prop::collection::vec((0u8..11, any::<usize>()), 0..300),
    ) {
        let order = if by_arrival { Order::Arrival } else { Order::Ticket };
        let mut play = Play::new(options(batch, max_staleness, order), drops);
        script.into_iter().for_each(|step| play.act(step));
        play.ends_well();
    }
}
