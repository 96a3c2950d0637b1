//! Which prompts were issued and which were trained on: none is lost, none comes twice.

use std::collections::BTreeSet;

use super::Breach;
use crate::{
    rollout::{Order, QueueOptions, QueueSnapshot, Ticket},
    run::generator::Answered,
};

/// Keeps account of tickets. A resumed run needs no more for it than the queue's own snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::run) struct Ledger {
    /// One beyond the newest ticket that was taken.
    next: u64,
    /// Tickets below it that were not taken.
    open: BTreeSet<u64>,
    /// So many may be open at the end of an iteration: in ticket order none, otherwise those due in later iterations.
    may_be_open: usize,
    /// Permits that the queue had dropped before.
    dropped: u64,
}

impl Ledger {
    /// Opens the account of a queue: what is neither with the engine nor waiting to be taken is settled.
    pub(in crate::run) fn new<T>(options: &QueueOptions, queued: &QueueSnapshot<T>) -> Self {
        let answered = queued.answered.iter().map(|(ticket, _)| ticket);
        let mut open: BTreeSet<u64> = queued.out.iter().chain(answered).map(|t| t.0).collect();
        let mut next = queued.next.0;
        while next > 0 && open.remove(&(next - 1)) {
            next -= 1;
        }
        let may_be_open = match options.order {
            Order::Ticket => 0,
            Order::Arrival => options.max_staleness * options.batch,
        };
        Self { next, open, may_be_open, dropped: queued.dropped }
    }

    /// Settles a batch's tickets. `dropped` is how many the queue has ever skipped, for want of an answer.
    pub(super) fn take(
        &mut self,
        tickets: impl Iterator<Item = Ticket>,
        dropped: u64,
    ) -> Result<(), Breach> {
        for Ticket(ticket) in tickets {
            if ticket >= self.next {
                self.open.extend(self.next..ticket);
                self.next = ticket + 1;
            } else {
                Breach::unless(self.open.remove(&ticket), || {
                    (format!("prompt {ticket}"), "trained on once".into(), "it a second time")
                })?;
            }
        }
        let dropped = dropped.saturating_sub(self.dropped);
        let most = self.may_be_open + dropped as usize;
        Breach::unless(self.open.len() <= most, || {
            let oldest: Vec<String> = self.open.iter().take(3).map(u64::to_string).collect();
            let what =
                format!("the prompts older than {} that were never trained on", self.next - 1);
            let rule = format!("{most} at most ({dropped} were dropped)");
            (what, rule, format!("{}, from {}", self.open.len(), oldest.join(", ")))
        })
    }
}

/// Checks that all samples of a prompt are there, each once.
pub(super) fn check_samples(answered: &Answered, wanted: usize) -> Result<(), Breach> {
    let Answered { ticket, rollouts, .. } = answered;
    let right = rollouts
        .iter()
        .zip(0..)
        .all(|(rollout, sample)| rollout.sample == sample && rollout.prompt.id.0 == ticket.0);
    Breach::unless(right && rollouts.len() == wanted, || {
        let got: Vec<String> = rollouts
            .iter()
            .map(|rollout| format!("{}/{}", rollout.prompt.id.0, rollout.sample))
            .collect();
        let rule = format!("its {wanted}, each once");
        (format!("the samples of prompt {ticket}"), rule, got.join(", "))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rollout::{Prompt, PromptId, Rollout, StopReason, VersionSpan, WeightVersion};

    /// Returns an answer of two tokens a sample.
    pub(in crate::run::invariants) fn answered(
        ticket: u64,
        prompt: usize,
        samples: u32,
    ) -> Answered {
        let rollouts = (0..samples).map(|sample| Rollout {
            prompt: Prompt { id: PromptId(ticket), tokens: vec![7, 8].into() },
            sample,
            completion: vec![9, 10],
            rollout_logprobs: vec![-1.0, -2.0],
            raw_logprobs: None,
            stop: StopReason::Length,
            versions: vec![VersionSpan { version: WeightVersion(0), tokens: 2 }],
        });
        Answered { ticket: Ticket(ticket), prompt, rollouts: rollouts.collect() }
    }

    fn ledger(order: Order, first: u64) -> Ledger {
        let next = Ticket(first);
        restored(order, &QueueSnapshot::<()> { next, ..QueueSnapshot::default() })
    }

    fn restored(order: Order, queued: &QueueSnapshot<()>) -> Ledger {
        let deadline = std::time::Duration::from_secs(1);
        Ledger::new(&QueueOptions { batch: 2, max_staleness: 1, order, deadline }, queued)
    }

    fn take(ledger: &mut Ledger, tickets: &[u64], dropped: u64) -> Result<(), String> {
        let taken = ledger.take(tickets.iter().map(|&ticket| Ticket(ticket)), dropped);
        taken.map_err(|breach| breach.to_string())
    }

    #[test]
    fn in_ticket_order_every_prompt_comes_in_its_turn() {
        let mut ledger = ledger(Order::Ticket, 4);
        take(&mut ledger, &[4, 5], 0).unwrap();
        let said = take(&mut ledger.clone(), &[6, 5], 0).unwrap_err();
        assert_eq!(said, "prompt 5 must be trained on once, got it a second time");
        let said = take(&mut ledger.clone(), &[3, 6], 0).unwrap_err();
        assert!(said.starts_with("prompt 3 must be trained on once"), "{said}");
        let said = take(&mut ledger.clone(), &[7, 8], 0).unwrap_err();
        assert_eq!(
            said,
            "the prompts older than 8 that were never trained on must be 0 at most (0 were dropped), got 1, from 6"
        );
        take(&mut ledger, &[7, 8], 1).unwrap();
        assert!(take(&mut ledger, &[10, 11], 1).is_err(), "only one was dropped");
    }

    #[test]
    fn by_arrival_as_many_may_be_overtaken_as_are_due_later() {
        let mut ledger = ledger(Order::Arrival, 0);
        take(&mut ledger, &[3, 1], 0).unwrap();
        take(&mut ledger, &[0, 5], 0).unwrap();
        assert_eq!(ledger.open, BTreeSet::from([2, 4]));
        assert!(take(&mut ledger.clone(), &[6, 8], 0).is_err(), "2, 4 and 7 are open");
        take(&mut ledger, &[2, 4], 0).unwrap();
        assert!(take(&mut ledger, &[2, 6], 0).is_err());
    }

    #[test]
    fn a_resumed_run_owes_what_its_queue_held() {
        let held = QueueSnapshot {
            next: Ticket(9),
            out: vec![Ticket(4), Ticket(8)],
            answered: vec![(Ticket(6), ())],
            ..QueueSnapshot::default()
        };
        let mut ledger = restored(Order::Arrival, &held);
        assert_eq!((ledger.next, &ledger.open), (8, &BTreeSet::from([4, 6])));
        let said = take(&mut ledger.clone(), &[7], 0).unwrap_err();
        assert_eq!(said, "prompt 7 must be trained on once, got it a second time");
        take(&mut ledger, &[8, 4], 0).unwrap();
        take(&mut ledger, &[9, 6], 0).unwrap();
        assert!(ledger.open.is_empty());
    }

    #[test]
    fn a_sample_that_lacks_or_is_anothers_is_named() {
        check_samples(&answered(3, 0, 2), 2).unwrap();
        let said = check_samples(&answered(3, 0, 2), 3).unwrap_err().to_string();
        assert_eq!(said, "the samples of prompt 3 must be its 3, each once, got 3/0, 3/1");
        let mut mixed = answered(3, 0, 2);
        mixed.rollouts[1].prompt.id = PromptId(4);
        assert!(check_samples(&mixed, 2).is_err());
        mixed.rollouts = vec![mixed.rollouts[0].clone(), mixed.rollouts[0].clone()];
        assert!(check_samples(&mixed, 2).is_err());
    }
}
