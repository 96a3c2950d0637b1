//! What a measurement was taken with.

use serde::{Deserialize, Serialize};

/// A machine, and the program that was measured on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The processor, as it calls itself.
    pub processor: String,
    /// Cores that the process may run on.
    pub cores: usize,
    /// Vector instructions that the processor has and the kernels know.
    pub instructions: Vec<String>,
    /// All memory (GiB).
    pub memory_gib: f64,
    /// NVIDIA GPUs that the driver knows.
    pub gpus: Vec<String>,
    /// This program's version.
    pub rollforge: String,
    /// libtorch's version, where the build has it.
    pub libtorch: Option<String>,
    /// The compiler.
    pub rustc: String,
}

impl Description {
    /// Looks at this machine.
    pub fn of_this_machine() -> Self {
        Self {
            processor: super::processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            instructions: super::vector_features().into_iter().map(str::to_owned).collect(),
            memory_gib: super::memory_gib("MemTotal").unwrap_or_default().round(),
            gpus: super::gpus(),
            rollforge: env!("CARGO_PKG_VERSION").into(),
            libtorch: libtorch(),
            rustc: env!("ROLLFORGE_RUSTC").into(),
        }
    }

    /// Returns a line on the machine.
    pub fn machine(&self) -> String {
        let Self { processor, cores, instructions, memory_gib, gpus, .. } = self;
        let gpus = if gpus.is_empty() { "no GPU".into() } else { gpus.join(", ") };
        let instructions = instructions.join(", ");
        format!("{processor}, {cores} cores ({instructions}), {memory_gib:.0} GiB, {gpus}")
    }

    /// Returns a line on the program.
    pub fn program(&self) -> String {
        let libtorch = self.libtorch.as_deref().map(|version| format!(", libtorch {version}"));
        format!("rollforge {}{}, {}", self.rollforge, libtorch.unwrap_or_default(), self.rustc)
    }
}

#[cfg(feature = "libtorch")]
fn libtorch() -> Option<String> {
    Some(crate::trainer::torch::libtorch::VERSION.to_string())
}

#[cfg(not(feature = "libtorch"))]
fn libtorch() -> Option<String> {
    None
}
