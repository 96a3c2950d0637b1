//! What wakes the consumer: a bell that is rung only where somebody may sleep.

use std::sync::atomic::Ordering;

use super::sync::{AtomicBool, Parker, Unparker, fence};

/// The producers' end. To ring it costs a look at a word that nobody writes while the consumer is awake.
pub(super) struct Bell {
    listening: AtomicBool,
    unparker: Unparker,
}

impl Bell {
    /// Returns the bell, and what sleeps until it is rung: once is remembered.
    pub(super) fn new() -> (Self, Parker) {
        let parker = Parker::new();
        (Self { listening: AtomicBool::new(false), unparker: parker.unparker().clone() }, parker)
    }

    /// Wakes the consumer, who then finds what was done before.
    pub(super) fn ring(&self) {
        // Pairs with the fence in `listen`: either we see that the consumer is about to sleep, or it sees what we did.
        fence(Ordering::SeqCst);
        // Relaxed: the fence orders it, and nothing is published through it.
        if self.listening.load(Ordering::Relaxed) {
            self.unparker.unpark();
        }
    }

    /// Says that the consumer is about to sleep. It looks once more before it does: what was done before was not rung for.
    pub(super) fn listen(&self) {
        self.listening.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that the consumer is busy elsewhere.
    pub(super) fn ignore(&self) {
        self.listening.store(false, Ordering::Relaxed);
    }
}
