//! The memory plan of knowledge distillation: a teacher that is asked first, its answers, and a student.

use super::{
    Change, Facts, MemoryPlan, Planned,
    batch::Length,
    facts,
    supervised::{Knobs, changes, learner, packed, referred},
};
use crate::{
    config::DistillConfig,
    data::{SftSample, TaughtSample},
    model::Head,
};

/// What an answer takes: a token id and a log-prob.
const ANSWER: u64 = (size_of::<u32>() + size_of::<f32>()) as u64;

impl Planned for DistillConfig {
    fn facts(&self) -> anyhow::Result<Facts> {
        let facts = Facts::assume(&self.model.path, &self.data, self.distill.batch_size)?;
        let teacher = self.model.teacher.as_deref();
        Ok(Facts { reference: teacher.map(facts::shape).transpose()?, ..facts })
    }

    fn lengths(&self) -> anyhow::Result<Vec<Length>> {
        let (model, data) = (&self.model.path, &self.data);
        Ok(match self.model.teacher {
            Some(_) => {
                super::samples::<SftSample>(model, data)?.iter().map(Length::of_text).collect()
            }
            None => {
                let samples = super::samples::<TaughtSample>(model, data)?;
                samples.iter().map(Length::of_taught).collect()
            }
        })
    }

    fn plan(&self, facts: &Facts) -> MemoryPlan {
        let options = &self.distill;
        let passes = (options.epochs, options.max_steps, options.batch_size);
        let cut = (options.packing, options.micro_batch_tokens);
        let micro_batches = packed((&self.data, self.seed), &facts.lengths, passes, cut);
        let batch = super::widest(micro_batches, (self.device, &facts.policy));
        // The teacher's answers are there from before the student is. Those of held-out sequences are counted with the data.
        let rows: usize = facts.lengths.iter().map(|length| length.rows).sum();
        let answers = rows as u64 * options.top_k as u64 * ANSWER;
        // Of rows that carry answers, text is most of the file; an id and a flag for each token stay of the rest.
        let tokens: usize = facts.lengths.iter().map(|length| length.tokens).sum();
        let data = if self.model.teacher.is_some() { facts.data } else { 5 * tokens as u64 };
        let facts = &Facts { data: data.saturating_add(answers), ..facts.clone() };
        let Self { model, device, .. } = self;
        let (model, beside) = (model.trained(), (&self.lora, self.ema));
        let student = learner((&model, *device), beside, Head::LanguageModel, facts);
        let phases = referred((&student, false), batch, *device, facts);
        MemoryPlan::new("distill", *device, batch, phases)
    }

    fn changes(&self) -> Vec<Change<Self>> {
        let longest = self.data.max_tokens;
        changes(self, ("distill", longest), |config| Knobs {
            checkpointing: &mut config.model.activation_checkpointing,
            dtype: &mut config.model.dtype,
            budget: &mut config.distill.micro_batch_tokens,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, run::plan::Part};

    #[test]
    fn a_teacher_comes_first_and_its_answers_stay() {
        let folder = tempfile::tempdir().unwrap();
        for (name, hidden) in [("student", 8), ("teacher", 16)] {
            let directory = folder.path().join(name);
            std::fs::create_dir(&directory).unwrap();
            let shape = serde_json::json!({
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
                "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                "vocab_size": 50, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
                "torch_dtype": "float32",
            });
            std::fs::write(directory.join("config.json"), shape.to_string()).unwrap();
        }
        let plan = |top_k: usize| {
            let text = format!(
                "output_dir = 'o'\nmodel.path = 'student'\nmodel.teacher = 'teacher'\n\
                 data.train = 'd.jsonl'\ndistill.batch_size = 3\ndistill.top_k = {top_k}\n"
            );
            let config: DistillConfig = config::parse("x", text, folder.path(), &[]).unwrap();
            let facts = Facts { process: 0, ..config.facts().unwrap() };
            config.plan(&facts)
        };
        let (few, many) = (plan(10), plan(20));
        let data = |plan: &MemoryPlan| plan.phases[0].host.get(Part::Data);
        // Three sequences of 64 tokens, the first of which nothing predicts.
        assert_eq!(data(&few), 3 * 63 * 10 * 8);
        assert_eq!(data(&many), 2 * data(&few));
        assert_eq!(few.phases[0].name, "load reference");
    }
}
