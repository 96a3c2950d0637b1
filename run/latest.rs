//! A run directory where a model directory is asked for: its latest checkpoint's model is meant.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns the model directory that a path means: of a run directory the policy (or else the reward model) of the
/// latest checkpoint, of anything else the path itself.
pub fn model_directory(path: &Path) -> PathBuf {
    let Ok(latest) = fs::read_to_string(path.join("LATEST")) else { return path.to_owned() };
    let checkpoint = path.join(latest.trim());
    let model = ["policy", "reward_model"].map(|name| checkpoint.join(name));
    model.into_iter().find(|dir| dir.is_dir()).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_stands_for_its_latest_model_and_other_folders_for_themselves() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(model_directory(folder.path()), folder.path());
        fs::write(folder.path().join("LATEST"), "checkpoints/step_7\n").unwrap();
        assert_eq!(model_directory(folder.path()), folder.path());
        let model = folder.path().join("checkpoints/step_7/reward_model");
        fs::create_dir_all(&model).unwrap();
        assert_eq!(model_directory(folder.path()), model);
        let policy = folder.path().join("checkpoints/step_7/policy");
        fs::create_dir_all(&policy).unwrap();
        assert_eq!(model_directory(folder.path()), policy);
    }
}
