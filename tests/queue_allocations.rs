//! The queue moves items without asking for memory: what a batch needs is asked for once.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rollforge::rollout::{Order, QueueOptions, WeightVersion, queue};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the memory came from the system's allocator, by `alloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns how often memory was asked for while so many batches crossed from one thread to another.
fn allocations(order: Order, batch: usize, batches: u64) -> usize {
    let options = QueueOptions { batch, max_staleness: 1, order, ..QueueOptions::default() };
    let (issuer, mut consumer) = queue(options);
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(permit) = issuer.try_issue() {
                let Some(permit) = permit else {
                    thread::yield_now();
                    continue;
                };
                // The trainer may leave between permit and push.
                drop(permit.push([0u64; 2]));
            }
        });
        let mut begin = 0;
        for iteration in 1..=batches {
            assert_eq!(consumer.take().unwrap().len(), batch);
            consumer.advance(WeightVersion(iteration));
            if iteration == batches / 2 {
                begin = ALLOCATIONS.load(Ordering::Relaxed);
            }
        }
        let asked = ALLOCATIONS.load(Ordering::Relaxed) - begin;
        drop(consumer);
        asked
    })
}

#[test]
fn no_item_asks_for_memory() {
    let (batch, batches) = (256, 200);
    for order in [Order::Ticket, Order::Arrival] {
        let asked = allocations(order, batch, batches);
        // Half of the batches are counted: the first ones make room.
        assert!(asked <= batches as usize, "{order:?}: {asked} times in {} batches", batches / 2);
    }
}
