//! `manifest.json`: what a checkpoint consists of, so that any change of it is noticed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::error::{CheckpointError, Damage};
use crate::run::durable::sync_folder;

const NAME: &str = "manifest.json";
/// Grows when what a checkpoint keeps changes.
const FORMAT: u32 = 2;
/// A manifest has about 150 bytes for each file; a larger one is not ours.
const MOST_BYTES: u64 = 1 << 24;

/// What a checkpoint consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    /// The optimizer steps (PPO: iterations) that are over.
    pub(crate) step: u64,
    /// What the best checkpoints are chosen by, where it was measured at this step.
    pub(crate) score: Option<f64>,
    /// By the path in the checkpoint, with `/` between folders.
    files: BTreeMap<String, FileRecord>,
    /// BLAKE3 of this manifest with an empty one in its place.
    seal: String,
}

/// What a file was when the checkpoint was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRecord {
    bytes: u64,
    blake3: String,
}

impl Manifest {
    /// Makes all files of a folder durable, and then the manifest that lists them.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(super) fn write(
        folder: &Path,
        step: u64,
        score: Option<f64>,
    ) -> Result<(), CheckpointError> {
        let mut files = BTreeMap::new();
        record_tree(folder, "", &mut files)?;
        let score = score.filter(|score| score.is_finite());
        let mut manifest = Self { format: FORMAT, step, score, files, seal: String::new() };
        manifest.seal = manifest.expected_seal();
        let path = folder.join(NAME);
        fs::write(&path, manifest.to_json())
            .and_then(|()| File::open(&path)?.sync_all())
            .and_then(|()| sync_folder(folder))
            .map_err(CheckpointError::writing(&path))
    }

    /// Reads the manifest of a checkpoint, and no other file of it.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub(super) fn read(folder: &Path) -> Result<Self, Damage> {
        let path = folder.join(NAME);
        let mut text = String::new();
        File::open(&path)
            .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
            .map_err(|error| Damage::new(&path, error))?;
        let manifest: Self =
            serde_json::from_str(&text).map_err(|error| Damage::new(&path, error))?;
        let (seal, format) = (manifest.expected_seal(), manifest.format);
        Damage::unless_same(&path, "seal", &seal, &manifest.seal)?;
        Damage::unless_same(&path, "format", &FORMAT, &format)?;
        match manifest.files.keys().find(|name| !is_inside(name)) {
            Some(name) => Err(Damage::new(&path, format!("it lists {name:?}"))),
            None => Ok(manifest),
        }
    }

    /// Checks that every listed file is as it was. Others in the folder are nobody's business.
    ///
    /// # Errors
    /// Names the first file that is not, what it must be and what it is.
    pub(super) fn verify(&self, folder: &Path) -> Result<(), Damage> {
        for (name, expected) in &self.files {
            let path = folder.join(name);
            let found = fs::metadata(&path).map_err(|error| Damage::new(&path, error))?;
            if !found.is_file() {
                return Err(Damage::new(&path, "it is not a file"));
            }
            // The length first: it costs nothing, and says more.
            Damage::unless_same(&path, "length", &expected.bytes, &found.len())?;
            let found = hash(&path).map_err(|error| Damage::new(&path, error))?;
            Damage::unless_same(&path, "BLAKE3", &expected.blake3, &found)?;
        }
        Ok(())
    }

    /// Returns the path of a file of the checkpoint in `folder`.
    ///
    /// # Errors
    /// When the checkpoint was made without it.
    pub(super) fn file(&self, folder: &Path, name: &str) -> Result<PathBuf, Damage> {
        let path = folder.join(name);
        match self.files.contains_key(name) {
            true => Ok(path),
            false => Err(Damage::new(&path, "the checkpoint was made without it")),
        }
    }

    fn expected_seal(&self) -> String {
        let unsealed = Self { seal: String::new(), ..self.clone() };
        blake3::hash(unsealed.to_json().as_bytes()).to_hex().to_string()
    }

    fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self);
        json.expect("a manifest has strings and numbers only") + "\n"
    }
}

/// Syncs and records all files of a folder, those of its folders under `prefix`.
fn record_tree(
    folder: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, FileRecord>,
) -> Result<(), CheckpointError> {
    let entries = fs::read_dir(folder).map_err(CheckpointError::reading(folder))?;
    for entry in entries {
        let entry = entry.map_err(CheckpointError::reading(folder))?;
        let path = entry.path();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if path.is_dir() {
            record_tree(&path, &format!("{name}/"), files)?;
        } else {
            let record = record(&path).map_err(CheckpointError::reading(&path))?;
            files.insert(name, record);
        }
    }
    sync_folder(folder).map_err(CheckpointError::writing(folder))
}

fn record(path: &Path) -> io::Result<FileRecord> {
    let file = File::open(path)?;
    file.sync_all()?;
    // Read back from the page cache: the only way to hash files that others write.
    Ok(FileRecord { bytes: file.metadata()?.len(), blake3: hash(path)? })
}

/// Says whether a name stays in the folder that it is joined to.
fn is_inside(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    parts.all(|part| matches!(part, Component::Normal(_)))
        && !name.is_empty()
        && !name.contains('\n')
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("trainer")).unwrap();
        fs::write(folder.path().join("trainer/state.json"), "{}").unwrap();
        fs::write(folder.path().join("weights"), vec![7u8; 1000]).unwrap();
        Manifest::write(folder.path(), 4, Some(0.1 + 0.2)).unwrap();
        folder
    }

    fn verified(folder: &Path) -> Result<Manifest, Damage> {
        Manifest::read(folder).and_then(|manifest| manifest.verify(folder).map(|()| manifest))
    }

    #[test]
    fn what_was_written_is_whole_and_files_beside_it_do_not_matter() {
        let folder = checkpoint();
        fs::write(folder.path().join("notes.txt"), "looked fine").unwrap();
        let manifest = verified(folder.path()).unwrap();
        assert_eq!((manifest.step, manifest.score), (4, Some(0.1 + 0.2)));
        assert!(manifest.file(folder.path(), "weights").is_ok());
        assert!(manifest.file(folder.path(), "notes.txt").is_err());
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found_and_its_file_named() {
        for name in ["trainer/state.json", "weights", "manifest.json"] {
            let folder = checkpoint();
            let path = folder.path().join(name);
            let whole = fs::read(&path).unwrap();
            for place in [0, whole.len() / 3, whole.len() - 2] {
                let mut bytes = whole.clone();
                bytes[place] ^= 1;
                fs::write(&path, bytes).unwrap();
                assert_eq!(verified(folder.path()).unwrap_err().file, path, "{name} at {place}");
            }
        }
    }

    #[test]
    fn files_that_are_missing_cut_off_or_from_elsewhere_are_named() {
        let said = |spoil: &dyn Fn(&Path)| {
            let folder = checkpoint();
            spoil(folder.path());
            verified(folder.path()).unwrap_err().to_string()
        };
        let missing = said(&|folder| fs::remove_file(folder.join("weights")).unwrap());
        assert!(missing.contains("weights is damaged: No such file"), "{missing}");
        let short = said(&|folder| fs::write(folder.join("weights"), [7u8; 999]).unwrap());
        assert!(short.ends_with("its length must be 1000, is 999"), "{short}");
        let none = said(&|folder| fs::remove_file(folder.join(NAME)).unwrap());
        assert!(none.contains("manifest.json is damaged: No such file"), "{none}");
        let cut = said(&|folder| {
            let text = fs::read_to_string(folder.join(NAME)).unwrap();
            fs::write(folder.join(NAME), &text[..text.len() / 2]).unwrap();
        });
        assert!(cut.contains("manifest.json is damaged: EOF while parsing"), "{cut}");
        let edited = said(&|folder| {
            let text = fs::read_to_string(folder.join(NAME)).unwrap();
            fs::write(folder.join(NAME), text.replace("\"step\": 4", "\"step\": 5")).unwrap();
        });
        assert!(edited.contains("manifest.json is damaged: its seal must be"), "{edited}");
        let unknown = said(&|folder| fs::write(folder.join(NAME), r#"{"a\nb": 0}"#).unwrap());
        assert!(unknown.contains("manifest.json is damaged: unknown field `a b`"), "{unknown}");
    }

    #[test]
    fn a_manifest_lists_files_of_its_folder_only() {
        for name in ["/dev/zero", "../other/weights", "", "a\nb"] {
            let folder = checkpoint();
            let mut manifest = Manifest::read(folder.path()).unwrap();
            let record = manifest.files["weights"].clone();
            manifest.files.insert(name.to_owned(), record);
            manifest.seal = manifest.expected_seal();
            fs::write(folder.path().join(NAME), manifest.to_json()).unwrap();
            let said = Manifest::read(folder.path()).unwrap_err().to_string();
            assert!(said.ends_with(&format!("it lists {name:?}")), "{said}");
        }
    }
}
