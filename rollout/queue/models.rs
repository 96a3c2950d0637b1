//! The queue's protocol under loom: every interleaving of a few operations, and every value that a load may see.
//!
//! Each model names what would break it.

use std::sync::Arc;

use loom::{
    future::block_on,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::*;

fn options(batch: usize, max_staleness: usize, order: Order) -> QueueOptions {
    QueueOptions { batch, max_staleness, order, ..QueueOptions::default() }
}

fn issue<T>(issuer: &Issuer<T>) -> Permit<T> {
    issuer.try_issue().unwrap().expect("a permit is free")
}

/// Broken by a load and a store in place of the read-modify-write in `Shared::admit`.
#[test]
fn two_issuers_never_pass_the_limit() {
    loom::model(|| {
        let (issuer, consumer) = queue::<()>(options(1, 0, Order::Ticket));
        let other = issuer.clone();
        let racing = thread::spawn(move || other.try_issue().unwrap().is_some());
        let mine = issuer.try_issue().unwrap();
        assert_ne!(mine.is_some(), racing.join().unwrap(), "one permit for two");
        drop(consumer);
    });
}

/// Broken by a bell rung before the slot is filled, by a look before `listen` alone, by either fence of the bell taken away, and
/// by a stamp of a slot that is not Release.
#[test]
fn a_push_wakes_the_trainer_and_brings_what_was_made() {
    loom::model(|| {
        let (issuer, mut consumer) = queue(options(1, 0, Order::Ticket));
        let made = Arc::new(AtomicU64::new(0));
        let theirs = made.clone();
        let producer = thread::spawn(move || {
            let permit = issue(&issuer);
            theirs.store(7, Ordering::Relaxed);
            permit.push(1).unwrap();
            issuer
        });
        assert_eq!(consumer.take().unwrap(), [1]);
        assert_eq!(made.load(Ordering::Relaxed), 7);
        producer.join().unwrap();
    });
}

/// Broken by Relaxed in `Producers::drop` or in the load of `Consumer::wait_for`, and by looking at the slots before the flag.
#[test]
fn who_sees_no_producer_sees_every_slot() {
    loom::model(|| {
        let (issuer, mut consumer) = queue(options(2, 0, Order::Ticket));
        let (first, second) = (issue(&issuer), issue(&issuer));
        drop(issuer);
        let other = thread::spawn(move || first.push(1).unwrap());
        let another = thread::spawn(move || second.push(2).unwrap());
        assert_eq!(consumer.take().unwrap(), [1, 2], "not: the engine's side is gone");
        other.join().unwrap();
        another.join().unwrap();
    });
}

/// Broken by a `Producers::drop` that does not ring: the trainer would sleep until its deadline.
#[test]
fn the_last_producer_wakes_the_trainer() {
    loom::model(|| {
        let (issuer, mut consumer) = queue::<()>(options(1, 0, Order::Ticket));
        let producer = thread::spawn(move || drop(issuer));
        assert!(matches!(consumer.take(), Err(QueueError::EngineGone { .. })));
        producer.join().unwrap();
    });
}

/// Broken by looking before listening in `Issuer::admitted`, and by `notify_waiters` before the limit is raised.
///
/// Not by Relaxed at either side of `limit`: of two accesses to the same word loom lets no later one come first, and so
/// finds the refit ordered by `next` too (`Consumer::close`). The model of a dropped permit needs `limit` itself.
#[test]
fn a_waiting_issuer_wakes_and_sees_the_refit() {
    loom::model(|| {
        let (issuer, mut consumer) = queue(options(1, 0, Order::Ticket));
        issue(&issuer).push(0).unwrap();
        let weights = Arc::new(AtomicU64::new(0));
        let theirs = weights.clone();
        let waiting = thread::spawn(move || {
            let permit = block_on(issuer.admitted()).unwrap();
            assert_eq!(theirs.load(Ordering::Relaxed), 1, "issued after the refit");
            permit.push(1).unwrap();
        });
        assert_eq!(consumer.take().unwrap(), [0]);
        weights.store(1, Ordering::Relaxed);
        consumer.advance(WeightVersion(1));
        assert_eq!(consumer.take().unwrap(), [1]);
        waiting.join().unwrap();
    });
}

/// Broken by Relaxed at either side of `limit`: the slot looks taken.
#[test]
fn a_dropped_permit_comes_back_with_its_slot() {
    loom::model(|| {
        let (issuer, mut consumer) = queue(options(1, 0, Order::Ticket));
        let failed = issue(&issuer);
        let producer = thread::spawn(move || {
            drop(failed);
            block_on(issuer.admitted()).unwrap().push(1).unwrap();
        });
        assert_eq!(consumer.take().unwrap(), [1]);
        assert_eq!(consumer.state().out, 0);
        producer.join().unwrap();
    });
}

/// Broken by a plain load of `next` in `Consumer::close`, by its Relaxed, and by Relaxed in `Shared::admit`.
#[test]
fn what_advance_did_not_count_is_issued_after_the_refit() {
    loom::model(|| {
        let (issuer, mut consumer) = queue(options(1, 1, Order::Arrival));
        issue(&issuer).push(0).unwrap();
        let weights = Arc::new(AtomicU64::new(0));
        let (theirs, other) = (weights.clone(), issuer.clone());
        let racing = thread::spawn(move || {
            let permit = issue(&other);
            (permit, theirs.load(Ordering::Relaxed))
        });
        assert_eq!(consumer.take().unwrap(), [0]);
        weights.store(1, Ordering::Relaxed);
        consumer.advance(WeightVersion(1));

        // The slow one is overtaken if it counts as issued after the refit. Then it must have seen the new weights.
        let (slow, seen) = racing.join().unwrap();
        issue(&issuer).push(1).unwrap();
        let overtaken = consumer.try_take().is_some();
        assert!(!overtaken || seen == 1, "it would be consumed two refits late");
        drop(slow);
    });
}

/// Broken by a drop of the consumer that does not notify, or notifies before it raises its flag.
#[test]
fn a_waiting_issuer_hears_that_the_trainer_is_gone() {
    loom::model(|| {
        let (issuer, consumer) = queue(options(1, 0, Order::Ticket));
        let permit = issue(&issuer);
        let waiting = thread::spawn(move || block_on(issuer.admitted()).is_err());
        drop(consumer);
        assert!(waiting.join().unwrap());
        assert!(permit.push(()).is_err());
    });
}

/// Broken by comparing with what was issued, and by reading the limit before the slots are emptied or before it is raised.
#[test]
fn nothing_is_out_once_the_queue_has_settled() {
    loom::model(|| {
        let (issuer, mut consumer) = queue(options(1, 1, Order::Ticket));
        let producer = thread::spawn(move || {
            drop(issue(&issuer));
            issue(&issuer).push(1).unwrap();
            block_on(issuer.admitted()).unwrap().push(2).unwrap();
            assert!(issuer.try_issue().unwrap().is_none(), "no more is let in");
            issuer
        });
        consumer.settle().unwrap();
        let state = consumer.state();
        assert_eq!((state.out, state.may_issue, state.dropped), (0, 0, 1));
        producer.join().unwrap();
    });
}

/// Broken by a look at `again` that is not the taking of it.
#[test]
fn a_restored_ticket_is_issued_to_one_issuer() {
    loom::model(|| {
        let snapshot =
            QueueSnapshot { next: Ticket(1), out: vec![Ticket(0)], ..QueueSnapshot::default() };
        let (issuer, _consumer) = restore::<()>(options(2, 0, Order::Ticket), snapshot).unwrap();
        let other = issuer.clone();
        let racing = thread::spawn(move || issue(&other).ticket());
        let mine = issue(&issuer).ticket();
        assert_ne!(mine, racing.join().unwrap());
        assert!(issuer.try_issue().unwrap().is_none());
    });
}
