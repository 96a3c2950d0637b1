//! Looks at the machine: what there is to generate and train with.

mod description;
mod tensorrt_llm;

use std::fs;

pub use description::Description;
use serde::Serialize;

/// Something that a run could use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked for.
    pub what: &'static str,
    /// Whether it is there.
    pub present: bool,
    /// What was found, or where it was looked for.
    pub found: String,
    /// How to get it, or what follows from its absence. Empty where there is nothing to do.
    pub advice: String,
}

impl Finding {
    fn present(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, present: true, found: found.into(), advice: String::new() }
    }

    fn absent(what: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self { what, present: false, found: found.into(), advice: advice.into() }
    }
}

/// Looks at everything. Changes nothing and never fails: what cannot be found is a finding too.
pub fn examine() -> Vec<Finding> {
    let mut findings = vec![cpu(), vectors(), threads(), memory(), libtorch(), gpu()];
    findings.extend(tensorrt_llm::examine());
    findings
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    field(&info, "model name").unwrap_or(std::env::consts::ARCH).to_owned()
}

fn cpu() -> Finding {
    Finding::present("processor", processor())
}

/// Vector instructions the engine's kernels can use.
fn vectors() -> Finding {
    let found = vector_features();
    let advice = "the engine runs its portable kernels, which are slow";
    if found.is_empty() {
        return Finding::absent("vector instructions", "none of AVX2, AVX-512", advice);
    }
    Finding::present("vector instructions", found.join(", "))
}

#[cfg(target_arch = "x86_64")]
fn vector_features() -> Vec<&'static str> {
    use std::arch::is_x86_feature_detected as has;
    // The kernels take AVX-512 with all four of these or not at all.
    let wide = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    let features = [
        ("AVX2", has!("avx2")),
        ("FMA", has!("fma")),
        ("AVX-512 F/BW/DQ/VL", wide),
        ("AVX-512 bf16", wide && has!("avx512bf16")),
    ];
    features.into_iter().filter(|&(_, there)| there).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_features() -> Vec<&'static str> {
    Vec::new()
}

fn threads() -> Finding {
    match std::thread::available_parallelism() {
        Ok(threads) => Finding::present("threads", threads.to_string()),
        Err(error) => {
            Finding::absent("threads", error.to_string(), "give their number with `threads`")
        }
    }
}

fn memory() -> Finding {
    match (memory_gib("MemAvailable"), memory_gib("MemTotal")) {
        (Some(available), Some(total)) => {
            Finding::present("memory", format!("{available:.1} GiB free of {total:.1} GiB"))
        }
        _ => Finding::absent("memory", "this system does not say", ""),
    }
}

fn memory_gib(name: &str) -> Option<f64> {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = field(&info, name)?.strip_suffix(" kB")?.parse::<f64>().ok()?;
    Some(kib / f64::from(1 << 20))
}

#[cfg(feature = "libtorch")]
fn libtorch() -> Finding {
    let version = crate::trainer::torch::libtorch::VERSION;
    Finding::present("libtorch", format!("{version}: sft, rm and ppo can run"))
}

#[cfg(not(feature = "libtorch"))]
fn libtorch() -> Finding {
    let advice = "training needs a build with the feature `libtorch`: make deps, then cargo build";
    Finding::absent("libtorch", "this build is the engine alone", advice)
}

/// Returns the name of each NVIDIA GPU that the driver knows.
pub fn gpus() -> Vec<String> {
    let gpus = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let models = gpus.filter_map(|gpu| {
        let information = fs::read_to_string(gpu.path().join("information")).ok()?;
        field(&information, "Model").map(str::to_owned)
    });
    models.collect()
}

fn gpu() -> Finding {
    let models = gpus();
    if models.is_empty() {
        return Finding::absent("GPU", "no NVIDIA driver", "everything runs on the CPU");
    }
    Finding { advice: training_on_gpu(), ..Finding::present("GPU", models.join(", ")) }
}

/// Says what the trainer lacks to use the GPU that is there. Empty when it lacks nothing.
#[cfg(feature = "libtorch")]
fn training_on_gpu() -> String {
    crate::trainer::torch::libtorch::cuda().err().unwrap_or_default()
}

#[cfg(not(feature = "libtorch"))]
fn training_on_gpu() -> String {
    "a build without libtorch has no use for it".into()
}

/// Returns the value of the first `name : value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_the_first_of_its_name() {
        let text = "MemTotalX: 1 kB\nMemTotal:   16 kB\nMemTotal: 3 kB";
        assert_eq!(field(text, "MemTotal"), Some("16 kB"));
        assert_eq!(field(text, "MemFree"), None);
    }

    #[test]
    fn what_is_absent_has_a_place_where_it_was_looked_for() {
        for finding in examine() {
            assert!(!finding.found.is_empty(), "{finding:?}");
        }
    }
}
