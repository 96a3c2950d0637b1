//! `rollforge distill --config`: knowledge distillation.

use std::path::Path;

use super::{
    Config, OfflineConfig, Violation,
    offline::{arithmetic, offline_config},
    sections::{eval_has_data, model_beside, within},
};
use crate::trainer::config::DistillOptions;

model_beside! {
    /// The `[model]` section of knowledge distillation.
    StudentConfig {
        /// The Hugging Face model directory that the student starts from.
        path,
        /// That of the teacher, of the same tokenizer. Default: none, and the rows carry a teacher's answers.
        teacher
    }
}

offline_config! {
    /// A run of knowledge distillation.
    DistillConfig {
        distill: DistillOptions,
        model: StudentConfig,
        /// What teacher and student are compared on: what supervised fine-tuning takes; or, where no teacher is named, rows that
        /// carry its answers.
        data
    }
}

impl Config for DistillConfig {
    fn resolve(&mut self, folder: &Path) {
        self.resolve_paths(folder);
        self.checkpoint.resolve(if self.data.eval.is_empty() { "loss" } else { "eval/loss" });
    }

    fn validate(&self) -> Result<(), Violation> {
        self.common().validate()?;
        within("distill", self.distill.validate())?;
        // Log-probs of some tokens at one temperature do not say how much the others have at another.
        let DistillOptions { renormalize, temperature, .. } = self.distill;
        Violation::unless(
            self.model.teacher.is_some() || renormalize || temperature == 1.0,
            "distill.renormalize",
            "true where rows carry the teacher's answers and distill.temperature is not 1",
            renormalize,
        )?;
        eval_has_data("distill.eval_every", self.distill.eval_every, &self.data)
    }

    fn arithmetic(&self) -> Vec<String> {
        let DistillOptions { epochs, batch_size, micro_batch_tokens, .. } = self.distill;
        arithmetic("sequences, up to", (epochs, batch_size, micro_batch_tokens), &self.data)
    }
}
