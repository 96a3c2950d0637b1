//! The queue between two iterations: settled, closed, put into a snapshot.

use super::*;

#[test]
fn a_queue_settles_when_all_that_was_let_in_is_back() {
    let (issuer, mut consumer) = queue(options(1, 1, Order::Ticket));
    issue(&issuer).push("a").unwrap();
    assert_eq!(consumer.take().unwrap(), ["a"]);
    let message = consumer.settle().unwrap_err().to_string();
    assert!(
        message.ends_with(
            "refit: 0 permits out, 1 more could be issued, 0 waiting for the trainer at version 0"
        ),
        "{message}"
    );
    let slow = issue(&issuer);
    let message = consumer.settle().unwrap_err().to_string();
    assert!(message.contains(" s for all that was let in"), "{message}");
    assert!(message.contains("ticket 1 is with the engine, 1 permits out, 0 more"), "{message}");
    slow.push("b").unwrap();
    consumer.settle().unwrap();
    consumer.advance(WeightVersion(1));
    assert_eq!(consumer.take().unwrap(), ["b"], "settling takes nothing");
}

#[test]
fn a_dropped_permit_unsettles_the_queue_until_it_is_replaced() {
    let (issuer, mut consumer) = queue(options(1, 1, Order::Arrival));
    issue(&issuer).push("a").unwrap();
    assert_eq!(consumer.take().unwrap(), ["a"]);
    drop(issue(&issuer));
    assert!(matches!(consumer.settle(), Err(QueueError::NotSettled { oldest: None, .. })));
    issue(&issuer).push("b").unwrap();
    consumer.settle().unwrap();
    drop(issuer);
    consumer.settle().unwrap();
}

#[test]
fn nobody_settles_a_queue_whose_engine_is_gone() {
    let (issuer, mut consumer) = queue(options(1, 1, Order::Ticket));
    issue(&issuer).push(()).unwrap();
    consumer.take().unwrap();
    drop(issuer);
    assert!(matches!(consumer.settle(), Err(QueueError::EngineGone { .. })));
}

#[test]
fn a_closed_iteration_lets_nobody_in_until_it_is_opened() {
    let (issuer, mut consumer) = queue(options(1, 0, Order::Ticket));
    issue(&issuer).push(()).unwrap();
    consumer.take().unwrap();
    consumer.close(WeightVersion(1));
    assert!(issuer.try_issue().unwrap().is_none());
    assert_eq!(consumer.snapshot().iteration, 1);
    consumer.open();
    assert!(issuer.try_issue().unwrap().is_some());
}

#[test]
fn a_snapshot_that_no_queue_can_have_left_is_refused_by_field() {
    let good = QueueSnapshot {
        iteration: 2,
        version: WeightVersion(2),
        next: Ticket(6),
        dropped: 0,
        refused: 0,
        ends: vec![Ticket(4)],
        out: vec![Ticket(5)],
        answered: vec![(Ticket(3), ())],
    };
    let options = options(2, 1, Order::Arrival);
    assert!(restore(options, good.clone()).is_ok());
    let said = |change: fn(&mut QueueSnapshot<()>)| {
        let mut snapshot = good.clone();
        change(&mut snapshot);
        restore(options, snapshot).err().expect("refused").to_string()
    };
    for (change, expected) in [
        (
            (|s| s.next = Ticket(7)) as fn(&mut QueueSnapshot<()>),
            "next must be 6: 2 batches of 2, 0 dropped, 0 refused, 1 out and 1 answered, got 7",
        ),
        (
            |s| s.iteration = u64::MAX,
            "next must be 36893488147419103232: 18446744073709551615 batches of 2, 0 dropped, 0 refused, 1 out and 1 answered, got 6",
        ),
        (
            |s| s.version = WeightVersion(u64::MAX),
            "version must be below 2^62, got 18446744073709551615",
        ),
        (
            |s| s.out[0] = Ticket(3),
            "out and answered must be different tickets below next (6), got 3",
        ),
        (
            |s| s.out[0] = Ticket(6),
            "out and answered must be different tickets below next (6), got 6",
        ),
        (|s| s.ends = vec![Ticket(7)], "ends must be in order, up to next (6), got 7"),
        (
            |s| s.ends = vec![Ticket(2), Ticket(4)],
            "ends must be at most max_staleness (1) tickets, got 2",
        ),
        (
            |s| (s.next, s.dropped) = (Ticket(1 << 40), (1 << 40) - 6),
            "the oldest of out and answered must be within 1048576 tickets of next (1099511627776), got 3",
        ),
        (
            |s| {
                (s.iteration, s.ends, s.next, s.out) =
                    (0, vec![], Ticket(5), (0..5).map(Ticket).filter(|t| t.0 != 3).collect())
            },
            "out and answered must be at most 4 below ticket 5, got 5",
        ),
        (
            |s| {
                (s.iteration, s.next, s.out, s.ends) =
                    (1, Ticket(5), vec![Ticket(1), Ticket(2)], vec![Ticket(4)])
            },
            "out and answered must be at most 2 below ticket 4, got 3",
        ),
    ] {
        assert_eq!(said(change), format!("queue snapshot: {expected}"));
    }
}
