//! Versions as headers state them, and which of them the shim works with (`ffi/tensorrt_llm/shim/version.h` judges the same
//! way, of the library that runs).

/// A version of TensorRT-LLM: major, minor, patch, and the number of a release candidate (`u32::MAX`: the release itself).
type Version = (u32, u32, u32, u32);

const OLDEST: Version = (0, 19, 0, 0);
const NEWEST: Version = (1, 2, 1, u32::MAX);
const LAST_CANDIDATE: Version = (1, 3, 0, 21);

/// TensorRT 10 minor versions whose classes are laid out as the engine capture expects.
const TENSORRT_MAJOR: u32 = 10;
const NEWEST_TENSORRT_MINOR: u32 = 16;

const INSTALL: &str = "install 1.2.1 (0.19 to 1.2.1 work)";

/// Judges a version of TensorRT-LLM: a warning for a release candidate.
///
/// # Errors
/// A sentence for a version that the shim cannot work with.
pub(crate) fn judge_trtllm(text: &str) -> Result<Option<String>, String> {
    let Some(version) = parse(text) else {
        return Err(format!(
            "TensorRT-LLM \"{text}\" is no version that Rollforge knows: {INSTALL}"
        ));
    };
    if version < OLDEST {
        Err(format!(
            "TensorRT-LLM {text} is too old, its Executor being a closed library: {INSTALL}"
        ))
    } else if version > LAST_CANDIDATE {
        Err(format!(
            "TensorRT-LLM {text} has no engine Executor, which was removed after 1.3.0rc21 (its documentation: \
             legacy/tensorrt-backend-removal.md): {INSTALL}"
        ))
    } else if version > NEWEST && version < (1, 3, 0, 1) {
        Err(format!("TensorRT-LLM {text} is no version that Rollforge knows: {INSTALL}"))
    } else if version.3 != u32::MAX {
        Ok(Some(format!("TensorRT-LLM {text} is a release candidate, which is not supported")))
    } else {
        Ok(None)
    }
}

/// Judges a version of TensorRT.
///
/// # Errors
/// A sentence for a version whose classes the engine capture does not know.
pub(crate) fn judge_tensorrt((major, minor): (u32, u32)) -> Result<(), String> {
    if major == TENSORRT_MAJOR && minor <= NEWEST_TENSORRT_MINOR {
        return Ok(());
    }
    Err(format!(
        "TensorRT {major}.{minor} cannot be used, the engine capture knows {TENSORRT_MAJOR}.0 to \
         {TENSORRT_MAJOR}.{NEWEST_TENSORRT_MINOR}"
    ))
}

/// Returns the version that `tensorrt_llm/executor/version.h` states.
pub(crate) fn of_trtllm(header: &str) -> Option<&str> {
    let line = header.lines().find(|line| line.contains("kTensorRtLlmVersion"))?;
    line.split('"').nth(1)
}

/// Returns major and minor version that `NvInferVersion.h` states, by itself or by another macro.
pub(crate) fn of_tensorrt(header: &str) -> Option<(u32, u32)> {
    let define = |name: &str| {
        header.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("#define") && words.next() == Some(name)).then(|| words.next())?
        })
    };
    let number = |name| {
        let value = define(name)?;
        value.parse().ok().or_else(|| define(value)?.parse().ok())
    };
    Some((number("NV_TENSORRT_MAJOR")?, number("NV_TENSORRT_MINOR")?))
}

/// Reads "1.2.1", "1.3.0rc15"; what follows behind "." or "+" is left out of account.
fn parse(text: &str) -> Option<Version> {
    let (major, rest) = text.split_once('.')?;
    let (minor, rest) = rest.split_once('.')?;
    let rest = rest.split(['.', '+']).next()?;
    let (patch, candidate) = match rest.split_once("rc") {
        Some((patch, candidate)) => (patch, candidate.parse().ok()?),
        None => (rest, u32::MAX),
    };
    Some((major.parse().ok()?, minor.parse().ok()?, patch.parse().ok()?, candidate))
}
