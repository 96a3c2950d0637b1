//! The checkpoints of a run directory, and `LATEST`, which names the one that counts.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{
    error::{CheckpointError, Damage},
    manifest::Manifest,
    retention::{Kept, Retention},
};
use crate::run::durable::{remove_folder, replace_file, sync_folder};

const FOLDER: &str = "checkpoints";
const LATEST: &str = "LATEST";

/// A checkpoint all of whose files are as they were when it was made.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    manifest: Manifest,
}

impl Checkpoint {
    fn open(path: PathBuf) -> Result<Self, Damage> {
        let manifest = Manifest::read(&path)?;
        manifest.verify(&path)?;
        Ok(Self { path, manifest })
    }

    /// Returns its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the optimizer steps (PPO: iterations) that are over.
    pub fn step(&self) -> u64 {
        self.manifest.step
    }

    /// Returns the path of a file in it.
    ///
    /// # Errors
    /// When it was made without that file.
    pub(crate) fn file(&self, name: &str) -> Result<PathBuf, CheckpointError> {
        let file = self.manifest.file(&self.path, name);
        file.map_err(|damage| CheckpointError::Damaged { damage, whole: None })
    }
}

/// The checkpoints of a run directory.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    run: PathBuf,
}

impl Checkpoints {
    /// Looks into a run directory, which need not be there yet.
    pub fn of(run: &Path) -> Self {
        Self { run: run.to_owned() }
    }

    /// Opens the checkpoint that a run goes on from: the latest, or that of a step. `None` where there is none at all
    /// and none was asked for.
    ///
    /// # Errors
    /// When it is not there, or damaged: then the error names the newest one before it that is whole.
    pub fn open(&self, step: Option<u64>) -> Result<Option<Checkpoint>, CheckpointError> {
        let step = match step {
            Some(step) => step,
            None => match self.latest()? {
                Some(step) => step,
                None => return Ok(None),
            },
        };
        let there = self.steps();
        if !there.contains(&step) {
            return Err(CheckpointError::NoSuchStep { run: self.run.clone(), step, there });
        }
        let open = |step: u64| Checkpoint::open(self.folder().join(name(step)));
        open(step).map(Some).map_err(|damage| {
            let mut before = there.into_iter().rev().filter(|other| *other < step);
            CheckpointError::Damaged { damage, whole: before.find(|step| open(*step).is_ok()) }
        })
    }

    /// Returns the step that `LATEST` names. Before it names any, the newest checkpoint counts: it was whole before it
    /// got its name.
    ///
    /// # Errors
    /// When `LATEST` cannot be read, or says something else.
    pub(crate) fn latest(&self) -> Result<Option<u64>, CheckpointError> {
        let path = self.run.join(LATEST);
        if !path.exists() {
            return Ok(self.steps().last().copied());
        }
        let mut said = String::new();
        File::open(&path)
            .and_then(|file| file.take(256).read_to_string(&mut said))
            .map_err(CheckpointError::reading(&path))?;
        let step =
            said.trim().strip_prefix(FOLDER).and_then(|name| step_of(name.strip_prefix('/')?));
        step.map(Some).ok_or(CheckpointError::Latest { path, said })
    }

    /// Writes the checkpoint of a step: `fill` puts files into a folder of another name, which becomes durable, gets its
    /// manifest, is renamed, and then named in `LATEST`. Returns where it is.
    ///
    /// # Errors
    /// Those of `fill`, and when a file or folder cannot be written or synced. No half of a checkpoint stays, and
    /// `LATEST` is as it was.
    pub(crate) fn write(
        &self,
        (step, score): (u64, Option<f64>),
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let folder = self.folder();
        let (unfinished, finished) =
            (folder.join(format!(".{}.unfinished", name(step))), folder.join(name(step)));
        let write = || -> Result<()> {
            remove_folder(&unfinished).map_err(CheckpointError::writing(&unfinished))?;
            fs::create_dir_all(&unfinished).map_err(CheckpointError::writing(&unfinished))?;
            fill(&unfinished)?;
            Manifest::write(&unfinished, step, score)?;
            // A step's checkpoint is written once: a run that goes back to an earlier one discards those after it.
            fs::rename(&unfinished, &finished).map_err(CheckpointError::writing(&finished))?;
            // The checkpoint first: LATEST must not outlive a crash that its checkpoint does not.
            sync_folder(&folder).map_err(CheckpointError::writing(&folder))?;
            Ok(self.name_latest(step)?)
        };
        let written = write();
        if written.is_err() {
            // On a full disk this also makes room. The error to tell is the first one.
            remove_folder(&unfinished).ok();
        }
        written.map(|()| finished)
    }

    /// Deletes the checkpoints that are too many.
    ///
    /// # Errors
    /// When one cannot be deleted.
    pub(crate) fn prune(&self, retention: &Retention) -> Result<(), CheckpointError> {
        let Some(latest) = self.latest()? else { return Ok(()) };
        let surplus = retention.surplus(&self.kept(), latest);
        surplus.into_iter().try_for_each(|step| self.discard(step))
    }

    /// Returns the step with the best score, and where its checkpoint is. `None` where none has a score.
    pub(crate) fn best(&self, retention: &Retention) -> Option<(u64, PathBuf)> {
        let step = retention.best(&self.kept()).next()?;
        Some((step, self.folder().join(name(step))))
    }

    fn kept(&self) -> Vec<Kept> {
        let score = |step| Manifest::read(&self.folder().join(name(step))).ok()?.score;
        self.steps().into_iter().map(|step| Kept { step, score: score(step) }).collect()
    }

    /// Makes a step's checkpoint the latest, and forgets those after it.
    ///
    /// # Errors
    /// When `LATEST` cannot be written, or one of them cannot be deleted.
    pub(crate) fn rewind(&self, step: u64) -> Result<(), CheckpointError> {
        self.name_latest(step)?;
        let after = self.steps().into_iter().filter(|other| *other > step);
        after.into_iter().try_for_each(|step| self.discard(step))
    }

    /// Deletes what a run that was killed had not finished writing or deleting.
    ///
    /// # Errors
    /// When something cannot be deleted.
    pub(crate) fn sweep(&self) -> Result<(), CheckpointError> {
        for entry in fs::read_dir(self.folder()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(".step_") {
                let path = entry.path();
                remove_folder(&path).map_err(CheckpointError::writing(&path))?;
            }
        }
        Ok(())
    }

    /// Takes a checkpoint's name away before its files: a half of one has no name.
    fn discard(&self, step: u64) -> Result<(), CheckpointError> {
        let folder = self.folder().join(name(step));
        let nameless = self.folder().join(format!(".{}.discarded", name(step)));
        remove_folder(&nameless)
            .and_then(|()| fs::rename(&folder, &nameless))
            .and_then(|()| remove_folder(&nameless))
            .map_err(CheckpointError::writing(&folder))
    }

    fn name_latest(&self, step: u64) -> Result<(), CheckpointError> {
        let path = self.run.join(LATEST);
        let text = format!("{FOLDER}/{}\n", name(step));
        replace_file(&path, text.as_bytes()).map_err(CheckpointError::writing(&path))
    }

    /// Returns the steps that have a checkpoint, in order.
    fn steps(&self) -> Vec<u64> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let mut steps: Vec<u64> =
            entries.filter_map(|entry| step_of(entry.file_name().to_str()?)).collect();
        steps.sort_unstable();
        steps
    }

    fn folder(&self) -> PathBuf {
        self.run.join(FOLDER)
    }
}

fn name(step: u64) -> String {
    format!("step_{step}")
}

/// Returns the step of a checkpoint's name; only the name that we would give it counts.
fn step_of(found: &str) -> Option<u64> {
    let step = found.strip_prefix("step_")?.parse().ok()?;
    (name(step) == found).then_some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Retention = Retention { keep: 0, keep_best: 0, larger_is_better: true };

    fn fresh() -> (tempfile::TempDir, Checkpoints) {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of(run.path());
        (run, checkpoints)
    }

    fn filled(text: &str) -> impl FnOnce(&Path) -> Result<()> {
        move |folder| {
            fs::create_dir(folder.join("policy"))?;
            Ok(fs::write(folder.join("policy/weights"), text)?)
        }
    }

    fn of_steps(steps: &[u64]) -> (tempfile::TempDir, Checkpoints) {
        let (run, checkpoints) = fresh();
        for &step in steps {
            checkpoints.write((step, Some(-(step as f64))), filled("weights")).unwrap();
        }
        (run, checkpoints)
    }

    #[test]
    fn a_checkpoint_that_fails_leaves_nothing_and_the_last_one_stays() {
        let (run, checkpoints) = of_steps(&[1]);
        let failed = checkpoints.write((2, None), |folder| {
            fs::write(folder.join("half"), "x")?;
            anyhow::bail!("the disk is full")
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full");
        assert_eq!(fs::read_dir(run.path().join("checkpoints")).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(run.path().join("LATEST")).unwrap(), "checkpoints/step_1\n");
        let whole = checkpoints.open(None).unwrap().unwrap();
        assert_eq!(whole.step(), 1);
        assert_eq!(fs::read_to_string(whole.file("policy/weights").unwrap()).unwrap(), "weights");
    }

    #[test]
    fn a_damaged_checkpoint_is_refused_by_name_and_the_newest_whole_one_before_it_offered() {
        let (run, checkpoints) = of_steps(&[2, 4, 6, 8]);
        let weights = |step| run.path().join(format!("checkpoints/step_{step}/policy/weights"));
        for step in [6, 8] {
            fs::write(weights(step), "weightz").unwrap();
        }
        let said = checkpoints.open(None).unwrap_err().to_string();
        assert!(said.starts_with(&format!("{} is damaged: its BLAKE3", weights(8).display())));
        assert!(said.ends_with("go on from there with --resume=4"), "{said}");
        for step in [2, 4] {
            fs::remove_file(weights(step)).unwrap();
        }
        let said = checkpoints.open(None).unwrap_err().to_string();
        assert!(said.ends_with("no checkpoint before it is whole"), "{said}");
    }

    #[test]
    fn going_back_makes_an_earlier_one_the_latest_and_forgets_those_after_it() {
        let (run, checkpoints) = of_steps(&[2, 4, 6]);
        let said = checkpoints.open(Some(5)).unwrap_err().to_string();
        assert!(said.ends_with("of step 5; there are those of step 2, 4, 6"), "{said}");
        checkpoints.rewind(2).unwrap();
        assert_eq!((checkpoints.latest().unwrap(), checkpoints.steps()), (Some(2), vec![2]));
        checkpoints.write((4, None), filled("again")).unwrap();
        let again = checkpoints.open(None).unwrap().unwrap();
        assert_eq!(again.path(), run.path().join("checkpoints/step_4"));
    }

    #[test]
    fn a_kill_between_a_checkpoint_and_its_naming_loses_nothing() {
        let (run, checkpoints) = of_steps(&[3]);
        fs::remove_file(run.path().join("LATEST")).unwrap();
        assert_eq!(checkpoints.open(None).unwrap().unwrap().step(), 3);
        let (_run, empty) = fresh();
        assert!(empty.open(None).unwrap().is_none());
    }

    #[test]
    fn latest_names_a_checkpoint_that_is_there_and_nothing_else() {
        let (run, checkpoints) = of_steps(&[3]);
        for (text, words) in [
            ("checkpoints/step_9\n", "no checkpoint of step 9; there are those of step 3"),
            ("/etc/step_3", "LATEST must name a checkpoint"),
            ("checkpoints/../step_3", "LATEST must name a checkpoint"),
            ("checkpoints/step_+3", "LATEST must name a checkpoint"),
        ] {
            fs::write(run.path().join("LATEST"), text).unwrap();
            let said = checkpoints.open(None).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn pruning_keeps_the_latest_and_the_best_and_sweeping_deletes_what_has_no_name() {
        let (run, checkpoints) = of_steps(&[2, 10, 9, 11]);
        checkpoints.prune(&ALL).unwrap();
        assert_eq!(checkpoints.steps(), [2, 9, 10, 11]);
        checkpoints.prune(&Retention { keep: 1, keep_best: 1, ..ALL }).unwrap();
        assert_eq!(checkpoints.steps(), [2, 11]);
        let folder = run.path().join("checkpoints");
        fs::create_dir_all(folder.join(".step_12.unfinished/policy")).unwrap();
        checkpoints.sweep().unwrap();
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
    }
}
