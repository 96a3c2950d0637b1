//! Finds and loads the CUDA part of libtorch, where there is one.
//!
//! The program links the CPU part only, so that it runs on a machine without the CUDA libraries. libtorch registers a
//! device's kernels when the library that holds them is loaded; loading `libtorch_cuda.so` of the same version, with
//! its symbols made global, therefore turns the same process into one that can use GPUs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

const NAME: &str = "libtorch_cuda.so";

/// Loads the library, once; returns where it was found.
///
/// It is looked for in `$LIBTORCH_CUDA` (a folder), beside the `libtorch_cpu.so` in use, and in the PyTorch of an
/// active virtual environment.
///
/// # Errors
/// A sentence: where it was looked for, or why what was found does not do.
pub fn load(version: &str) -> Result<PathBuf, String> {
    static LOADED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    LOADED.get_or_init(|| find_and_open(version)).clone()
}

fn find_and_open(version: &str) -> Result<PathBuf, String> {
    let folders = candidates();
    let Some(folder) = folders.iter().find(|folder| folder.join(NAME).is_file()) else {
        let looked: Vec<String> =
            folders.iter().map(|folder| folder.display().to_string()).collect();
        return Err(format!(
            "no {NAME} in {}; set LIBTORCH_CUDA to the lib folder of a CUDA build of libtorch {version}",
            if looked.is_empty() { "any known folder".to_owned() } else { looked.join(", ") }
        ));
    };
    let path = folder.join(NAME);
    check_version(folder, version)?;
    // SAFETY: libtorch's initialisers register kernels and do nothing else; the version was checked above, so that
    // they agree with the libtorch_cpu already in the process.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    let library =
        library.map_err(|error| format!("{} cannot be loaded: {error}", path.display()))?;
    std::mem::forget(library); // its kernels are registered for good: it must never be unloaded
    Ok(path)
}

fn candidates() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        env::var_os("LIBTORCH_CUDA").map(PathBuf::from).into_iter().collect();
    folders.extend(folder_in_use());
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        let Some(prefix) = env::var_os(variable) else { continue };
        let Ok(pythons) = fs::read_dir(Path::new(&prefix).join("lib")) else { continue };
        let libs = pythons.flatten().map(|python| python.path().join("site-packages/torch/lib"));
        folders.extend(libs.filter(|lib| lib.is_dir()));
    }
    folders
}

/// The folder of the `libtorch_cpu.so` in this process.
fn folder_in_use() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    Path::new(&line[line.find('/')?..]).parent().map(Path::to_path_buf)
}

/// A folder of libtorch says its version in `../build-version`, one of PyTorch in `../version.py`.
fn check_version(lib: &Path, version: &str) -> Result<(), String> {
    let parent = lib.parent().unwrap_or(lib);
    let found = ["build-version", "version.py"]
        .iter()
        .find_map(|name| fs::read_to_string(parent.join(name)).ok())
        .and_then(|text| version_in(&text));
    match found {
        Some(found) if found == version => Ok(()),
        found => Err(format!(
            "{} must be of libtorch {version}, got {}",
            lib.join(NAME).display(),
            found.unwrap_or_else(|| "an unknown version".to_owned())
        )),
    }
}

/// Takes `2.11.0` out of `2.11.0+cu130` and of `__version__ = '2.11.0+cu130'`.
fn version_in(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.chars().any(|c| c.is_ascii_digit()))?;
    let start = line.find(|c: char| c.is_ascii_digit())?;
    let rest = &line[start..];
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_both_kinds_of_folder_write_them() {
        assert_eq!(version_in("2.11.0\n").as_deref(), Some("2.11.0"));
        let python =
            "from typing import Optional\n\n__version__ = '2.11.0+cu130'\ncuda: = '13.0'\n";
        assert_eq!(version_in(python).as_deref(), Some("2.11.0"));
        assert_eq!(version_in("nothing here"), None);
    }

    #[test]
    fn a_library_of_another_version_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder.path().join("lib");
        fs::create_dir(&lib).unwrap();
        fs::write(folder.path().join("build-version"), "2.10.0+cu130").unwrap();
        let error = check_version(&lib, "2.11.0").unwrap_err();
        assert!(
            error.ends_with("libtorch_cuda.so must be of libtorch 2.11.0, got 2.10.0"),
            "{error}"
        );
    }
}
