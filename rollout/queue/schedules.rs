//! Random schedules on real threads: what is taken is never too stale, never doubled, and nothing is left behind.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::Duration,
};

use proptest::prelude::*;

use super::*;

/// A ticket and the weights that were served when it was issued.
type Item = (Ticket, WeightVersion);

/// What one producer does with each permit in turn, over and over.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Push,
    Drop,
    /// Keeps it until there are no more permits.
    Hold,
    Yield,
}

/// What one producer did.
#[derive(Default)]
struct Done {
    pushed: Vec<Item>,
    dropped: Vec<Ticket>,
}

#[derive(Debug)]
struct Schedule {
    options: QueueOptions,
    producers: Vec<Vec<Act>>,
    /// Which iterations end in a refit.
    refits: Vec<bool>,
}

fn produce(issuer: &Issuer<Item>, served: &AtomicU64, acts: &[Act]) -> Done {
    let (mut done, mut held) = (Done::default(), Vec::new());
    for act in acts.iter().cycle() {
        let Ok(issued) = issuer.try_issue() else { break };
        // Relaxed: that the limit is raised after the refit is what is to be shown.
        let version = WeightVersion(served.load(Ordering::Relaxed));
        match (issued, act) {
            (Some(permit), Act::Push) => push(permit, version, &mut done),
            (Some(permit), Act::Drop) => done.dropped.push(permit.ticket()),
            (Some(permit), Act::Hold) => held.push((permit, version)),
            (Some(permit), Act::Yield) => {
                thread::yield_now();
                push(permit, version, &mut done);
            }
            (None, _) => match held.pop() {
                Some((permit, version)) => push(permit, version, &mut done),
                None => thread::yield_now(),
            },
        }
    }
    done.dropped.extend(held.iter().map(|(permit, _)| permit.ticket()));
    done
}

fn push(permit: Permit<Item>, version: WeightVersion, done: &mut Done) {
    let item = (permit.ticket(), version);
    // Where the trainer is gone already, it is as good as dropped.
    match permit.push(item) {
        Ok(()) => done.pushed.push(item),
        Err(_) => done.dropped.push(item.0),
    }
}

/// Plays the trainer, and returns what it took and the version it ended at.
fn consume(
    mut consumer: Consumer<Item>,
    served: &AtomicU64,
    schedule: &Schedule,
) -> (Vec<Item>, u64) {
    let mut taken = Vec::new();
    for refit in &schedule.refits {
        let now = consumer.version();
        for (ticket, version) in consumer.take().unwrap() {
            let lag = version.staleness(now);
            assert!(lag <= schedule.options.max_staleness as u64, "{ticket} is {lag} late");
            taken.push((ticket, version));
        }
        let next = if *refit { now.next() } else { now };
        served.store(next.0, Ordering::Relaxed);
        consumer.advance(next);
    }
    (taken, consumer.version().0)
}

fn play(schedule: &Schedule) {
    let (issuer, consumer) = queue::<Item>(schedule.options);
    let served = Arc::new(AtomicU64::new(0));
    let ((taken, version), done) = thread::scope(|scope| {
        let producers: Vec<_> = schedule
            .producers
            .iter()
            .map(|acts| {
                let (issuer, served) = (issuer.clone(), served.clone());
                scope.spawn(move || produce(&issuer, &served, acts))
            })
            .collect();
        let trained = consume(consumer, &served, schedule);
        let done = producers.into_iter().map(|producer| producer.join().unwrap());
        (trained, done.collect::<Vec<Done>>())
    });
    check_ledger(&taken, WeightVersion(version), &done, schedule.options);
}

fn check_ledger(taken: &[Item], version: WeightVersion, done: &[Done], options: QueueOptions) {
    let pushed: BTreeMap<Ticket, WeightVersion> =
        done.iter().flat_map(|done| done.pushed.iter().copied()).collect();
    let dropped = done.iter().flat_map(|done| done.dropped.iter().copied());
    let mut issued: Vec<Ticket> = pushed.keys().copied().chain(dropped).collect();
    issued.sort_unstable();
    assert!((0..).map(Ticket).zip(&issued).all(|(want, &got)| want == got), "each ticket once");

    let mut unique: BTreeMap<Ticket, WeightVersion> = BTreeMap::new();
    for &(ticket, issued) in taken {
        assert_eq!(pushed.get(&ticket), Some(&issued), "{ticket} arrives as it was pushed");
        assert!(unique.insert(ticket, issued).is_none(), "{ticket} is taken twice");
    }
    let last = unique.keys().next_back();
    for (ticket, issued) in pushed.iter().filter(|(ticket, _)| !unique.contains_key(ticket)) {
        let late = issued.staleness(version) > options.max_staleness as u64;
        assert!(!late, "{ticket} was left behind");
        assert!(options.order == Order::Arrival || Some(ticket) > last, "{ticket} was passed over");
    }
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let act = prop_oneof![
        4 => Just(Act::Push), 1 => Just(Act::Drop), 3 => Just(Act::Hold), 2 => Just(Act::Yield),
    ];
    let producers = prop::collection::vec(prop::collection::vec(act, 1..12), 1..5);
    let refits = prop::collection::vec(prop::bool::weighted(0.8), 1..40);
    (1usize..6, 0usize..4, any::<bool>(), producers, refits).prop_map(
        |(batch, max_staleness, by_arrival, producers, refits)| {
            let order = if by_arrival { Order::Arrival } else { Order::Ticket };
            let deadline = Duration::from_secs(60);
            let options = QueueOptions { batch, max_staleness, order, deadline };
            Schedule { options, producers, refits }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_schedule_of_threads_breaks_the_bound_or_the_ledger(
        schedule in any_schedule().prop_filter("somebody pushes", |schedule| {
            schedule.producers.iter().flatten().any(|act| *act != Act::Drop)
        }),
    ) {
        play(&schedule);
    }
}
