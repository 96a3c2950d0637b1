//! A run's memory, phase by phase.

use serde::Serialize;

use super::{
    ledger::{Ledger, Part},
    pass::Taken,
};
use crate::trainer::config::Device;

/// What is done at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// What the host holds.
    pub host: Ledger,
    /// What the trainer's GPU holds; empty where the trainer computes on the host.
    pub device: Ledger,
}

/// What a run takes, before it is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// The command: `sft`, `ppo`, ...
    pub stage: &'static str,
    /// The trainer's device, as the configuration names it.
    pub device: String,
    /// Tokens, places in the padded grid, and rows of the head in the largest micro-batch; on the host the most of each.
    pub micro_batch: [u64; 3],
    /// In the order of a run.
    pub phases: Vec<Phase>,
}

impl MemoryPlan {
    /// Returns the largest resident set that the host is expected to see.
    pub fn peak(&self) -> u64 {
        self.phases.iter().map(|phase| phase.host.total()).max().unwrap_or_default()
    }

    /// Returns the bytes that the host must have: the peak without what the system can take back.
    pub fn needed(&self) -> u64 {
        self.phases.iter().map(|phase| phase.host.needed()).max().unwrap_or_default()
    }

    /// Returns the name of the phase that needs the most of the host.
    pub fn widest_phase(&self) -> &'static str {
        // The first of equals.
        let widest = self.phases.iter().rev().max_by_key(|phase| phase.host.needed());
        widest.map_or("", |phase| phase.name)
    }

    /// Returns the bytes that the trainer's GPU must have; 0 where the trainer computes on the host.
    pub fn device_needed(&self) -> u64 {
        self.phases.iter().map(|phase| phase.device.total()).max().unwrap_or_default()
    }

    /// Says whether the trainer computes on a GPU.
    pub fn is_on_gpu(&self) -> bool {
        self.device != "cpu"
    }
}

/// Puts phases together: what stays, and what comes on top.
pub(super) struct Phases {
    /// Whether the trainer's tensors lie on a GPU.
    on_gpu: bool,
    /// What the run holds from here on.
    host: Ledger,
    trainer: Ledger,
    done: Vec<Phase>,
}

impl Phases {
    /// Begins with what the process holds.
    pub(super) fn new(device: Device, process: u64) -> Self {
        let mut host = Ledger::default();
        host.add(Part::Process, process);
        let on_gpu = device != Device::Cpu;
        Self { on_gpu, host, trainer: Ledger::default(), done: Vec::new() }
    }

    /// Keeps bytes on the host for the rest of the run.
    pub(super) fn keep(&mut self, part: Part, bytes: u64) {
        self.host.add(part, bytes);
    }

    /// Keeps bytes on the trainer's device for the rest of the run.
    pub(super) fn keep_in_trainer(&mut self, part: Part, bytes: u64) {
        self.trainer.add(part, bytes);
    }

    /// Adds a phase, with what the trainer holds only now.
    pub(super) fn add(&mut self, name: &'static str, now: &[(Part, u64)]) {
        let (mut host, mut device) = (self.host.clone(), Ledger::default());
        let trainer = if self.on_gpu { &mut device } else { &mut host };
        trainer.add_all(&self.trainer);
        now.iter().for_each(|&(part, bytes)| trainer.add(part, bytes));
        self.done.push(Phase { name, host, device });
    }

    /// Adds a phase in which passes are made.
    pub(super) fn add_pass(&mut self, name: &'static str, taken: Taken) {
        self.add_pass_beside(name, taken, &[]);
    }

    /// Adds a phase in which passes are made, with what the trainer holds besides only now.
    pub(super) fn add_pass_beside(
        &mut self,
        name: &'static str,
        taken: Taken,
        beside: &[(Part, u64)],
    ) {
        self.keep_room(taken);
        let now = if self.on_gpu { taken } else { Taken::default() };
        let passes = [(Part::Activations, now.activations), (Part::Logits, now.logits)];
        self.add(name, &[&passes, beside].concat());
    }

    /// Keeps what passes take, where it stays when they are over: on the host.
    pub(super) fn keep_room(&mut self, taken: Taken) {
        if !self.on_gpu {
            self.trainer.grow(Part::Activations, taken.activations);
            self.trainer.grow(Part::Logits, taken.logits);
        }
    }

    /// Returns the phases in their order.
    pub(super) fn finish(self) -> Vec<Phase> {
        self.done
    }
}
