//! Decides what each engine step computes. Pure: reads no clock, owns no device, draws no numbers; the same calls
//! always give the same plans.
//!
//! - *Continuous batching.* Sequences join the running batch in the order they were submitted, as soon as there is a
//!   place and KV room for all their tokens, and leave it when they end.
//! - *Decode before prefill.* Every sequence that waits for its next token gets it in every step; what the token budget
//!   has left goes to prompts, in chunks, oldest first.
//! - *Shared prompts.* The samples of one request share the full KV blocks of their prompt. The first computes it; the
//!   others hold their place meanwhile and then compute its last token once more, which gives each its own first draw.
//!   The last, partly filled block is copied, since every sample writes to it in its next step.
//! - *Preemption.* KV room is not reserved for tokens that may never come. When it runs out, the sequence admitted last
//!   gives back its blocks and waits, first in line, to be computed again from its tokens. The oldest is never
//!   preempted, and no request is taken in that would not fit alone: so every request ends.

use std::collections::VecDeque;

use super::{BlockId, LogitsWanted, kv_cache::BlockPool, sequence::Sequence};
use crate::engine::RequestId;

/// What one engine step may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most sequences in the running batch.
    pub(super) max_batch: usize,
    /// Most tokens in one step; at least `max_batch`.
    pub(super) max_tokens: usize,
    /// Most rows of logits in one step; at least `max_batch`.
    pub(super) max_rows: usize,
}

/// One sequence's part in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its place in the running batch.
    pub(super) index: usize,
    /// The position of the first token to compute.
    pub(super) start: usize,
    /// How many tokens to compute.
    pub(super) count: usize,
    /// Which logits to return.
    pub(super) logits: LogitsWanted,
}

/// What the next engine step computes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Blocks to copy first, in this order: from, to.
    pub(super) copies: Vec<(BlockId, BlockId)>,
    /// What to compute, in this order.
    pub(super) parts: Vec<Part>,
}

/// The sequences of an engine, and the KV blocks they hold.
#[derive(Debug)]
pub(super) struct Scheduler {
    limits: Limits,
    pool: BlockPool,
    /// In order of submission, but for preempted sequences, which come first.
    waiting: VecDeque<Sequence>,
    /// In order of admission.
    running: Vec<Sequence>,
    hold: bool,
    /// Copies that the next plan must make.
    copies: Vec<(BlockId, BlockId)>,
}

/// What is left of a step while it is planned.
struct Budget {
    tokens: usize,
    rows: usize,
}

impl Scheduler {
    /// Makes a scheduler without sequences.
    pub(super) fn new(limits: Limits, pool: BlockPool) -> Self {
        let (waiting, running) = (VecDeque::new(), Vec::new());
        Self { limits, pool, waiting, running, hold: false, copies: Vec::new() }
    }

    /// Takes in a sequence that fits the pool alone.
    pub(super) fn push(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// Returns the pool.
    pub(super) fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Returns how many sequences wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the running batch.
    pub(super) fn running(&self) -> &[Sequence] {
        &self.running
    }

    /// Returns a sequence of the running batch by its place.
    pub(super) fn sequence_mut(&mut self, index: usize) -> &mut Sequence {
        &mut self.running[index]
    }

    /// Holds back, or lets in, sequences that have not started.
    pub(super) fn hold_admission(&mut self, hold: bool) {
        self.hold = hold;
    }

    /// Says whether nothing has started that has not ended.
    pub(super) fn is_drained(&self) -> bool {
        self.running.is_empty() && self.waiting.front().is_none_or(|first| !first.started)
    }

    /// Decides the next step. Empty when nothing can be computed.
    pub(super) fn plan(&mut self) -> Plan {
        self.admit();
        let mut budget = Budget { tokens: self.limits.max_tokens, rows: self.limits.max_rows };
        let mut parts = Vec::new();
        let mut index = 0;
        while index < self.running.len() {
            let sequence = &self.running[index];
            if sequence.is_ready() && sequence.remaining() == 1 && self.make_room(index) {
                parts.push(self.part(index, &mut budget));
            }
            index += 1;
        }
        for index in 0..self.running.len() {
            let sequence = &self.running[index];
            if sequence.is_ready() && sequence.remaining() > 1 {
                parts.push(self.part(index, &mut budget));
            }
        }
        parts.retain(|part| part.count > 0);
        Plan { copies: std::mem::take(&mut self.copies), parts }
    }

    /// Notes that a plan has been computed, and lets samples that waited for their prompt have it.
    pub(super) fn advance(&mut self, plan: &Plan) {
        for part in &plan.parts {
            self.running[part.index].computed += part.count;
        }
        for index in 0..self.running.len() {
            self.fork_if_possible(index);
        }
    }

    /// Forgets the sequences of the running batch for which `ended` is true.
    pub(super) fn remove_running(&mut self, ended: impl Fn(&Sequence) -> bool) {
        let pool = &mut self.pool;
        self.running.retain_mut(|sequence| {
            let stays = !ended(sequence);
            if !stays {
                pool.release(&mut sequence.blocks);
            }
            stays
        });
    }

    /// Forgets every sequence of a request.
    pub(super) fn cancel(&mut self, id: RequestId) {
        self.waiting.retain(|sequence| sequence.id.request != id);
        self.remove_running(|sequence| sequence.id.request == id);
    }

    /// Forgets every sequence.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.remove_running(|_| true);
    }

    /// Sends the whole running batch back to be computed again, as after a change of weights.
    pub(super) fn preempt_all(&mut self) {
        while !self.running.is_empty() {
            self.preempt_last();
        }
    }

    /// Admits waiting sequences, in their order, while there is a place and room for all tokens they have.
    fn admit(&mut self) {
        while self.running.len() < self.limits.max_batch {
            let Some(first) = self.waiting.front() else { return };
            if self.hold && !first.started {
                return;
            }
            let sibling =
                self.running.iter().position(|other| other.id.request == first.id.request);
            let shared = if sibling.is_some() { self.shared_blocks(first) } else { 0 };
            let needed = self.pool.blocks_for(first.tokens.len()) - shared;
            // A spare block for each running sequence, so that the next steps do not undo this admission.
            if needed + self.running.len() > self.pool.free() {
                return;
            }
            let mut sequence = self.waiting.pop_front().expect("looked at above");
            sequence.blocks = self.pool.take(needed).expect("counted above");
            sequence.started = true;
            sequence.awaits_prompt = sibling.is_some();
            self.running.push(sequence);
            self.fork_if_possible(self.running.len() - 1);
        }
    }

    /// Returns how many full blocks of its prompt a sample can share: those it never writes to.
    fn shared_blocks(&self, sequence: &Sequence) -> usize {
        (sequence.prompt_len() - 1) / self.pool.block_size()
    }

    /// Gives a sample that awaits its prompt the blocks of its oldest sibling, once that has computed them.
    fn fork_if_possible(&mut self, index: usize) {
        let sequence = &self.running[index];
        if !sequence.awaits_prompt {
            return;
        }
        // Siblings are admitted after the one they wait for, so they are preempted before it; and it cannot end before
        // its prompt is computed, when `advance` comes by here. So there always is one.
        let sibling = self.running[..index]
            .iter()
            .find(|other| other.id.request == sequence.id.request)
            .expect("a sample that awaits its prompt has an older sibling");
        let prompt_len = sequence.prompt_len();
        if sibling.computed < prompt_len {
            return;
        }
        let shared = self.shared_blocks(sequence);
        let last = sibling.blocks[shared];
        let mut blocks = sibling.blocks[..shared].to_vec();
        self.pool.share(&blocks);
        if !(prompt_len - 1).is_multiple_of(self.pool.block_size()) {
            self.copies.push((last, sequence.blocks[0]));
        }
        let sequence = &mut self.running[index];
        blocks.append(&mut sequence.blocks);
        sequence.blocks = blocks;
        sequence.computed = prompt_len - 1;
        sequence.awaits_prompt = false;
    }

    /// Makes room for a sequence's last token by preempting from the end; `false` if that preempted the sequence itself.
    fn make_room(&mut self, index: usize) -> bool {
        let sequence = &self.running[index];
        let needed = self.pool.blocks_for(sequence.tokens.len()) - sequence.blocks.len();
        while self.pool.free() < needed {
            self.preempt_last();
            if index == self.running.len() {
                return false;
            }
        }
        let more = self.pool.take(needed).expect("made free above");
        self.running[index].blocks.extend(more);
        true
    }

    fn preempt_last(&mut self) {
        let mut sequence = self.running.pop().expect("a sequence asked for room");
        self.pool.release(&mut sequence.blocks);
        sequence.computed = 0;
        sequence.awaits_prompt = false;
        if let Some(logprobs) = &mut sequence.prompt_logprobs {
            logprobs.clear();
        }
        self.waiting.push_front(sequence);
    }

    /// Cuts as much of a sequence as the budget allows.
    fn part(&self, index: usize, budget: &mut Budget) -> Part {
        let sequence = &self.running[index];
        let (start, remaining) = (sequence.computed, sequence.remaining());
        // Rows of logits for the whole prompt are many: they cut the chunk too. Only its own row follows the prompt.
        let wants_all = sequence.prompt_logprobs.is_some() && start < sequence.prompt_len();
        let most = if wants_all { budget.rows } else { usize::MAX };
        let count = remaining.min(budget.tokens).min(most);
        let (logits, rows) = match (wants_all, count == remaining) {
            (true, _) => (LogitsWanted::All, count),
            (false, true) => (LogitsWanted::Last, 1),
            (false, false) => (LogitsWanted::None, 0),
        };
        if rows > budget.rows {
            return Part { index, start, count: 0, logits };
        }
        budget.tokens -= count;
        budget.rows -= rows;
        Part { index, start, count, logits }
    }
}
