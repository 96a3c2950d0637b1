//! Configurations to start from, one for each algorithm, embedded in the program.
//!
//! `tests/runs/recipes.rs` runs each of them for a step on a small model.

use super::{
    Config, ConstitutionConfig, DistillConfig, DpoConfig, Error, KtoConfig, PpoConfig,
    RegressionConfig, RewardModelConfig, SftConfig, SpinConfig, SteerLm2Config, parse, to_toml,
};

/// A configuration to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// What it is called.
    pub name: &'static str,
    /// The command it is for.
    pub command: RecipeCommand,
    /// The file, with comments.
    pub text: &'static str,
}

/// The command that runs a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipeCommand {
    /// `rollforge sft`.
    Sft,
    /// `rollforge rm`.
    Rm,
    /// `rollforge regression`.
    Regression,
    /// `rollforge dpo`.
    Dpo,
    /// `rollforge kto`.
    Kto,
    /// `rollforge spin`.
    Spin,
    /// `rollforge steerlm2`.
    SteerLm2,
    /// `rollforge distill`.
    Distill,
    /// `rollforge ppo`.
    Ppo,
    /// `rollforge constitution`.
    Constitution,
}

macro_rules! recipe {
    ($command:ident, $name:literal) => {
        Recipe {
            name: $name,
            command: RecipeCommand::$command,
            text: include_str!(concat!("../recipes/", $name, ".toml")),
        }
    };
}

/// Every recipe, in the order in which a pipeline uses them.
pub const RECIPES: &[Recipe] = &[
    recipe!(Sft, "sft"),
    recipe!(Rm, "rm"),
    recipe!(Regression, "regression"),
    recipe!(Ppo, "ppo-rlhf"),
    recipe!(Ppo, "ppo-reasoning"),
    recipe!(Ppo, "ppo-async"),
    recipe!(Ppo, "grpo"),
    recipe!(Ppo, "dr-grpo"),
    recipe!(Ppo, "dapo"),
    recipe!(Ppo, "gspo"),
    recipe!(Ppo, "cispo"),
    recipe!(Ppo, "rloo"),
    recipe!(Ppo, "reinforce"),
    recipe!(Ppo, "reinforce-pp"),
    recipe!(Ppo, "reinforce-pp-baseline"),
    recipe!(Ppo, "rejection-sampling"),
    recipe!(Ppo, "online-dpo"),
    recipe!(Ppo, "distillation"),
    recipe!(Dpo, "dpo"),
    recipe!(Dpo, "cdpo"),
    recipe!(Dpo, "robust-dpo"),
    recipe!(Dpo, "ipo"),
    recipe!(Dpo, "rpo"),
    recipe!(Dpo, "orpo"),
    recipe!(Dpo, "simpo"),
    recipe!(Kto, "kto"),
    recipe!(Spin, "spin"),
    recipe!(Sft, "steerlm"),
    recipe!(SteerLm2, "steerlm2"),
    recipe!(Distill, "distill"),
    recipe!(Constitution, "constitution"),
];

impl Recipe {
    /// Finds a recipe by its name; the error is the name that was probably meant.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn find(name: &str) -> Result<&'static Self, UnknownRecipe> {
        RECIPES.iter().find(|recipe| recipe.name == name).ok_or_else(|| {
            let distance = |recipe: &&Self| strsim::damerau_levenshtein(name, recipe.name);
            let near = RECIPES.iter().min_by_key(distance).map_or("", |recipe| recipe.name);
            UnknownRecipe { name: name.into(), near }
        })
    }

    /// Returns what it does, in a line: the first of its comments.
    pub fn summary(&self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.trim_start_matches('#').trim()
    }

    /// Checks it as the command would, with overrides, and returns it with every default spelled out.
    ///
    /// # Errors
    /// When anything in it breaks a rule; one line with the place.
    pub fn resolved(&self, overrides: &[String]) -> Result<String, Error> {
        match self.command {
            RecipeCommand::Sft => self.resolved_as::<SftConfig>(overrides),
            RecipeCommand::Rm => self.resolved_as::<RewardModelConfig>(overrides),
            RecipeCommand::Regression => self.resolved_as::<RegressionConfig>(overrides),
            RecipeCommand::Dpo => self.resolved_as::<DpoConfig>(overrides),
            RecipeCommand::Kto => self.resolved_as::<KtoConfig>(overrides),
            RecipeCommand::Spin => self.resolved_as::<SpinConfig>(overrides),
            RecipeCommand::SteerLm2 => self.resolved_as::<SteerLm2Config>(overrides),
            RecipeCommand::Distill => self.resolved_as::<DistillConfig>(overrides),
            RecipeCommand::Ppo => self.resolved_as::<PpoConfig>(overrides),
            RecipeCommand::Constitution => self.resolved_as::<ConstitutionConfig>(overrides),
        }
    }

    fn resolved_as<T: Config>(&self, overrides: &[String]) -> Result<String, Error> {
        let name = format!("{}.toml", self.name);
        let folder = std::path::Path::new(".");
        Ok(to_toml(&parse::<T>(&name, self.text.into(), folder, overrides)?))
    }
}

impl RecipeCommand {
    /// Returns its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Rm => "rm",
            Self::Regression => "regression",
            Self::Dpo => "dpo",
            Self::Kto => "kto",
            Self::Spin => "spin",
            Self::SteerLm2 => "steerlm2",
            Self::Distill => "distill",
            Self::Ppo => "ppo",
            Self::Constitution => "constitution",
        }
    }
}

/// There is no recipe of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no recipe {name:?}, did you mean {near:?}? `rollforge recipes` lists them all")]
pub struct UnknownRecipe {
    name: String,
    near: &'static str,
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_a_recipe_that_can_be_used() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        let stem =
            |path: std::path::PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        let entries = fs::read_dir(folder).unwrap().map(|entry| stem(entry.unwrap().path()));
        let names = RECIPES.iter().map(|recipe| recipe.name.to_owned());
        assert_eq!(entries.collect::<BTreeSet<_>>(), names.collect::<BTreeSet<_>>());
        for recipe in RECIPES {
            recipe.resolved(&[]).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn every_recipe_says_what_it_does_and_how_it_is_started() {
        for Recipe { name, command, text } in RECIPES {
            let recipe = Recipe::find(name).unwrap();
            let summary = recipe.summary();
            assert!(summary.ends_with('.') && summary.len() <= 90, "{summary}");
            let command = format!("#   rollforge {} --config {name}.toml", command.name());
            assert_eq!(text.lines().nth(2), Some(command.as_str()));
            assert!(text.contains(&format!("\noutput_dir = \"runs/{name}\"\n")), "{name}");
        }
    }

    #[test]
    fn a_name_that_is_nearly_one_is_suggested() {
        let said = Recipe::find("drgrpo").unwrap_err().to_string();
        assert!(said.contains("did you mean \"dr-grpo\"?"), "{said}");
    }

    #[test]
    fn the_habits_of_the_field_are_what_the_recipes_say() {
        let has = |name: &str, lines: &[&str]| {
            let resolved = Recipe::find(name).unwrap().resolved(&[]).unwrap();
            for line in lines {
                assert!(resolved.lines().any(|other| other == *line), "{name}: {line}\n{resolved}");
            }
        };
        has("ppo-rlhf", &["epochs = 4", "gae_lambda = 0.95", "kl_coef = 0.05"]);
        has("ppo-reasoning", &["epochs = 1", "gae_lambda = 1.0"]);
        has("dapo", &["clip_range = 0.2", "clip_range_high = 0.28"]);
        has("gspo", &["policy_loss = \"gspo\"", "clip_range = 0.0003"]);
        has("reinforce", &["policy_loss = \"reinforce\"", "advantage = \"rloo\""]);
        has("ppo-async", &["mode = \"async\"", "apply = \"always\""]);
    }
}
