//! Completions that must be JSON of a schema.

use std::path::Path;

use anyhow::{Context, Result, bail};
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::verdict;
use crate::{
    model::Tokenizer,
    run::reward::{Completion, Source},
    trainer::reward::Reward,
};

/// 1 for JSON that satisfies a schema, 0 for anything else.
pub(in crate::run::reward) struct JsonSchema {
    validator: Validator,
    tokenizer: Tokenizer,
}

impl JsonSchema {
    /// Compiles a schema: the one that is given, or that of a file.
    ///
    /// # Errors
    /// When it cannot be read, or is no schema.
    pub(in crate::run::reward) fn open(
        schema: Option<&toml::Table>,
        file: Option<&Path>,
        tokenizer: Tokenizer,
    ) -> Result<Self> {
        let (schema, name) = match (schema, file) {
            (Some(schema), _) => {
                (serde_json::to_value(schema).context("reward.schema")?, "reward.schema".to_owned())
            }
            (None, Some(file)) => (read(file)?, file.display().to_string()),
            (None, None) => bail!("reward.schema must be given"),
        };
        let validator = compile(&schema).with_context(|| format!("{name}: is no JSON schema"))?;
        Ok(Self { validator, tokenizer })
    }
}

fn read(file: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reward.schema_file: cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: is no JSON", file.display()))
}

/// Compiles a schema. Its patterns run in time that grows with the text alone, whatever a completion says.
fn compile(schema: &Value) -> Result<Validator> {
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
    options.build(schema).map_err(|error| anyhow::anyhow!("{error}"))
}

fn is_valid(validator: &Validator, text: &str) -> bool {
    serde_json::from_str(text).is_ok_and(|value: Value| validator.is_valid(&value))
}

impl Source for JsonSchema {
    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        let score = |completion: &Completion<'_>| {
            Ok(verdict(is_valid(&self.validator, &completion.text(&self.tokenizer)?)))
        };
        completions.iter().map(score).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_json_of_the_schema_is_right_and_nothing_else() {
        let schema: toml::Table = toml::from_str(
            "type = 'object'\nrequired = ['name', 'age']\nadditionalProperties = false\n\
             [properties]\nname = { type = 'string', pattern = '^[a-z]+$' }\n\
             age = { type = 'integer', minimum = 0 }\n",
        )
        .unwrap();
        let validator = compile(&serde_json::to_value(schema).unwrap()).unwrap();
        for (text, right) in [
            (r#"{"name": "ada", "age": 36}"#, true),
            ("\n {\"age\": 0, \"name\": \"a\"} ", true),
            (r#"{"name": "ada", "age": -1}"#, false),
            (r#"{"name": "ada", "age": 1.5}"#, false),
            (r#"{"name": "Ada", "age": 36}"#, false),
            (r#"{"name": "ada"}"#, false),
            (r#"{"name": "ada", "age": 36, "sex": "f"}"#, false),
            (r#"{"name": "ada", "age": 36} "#, true),
            (r#"{"name": "ada", "age": 36} so"#, false),
            (r#"{"name": "ada", "age": 36"#, false),
            ("36", false),
            ("", false),
        ] {
            assert_eq!(is_valid(&validator, text), right, "{text}");
        }
    }

    #[test]
    fn what_is_no_schema_is_refused_in_a_line() {
        for wrong in [json!({"type": "objekt"}), json!({"pattern": "("}), json!(3)] {
            let said = format!("{:#}", compile(&wrong).unwrap_err());
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}
