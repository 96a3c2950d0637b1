//! The rules a [`ModelSpec`] keeps, wherever it comes from.

use std::path::Path;

use super::{Error, Family, ModelSpec, RopeScaling, error::Result};

/// A field of a model's shape that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {rule}, got {got}")]
pub struct SpecProblem {
    /// The key, as in `config.json`.
    pub field: &'static str,
    /// What it must be.
    pub rule: String,
    /// What it was.
    pub got: String,
}

impl SpecProblem {
    pub(super) fn in_file(self, path: &Path) -> Error {
        Error::Field {
            path: path.to_owned(),
            field: self.field.to_owned(),
            rule: self.rule,
            got: self.got,
        }
    }
}

/// Outside of a `config.json` the fields have our own, shorter names.
impl From<SpecProblem> for Error {
    fn from(problem: SpecProblem) -> Self {
        let field = match problem.field {
            "num_key_value_heads" => "num_kv_heads",
            other => other,
        };
        let rule = problem.rule.replace("num_attention_heads", "num_heads");
        Self::Spec { field: field.to_owned(), rule, got: problem.got }
    }
}

impl ModelSpec {
    /// Checks that sizes fit each other and that the family has what the fields ask for.
    ///
    /// # Errors
    /// Names the first field that breaks a rule.
    pub fn check(&self) -> Result<(), SpecProblem> {
        self.check_family()?;
        self.check_heads()?;
        self.check_rope()
    }

    fn check_heads(&self) -> Result<(), SpecProblem> {
        if self.num_kv_heads == 0 || !self.num_heads.is_multiple_of(self.num_kv_heads) {
            let rule = format!("a divisor of num_attention_heads ({})", self.num_heads);
            return broken("num_key_value_heads", rule, self.num_kv_heads);
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return broken("head_dim", "even, as rotary embeddings turn pairs", self.head_dim);
        }
        // Bounded so that no later product of sizes overflows.
        if self.num_heads.checked_mul(self.head_dim).is_none_or(|width| width > 1 << 24) {
            return broken(
                "head_dim",
                "such that all heads have at most 16777216 numbers",
                self.head_dim,
            );
        }
        Ok(())
    }

    fn check_rope(&self) -> Result<(), SpecProblem> {
        let (factor, low_freq_factor, high_freq_factor) = match self.rope_scaling {
            None => return Ok(()),
            Some(RopeScaling::Linear { factor }) => (factor, 1.0, 2.0),
            Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, .. }) => {
                (factor, low_freq_factor, high_freq_factor)
            }
        };
        let factors = [
            ("factor", factor),
            ("low_freq_factor", low_freq_factor),
            ("high_freq_factor", high_freq_factor),
        ];
        for (field, factor) in factors {
            if !(factor.is_finite() && factor > 0.0) {
                return broken(field, "a finite number above 0", factor);
            }
        }
        if low_freq_factor >= high_freq_factor {
            let rule = format!("below high_freq_factor ({high_freq_factor})");
            return broken("low_freq_factor", rule, low_freq_factor);
        }
        Ok(())
    }

    fn check_family(&self) -> Result<(), SpecProblem> {
        let name = self.family.model_type();
        let (llama, qwen3) = (self.family == Family::Llama, self.family == Family::Qwen3);
        if llama && !self.hidden_size.is_multiple_of(self.num_heads) {
            // transformers refuses such a Llama, even when head_dim is given.
            let rule = format!("a multiple of num_attention_heads ({})", self.num_heads);
            return broken("hidden_size", rule, self.hidden_size);
        }
        if self.sliding_window == Some(0) {
            return broken("sliding_window", "1 or more", 0);
        }
        if llama && let Some(window) = self.sliding_window {
            return broken("sliding_window", "absent for llama", window);
        }
        let free_bias = llama || qwen3;
        if self.qkv_bias != (self.family == Family::Qwen2) && !free_bias {
            return broken(
                "attention_bias",
                format!("{} for {name}", !self.qkv_bias),
                self.qkv_bias,
            );
        }
        let o_bias = free_bias && self.qkv_bias;
        if self.o_bias != o_bias {
            return broken("o_bias", format!("{o_bias} for {name}"), self.o_bias);
        }
        if self.mlp_bias && !llama {
            return broken("mlp_bias", format!("false for {name}"), true);
        }
        if self.qk_norm != qwen3 {
            return broken("qk_norm", format!("{qwen3} for {name}"), self.qk_norm);
        }
        Ok(())
    }
}

fn broken<T>(
    field: &'static str,
    rule: impl Into<String>,
    got: impl ToString,
) -> Result<T, SpecProblem> {
    Err(SpecProblem { field, rule: rule.into(), got: got.to_string() })
}
