//! Models for loom. Each promises what its original documents and not more, so that the queue leans on nothing else.

use std::{
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

pub(in super::super) use loom::sync::{
    Arc as CountedArc,
    atomic::{AtomicBool, fence},
};
use loom::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// loom's, with std's newer name of `fetch_update`.
pub(in super::super) struct AtomicU64(loom::sync::atomic::AtomicU64);

impl AtomicU64 {
    pub(in super::super) fn new(value: u64) -> Self {
        Self(loom::sync::atomic::AtomicU64::new(value))
    }

    pub(in super::super) fn try_update(
        &self,
        set: Ordering,
        fetch: Ordering,
        update: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        self.0.fetch_update(set, fetch, update)
    }
}

impl Deref for AtomicU64 {
    type Target = loom::sync::atomic::AtomicU64;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Default for AtomicU64 {
    fn default() -> Self {
        Self::new(0)
    }
}

/// A word's place in memory is nothing to a model.
pub(in super::super) struct Padded<T>(T);

impl<T> Padded<T> {
    pub(in super::super) fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// There is no time in a model, and so no moment to wait.
pub(in super::super) struct Backoff;

impl Backoff {
    pub(in super::super) fn new() -> Self {
        Self
    }

    pub(in super::super) fn is_completed(&self) -> bool {
        true
    }

    pub(in super::super) fn snooze(&self) {}

    pub(in super::super) fn reset(&self) {}
}

/// A ring of slots that promises only what happens-before brings: who has not heard of a push finds the slot empty, who
/// has not heard of a pop finds it full. crossbeam's queue is the same with fences besides.
///
/// A slot's stamp is as in Vyukov's queue: `place` when it is free for that place, `place + 1` when it is filled.
pub(in super::super) struct ArrayQueue<T> {
    slots: Vec<Slot<T>>,
    head: AtomicUsize,
    tail: AtomicUsize,
}

struct Slot<T> {
    stamp: AtomicUsize,
    // std's: who has the place has it alone.
    item: std::sync::Mutex<Option<T>>,
}

impl<T> ArrayQueue<T> {
    pub(in super::super) fn new(capacity: usize) -> Self {
        let slot = |place| Slot { stamp: AtomicUsize::new(place), item: None.into() };
        let slots = (0..capacity).map(slot).collect();
        Self { slots, head: AtomicUsize::new(0), tail: AtomicUsize::new(0) }
    }

    pub(in super::super) fn push(&self, item: T) -> Result<(), T> {
        let Some((place, slot)) = self.claim(&self.tail, |place| place) else { return Err(item) };
        *slot.item.lock().unwrap() = Some(item);
        slot.stamp.store(place + 1, Ordering::Release);
        Ok(())
    }

    pub(in super::super) fn pop(&self) -> Option<T> {
        let (place, slot) = self.claim(&self.head, |place| place + 1)?;
        let item = slot.item.lock().unwrap().take();
        slot.stamp.store(place + self.slots.len(), Ordering::Release);
        item
    }

    /// Moves an end of the queue on, if the slot there has the stamp for it.
    fn claim(&self, end: &AtomicUsize, stamp: fn(usize) -> usize) -> Option<(usize, &Slot<T>)> {
        loop {
            let place = latest(end);
            let slot = &self.slots[place % self.slots.len()];
            let ready = slot.stamp.load(Ordering::Acquire) == stamp(place);
            if ready && end.compare_exchange(place, place + 1, RELAXED, RELAXED).is_ok() {
                return Some((place, slot));
            }
            if !ready && latest(end) == place {
                return None;
            }
        }
    }

    pub(in super::super) fn len(&self) -> usize {
        // The head first: it never passes the tail.
        let head = latest(&self.head);
        latest(&self.tail) - head
    }
}

/// A place is nobody's word on what else happened.
const RELAXED: Ordering = Ordering::Relaxed;

/// Reads by writing, which sees no old value.
fn latest(end: &AtomicUsize) -> usize {
    end.fetch_add(0, RELAXED)
}

/// Sleeps until a token is left. There is no time in a model: a deadline never comes, so who is never woken is found out.
pub(in super::super) struct Parker(Unparker);

/// Leaves the token.
#[derive(Clone)]
pub(in super::super) struct Unparker(Arc<loom::sync::Notify>);

impl Parker {
    pub(in super::super) fn new() -> Self {
        Self(Unparker(Arc::new(loom::sync::Notify::new())))
    }

    pub(in super::super) fn unparker(&self) -> &Unparker {
        &self.0
    }

    pub(in super::super) fn park_timeout(&self, _never: Duration) {
        self.0.0.wait();
    }
}

impl Unparker {
    pub(in super::super) fn unpark(&self) {
        self.0.notify();
    }
}

/// Wakes those who listened before the call.
pub(in super::super) struct Notify(Mutex<Listeners>);

#[derive(Default)]
struct Listeners {
    calls: u64,
    wakers: Vec<Waker>,
}

/// Listens from its creation on.
pub(in super::super) struct Notified<'a> {
    notify: &'a Notify,
    calls: u64,
}

impl Notify {
    pub(in super::super) fn new() -> Self {
        Self(Mutex::new(Listeners::default()))
    }

    pub(in super::super) fn notified(&self) -> Notified<'_> {
        Notified { notify: self, calls: self.0.lock().unwrap().calls }
    }

    pub(in super::super) fn notify_waiters(&self) {
        let mut listeners = self.0.lock().unwrap();
        listeners.calls += 1;
        let wakers = std::mem::take(&mut listeners.wakers);
        drop(listeners);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Notified<'_> {
    pub(in super::super) fn enable(self: Pin<&mut Self>) -> bool {
        self.notify.0.lock().unwrap().calls != self.calls
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut listeners = self.notify.0.lock().unwrap();
        if listeners.calls != self.calls {
            return Poll::Ready(());
        }
        listeners.wakers.push(context.waker().clone());
        Poll::Pending
    }
}
