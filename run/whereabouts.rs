//! Where everybody was when somebody waited in vain.

use crate::{engine::Stats, rollout::QueueState};

/// Describes the queue and the scheduler, as far as they are there, as the end of a sentence.
pub(super) fn describe(queue: Option<&QueueState>, engine: Option<&Stats>) -> String {
    let queue = queue.map(|queue| {
        format!(
            "; queue: {} prompts with the engine, {} answers waiting for the trainer, {} more could be issued, {} were",
            queue.out, queue.queued, queue.may_issue, queue.issued
        )
    });
    let engine = engine.map(|engine| {
        format!(
            "; engine: {} sequences running, {} waiting, {} of {} KV blocks used, {} engine steps done, version {}",
            engine.running,
            engine.waiting,
            engine.kv_blocks_used,
            engine.kv_blocks_total,
            engine.engine_steps,
            engine.version
        )
    });
    [queue, engine].into_iter().flatten().collect()
}
