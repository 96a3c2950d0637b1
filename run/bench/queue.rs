//! How many items a second pass through the rollout queue, from one thread to another.

use std::{hint::black_box, thread, time::Instant};

use anyhow::Result;
use crossbeam::utils::Backoff;

use super::{
    Report, Row, Unit,
    turns::{at_least, repeated},
};
use crate::rollout::{Order, QueueError, QueueOptions, WeightVersion, queue as open};

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueBench {
    /// How many items the trainer takes at once, for each measurement.
    pub batches: Vec<usize>,
    /// Items that pass in each measurement; a whole number of batches does.
    pub items: usize,
    /// How often each thing is measured, after a first time that does not count.
    pub repeats: usize,
}

/// Measures; `progress` hears what comes next.
///
/// # Errors
/// One line: what cannot be used.
pub fn queue(options: &QueueBench, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    let QueueBench { ref batches, items, repeats } = *options;
    at_least("--batch", 1, batches.iter().copied())?;
    at_least("--items", batches.iter().copied().max().unwrap_or(1), [items])?;
    at_least("--repeats", 1, [repeats])?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut report = Report::begin("queue", cores.min(2), progress)?;
    report.set("items", items);
    report.set("staleness", 1);
    for (name, order) in [("ticket", Order::Ticket), ("arrival", Order::Arrival)] {
        for &batch in batches {
            progress(&format!("order {name}, batch {batch}"));
            let rates = repeated(repeats, || {
                let start = Instant::now();
                let passed = pass(batch, order, items / batch)?;
                Ok(passed as f64 / start.elapsed().as_secs_f64())
            })?;
            let stem = format!("queue_{name}_b{batch}");
            report.rows.push(Row::new(&stem, Unit::ItemsPerSecond, rates, None)?);
        }
    }
    Ok(report)
}

/// Moves so many batches from a thread that issues to one that takes, and returns how many items those were: permit, push,
/// take, advance. Where there is no permit, the first spins for a moment before it yields.
///
/// # Errors
/// When one side ends before the other.
pub fn pass(batch: usize, order: Order, batches: usize) -> Result<usize, QueueError> {
    let options = QueueOptions { batch, max_staleness: 1, order, ..QueueOptions::default() };
    let (issuer, mut consumer) = open::<u64>(options);
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut item, backoff) = (0, Backoff::new());
            while let Ok(permit) = issuer.try_issue() {
                match permit {
                    Some(permit) => {
                        drop(permit.push(item));
                        backoff.reset();
                    }
                    None => backoff.snooze(),
                }
                item += 1;
            }
        });
        let mut items = 0;
        for iteration in 1..=batches {
            items += black_box(consumer.take()?).len();
            consumer.advance(WeightVersion(iteration as u64));
        }
        drop(consumer);
        Ok(items)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_batches_pass() {
        assert_eq!(pass(8, Order::Ticket, 5).unwrap(), 40);
        let few = QueueBench { batches: vec![2, 8], items: 7, repeats: 1 };
        let error = queue(&few, &mut |_| ()).unwrap_err().to_string();
        assert_eq!(error, "--items must be at least 8, got 7");
    }
}
