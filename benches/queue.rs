//! How many items a second pass from one thread to another: permit, push, take, advance.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollforge::{rollout::Order, run::bench::pass};

const BATCH: usize = 64;
const BATCHES: usize = 200;

fn queue_throughput(criterion: &mut Criterion) {
    for (name, order) in [("ticket", Order::Ticket), ("arrival", Order::Arrival)] {
        let mut group = criterion.benchmark_group("queue");
        group.throughput(Throughput::Elements((BATCHES * BATCH) as u64)).sample_size(20);
        group.bench_function(format!("{name}_b{BATCH}_staleness1 items_per_s"), |bencher| {
            bencher.iter(|| pass(BATCH, order, BATCHES).expect("both sides stay until the end"));
        });
    }
}

criterion_group!(benches, queue_throughput);
criterion_main!(benches);
