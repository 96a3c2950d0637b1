//! What to change for a run to fit: found by trying.

use serde::Serialize;

use super::{Facts, MemoryPlan, Planned};
use crate::config::ByteSize;

/// Options that make a run take less.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The options, as they are written in the file.
    pub set: Vec<String>,
    /// What the run then needs.
    pub needed: u64,
    /// Whether it then fits.
    pub fits: bool,
}

/// Looks for changes after which a plan's `needed` bytes are at most `limit`: every single one that suffices, the
/// smallest step of each option; or else all that help together. Empty where nothing helps.
pub fn advise<C: Planned>(
    config: &C,
    facts: &Facts,
    limit: u64,
    needed: impl Fn(&MemoryPlan) -> u64,
) -> Vec<Advice> {
    let single = singles(config, facts, limit, &needed);
    if single.iter().any(|advice| advice.fits) {
        return single.into_iter().filter(|advice| advice.fits).collect();
    }
    together(config, facts, limit, &needed).into_iter().collect()
}

/// Tries each option by itself; of several values the first that suffices.
fn singles<C: Planned>(
    config: &C,
    facts: &Facts,
    limit: u64,
    needed: &impl Fn(&MemoryPlan) -> u64,
) -> Vec<Advice> {
    let mut found: Vec<Advice> = Vec::new();
    for change in config.changes() {
        let done =
            found.iter().any(|advice| advice.fits && key(&advice.set[0]) == key(&change.text));
        if done {
            continue;
        }
        let needed = needed(&change.config.plan(facts));
        found.push(Advice { set: vec![change.text], needed, fits: needed <= limit });
    }
    found
}

/// Makes one change after the other, as long as each helps, until the run fits.
fn together<C: Planned>(
    config: &C,
    facts: &Facts,
    limit: u64,
    needed: &impl Fn(&MemoryPlan) -> u64,
) -> Option<Advice> {
    let mut advice = Advice { set: Vec::new(), needed: needed(&config.plan(facts)), fits: false };
    let mut current: Option<C> = None;
    while !advice.fits {
        let changes = current.as_ref().unwrap_or(config).changes();
        let tried = changes.into_iter().map(|change| (needed(&change.config.plan(facts)), change));
        let Some((less, change)) = tried.into_iter().find(|(less, _)| *less < advice.needed) else {
            break;
        };
        advice.set.retain(|set| key(set) != key(&change.text));
        advice.set.push(change.text);
        (advice.needed, advice.fits) = (less, less <= limit);
        current = Some(change.config);
    }
    current.map(|_| advice)
}

fn key(set: &str) -> &str {
    set.split(" = ").next().unwrap_or(set)
}

/// Puts advice into a sentence.
pub(super) fn sentence(advice: &[Advice]) -> String {
    let set = |advice: &Advice| {
        format!("{} (then {})", advice.set.join(" and "), ByteSize(advice.needed))
    };
    match advice {
        [] => "no option makes it smaller: a smaller model or a larger machine is needed".into(),
        [least] if !least.fits => {
            format!("even with {} it does not fit", set(least))
        }
        fitting => format!("set {}", fitting.iter().map(set).collect::<Vec<_>>().join(", or ")),
    }
}
