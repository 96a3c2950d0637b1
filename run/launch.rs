//! How a run is started, beside its configuration.

use super::{Observer, Stop};

/// What to do about an earlier run in the same folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Earlier {
    /// Refuse to touch it.
    #[default]
    Refuse,
    /// Delete it first.
    Delete,
    /// Go on where its latest checkpoint stood.
    Resume,
    /// Go on from the checkpoint of this step, and forget what came after it.
    ResumeFrom(u64),
}

impl Earlier {
    /// Says whether the earlier run goes on.
    pub(super) fn resumes(self) -> bool {
        matches!(self, Self::Resume | Self::ResumeFrom(_))
    }
}

/// How a run is started, beside its configuration.
pub struct Launch<'a> {
    /// What to do about an earlier run in the same folder.
    pub earlier: Earlier,
    /// Who watches.
    pub observer: &'a mut dyn Observer,
    /// Who may ask it to stop. [`Stop::default`] where nobody will.
    pub stop: Stop,
}
