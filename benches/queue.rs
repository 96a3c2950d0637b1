//! How many items a second pass from one thread to another: permit, push, take, advance.

use std::{hint::black_box, thread};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollforge::rollout::{Order, QueueError, QueueOptions, WeightVersion, queue};

const ITERATIONS: u64 = 200;

/// Moves `ITERATIONS` batches across two threads; the engine's side spins for permits, so only the queue is timed.
fn pass(options: QueueOptions) -> Result<u64, QueueError> {
    let (issuer, mut consumer) = queue::<Box<[u32]>>(options);
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(permit) = issuer.try_issue() {
                match permit {
                    Some(permit) => drop(permit.push(Box::default())),
                    None => thread::yield_now(),
                }
            }
        });
        let mut items = 0;
        for iteration in 1..=ITERATIONS {
            items += black_box(consumer.take()?).len() as u64;
            consumer.advance(WeightVersion(iteration));
        }
        drop(consumer);
        Ok(items)
    })
}

fn queue_throughput(criterion: &mut Criterion) {
    for (name, order) in [("ticket", Order::Ticket), ("arrival", Order::Arrival)] {
        let options =
            QueueOptions { batch: 64, max_staleness: 1, order, ..QueueOptions::default() };
        let mut group = criterion.benchmark_group("queue");
        group.throughput(Throughput::Elements(ITERATIONS * options.batch as u64)).sample_size(20);
        group.bench_function(format!("{name}_b64_staleness1 items_per_s"), |bencher| {
            bencher.iter(|| pass(options).expect("both sides stay until the end"));
        });
    }
}

criterion_group!(benches, queue_throughput);
criterion_main!(benches);
