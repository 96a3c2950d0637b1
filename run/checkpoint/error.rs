//! What can be wrong with checkpoints.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// An error of a run's checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A checkpoint is not what its manifest says.
    #[error("{damage}; {}", offer(*.whole))]
    Damaged {
        /// The file, and what is wrong with it.
        damage: Damage,
        /// The step of the newest whole checkpoint before it.
        whole: Option<u64>,
    },
    /// There is no checkpoint of this step.
    #[error("{} has no checkpoint of step {step}; {}", run.display(), there_are(.there))]
    NoSuchStep {
        /// The run directory.
        run: PathBuf,
        /// The step that was asked for, or that `LATEST` names.
        step: u64,
        /// The steps that there are, in order.
        there: Vec<u64>,
    },
    /// `LATEST` is not as we write it.
    #[error("{} must name a checkpoint, such as checkpoints/step_4, it says {said:?}", path.display())]
    Latest {
        /// The file.
        path: PathBuf,
        /// What it says.
        said: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl CheckpointError {
    pub(super) fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { path: path.to_owned(), source }
    }

    pub(super) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { path: path.to_owned(), source }
    }
}

/// A file that is not what it was when the checkpoint was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl Damage {
    pub(super) fn new(file: &Path, what: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), what: what.to_string().replace('\n', " ") }
    }

    /// Checks that a property of a file is what it was.
    pub(super) fn unless_same<T: fmt::Display + PartialEq>(
        file: &Path,
        property: &str,
        expected: &T,
        found: &T,
    ) -> Result<(), Self> {
        match expected == found {
            true => Ok(()),
            false => Err(Self::new(file, format!("its {property} must be {expected}, is {found}"))),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged: {}", self.file.display(), self.what)
    }
}

fn offer(whole: Option<u64>) -> String {
    match whole {
        Some(step) => {
            format!("the checkpoint before it is whole: go on from there with --resume={step}")
        }
        None => "no checkpoint before it is whole".to_owned(),
    }
}

fn there_are(steps: &[u64]) -> String {
    match steps {
        [] => "there is none at all".to_owned(),
        steps => {
            let steps: Vec<_> = steps.iter().map(u64::to_string).collect();
            format!("there are those of step {}", steps.join(", "))
        }
    }
}
