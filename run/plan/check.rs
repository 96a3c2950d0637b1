//! Whether a run may begin.

use anyhow::{Result, bail};

use super::{Length, MemoryPlan, Planned, advice::sentence, available, machine::resident};
use crate::config::{ByteSize, MemoryCheck, MemoryConfig};

/// A plan that a run begins with.
pub(in crate::run) struct Checked {
    pub(in crate::run) plan: MemoryPlan,
    /// Why it may end for want of memory.
    pub(in crate::run) warning: Option<String>,
}

/// Computes a run's plan and holds it against what there is.
///
/// # Errors
/// One line, where it does not fit and `memory.check` is `stop`: what is needed, what there is, and what to change.
pub(in crate::run) fn check<C: Planned>(
    config: &C,
    memory: MemoryConfig,
    lengths: Vec<Length>,
) -> Result<Checked> {
    let facts = config.facts()?.with(lengths);
    let plan = config.plan(&facts);
    // What is resident already counts among what is needed.
    let free = || Some(available()? + resident()?);
    let limit = memory.limit.map(|limit| limit.0).or_else(free).unwrap_or(u64::MAX);
    let needed = plan.needed();
    if needed <= limit || memory.check == MemoryCheck::Off {
        return Ok(Checked { plan, warning: None });
    }
    let advice = super::advise(config, &facts, limit, MemoryPlan::needed);
    let line = format!(
        "memory: the run needs {} while it does {:?}, and may use {}; {}; `rollforge plan` shows more, and memory.check \
         = \"warn\" goes on",
        ByteSize(needed),
        plan.widest_phase(),
        ByteSize(limit),
        sentence(&advice),
    );
    match memory.check {
        MemoryCheck::Stop => bail!(line),
        MemoryCheck::Warn | MemoryCheck::Off => Ok(Checked { plan, warning: Some(line) }),
    }
}
