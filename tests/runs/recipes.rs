//! The shipped recipes, each for two steps on a small model.

use std::fs;

use rollforge::{
    config::{
        self, Config, ConstitutionConfig, DistillConfig, DpoConfig, KtoConfig, PpoConfig, RECIPES,
        Recipe, RecipeCommand, RegressionConfig, RewardModelConfig, SftConfig, SpinConfig,
        SteerLm2Config,
    },
    run::{self, Silent, Stop, constitution::constitution},
};

use crate::world::{World, launch};

/// Reads a recipe with everything that depends on the size of model and data set made small.
fn small<T: Config>(world: &World, recipe: &Recipe, data: &str, more: &[&str]) -> T {
    let mut overrides = vec![
        "threads=1".to_owned(),
        "model.path=guess".to_owned(),
        format!("data.train={data}.jsonl"),
        "data.max_tokens=16".to_owned(),
        "checkpoint.every=0".to_owned(),
    ];
    if recipe.command != RecipeCommand::Spin {
        overrides.push(format!("data.eval={data}.jsonl"));
    }
    overrides.extend(more.iter().map(ToString::to_string));
    let read = config::parse(recipe.name, recipe.text.into(), world.0.path(), &overrides);
    read.unwrap_or_else(|error| panic!("{error}"))
}

fn run(world: &World, recipe: &Recipe) {
    match recipe.command {
        RecipeCommand::Sft => {
            let more = ["sft.max_steps=2", "sft.batch_size=4", "sft.eval_every=2"];
            run::sft(&small::<SftConfig>(world, recipe, "right", &more), launch(&mut Silent))
                .map(drop)
        }
        RecipeCommand::Rm => {
            let more = [
                "reward_model.max_steps=2",
                "reward_model.batch_size=4",
                "reward_model.eval_every=2",
            ];
            let config: RewardModelConfig = small(world, recipe, "pairs", &more);
            run::reward_model(&config, launch(&mut Silent)).map(drop)
        }
        RecipeCommand::Regression => {
            let more =
                ["regression.max_steps=2", "regression.batch_size=4", "regression.eval_every=2"];
            let config: RegressionConfig = small(world, recipe, "ratings", &more);
            run::regression(&config, launch(&mut Silent)).map(drop)
        }
        RecipeCommand::Dpo => {
            let more = ["dpo.max_steps=2", "dpo.batch_size=4", "dpo.eval_every=2"];
            run::dpo(&small::<DpoConfig>(world, recipe, "pairs", &more), launch(&mut Silent))
                .map(drop)
        }
        RecipeCommand::Kto => {
            let more = ["kto.max_steps=2", "kto.batch_size=4", "kto.eval_every=2"];
            run::kto(&small::<KtoConfig>(world, recipe, "labels", &more), launch(&mut Silent))
                .map(drop)
        }
        RecipeCommand::SteerLm2 => {
            let more = ["steerlm2.max_steps=2", "steerlm2.batch_size=4", "steerlm2.eval_every=2"];
            let config: SteerLm2Config = small(world, recipe, "responses", &more);
            run::steerlm2(&config, launch(&mut Silent)).map(drop)
        }
        RecipeCommand::Distill => {
            let more = [
                "model.teacher=model",
                "distill.max_steps=2",
                "distill.batch_size=4",
                "distill.eval_every=2",
                "distill.top_k=5",
            ];
            let config: DistillConfig = small(world, recipe, "right", &more);
            run::distill(&config, launch(&mut Silent)).map(drop)
        }
        RecipeCommand::Spin => {
            let more = [
                "spin.iterations=1",
                "dpo.max_steps=2",
                "dpo.batch_size=4",
                "sampling.max_new_tokens=2",
            ];
            run::spin(&small::<SpinConfig>(world, recipe, "right", &more), launch(&mut Silent))
                .map(drop)
        }
        RecipeCommand::Constitution => {
            // The recipe's own do not fit the context of so small a model.
            let short = "constitution.principles=[{critique = 'Flaw?', revision = 'Again.'}]";
            let small = [
                short,
                "threads=1",
                "model.path=guess",
                "data.prompts=right.jsonl",
                "sampling.max_new_tokens=4",
            ];
            let small = small.map(String::from);
            let read = config::parse(recipe.name, recipe.text.into(), world.0.path(), &small);
            let config: ConstitutionConfig = read.unwrap_or_else(|error| panic!("{error}"));
            constitution(&config, &mut Silent, (&Stop::default(), false)).map(drop)
        }
        RecipeCommand::Ppo => {
            let mut more = vec![
                "sampling.max_new_tokens=2",
                "ppo.iterations=2",
                "ppo.prompts_per_iteration=8",
            ];
            if recipe.text.contains("critic_warmup_iterations") {
                more.push("ppo.critic_warmup_iterations=1");
            }
            if recipe.text.contains("\nreference = ") {
                more.push("model.reference=model");
            }
            if recipe.text.contains("[queue]") {
                more.push("threads=2");
            }
            run::ppo(&small::<PpoConfig>(world, recipe, "right", &more), launch(&mut Silent))
                .map(drop)
        }
    }
    .unwrap_or_else(|error| panic!("{}: {error:#}", recipe.name));
}

#[test]
fn every_recipe_runs() {
    let world = World::of_digits();
    world.digits("right", |prompt, _| prompt);
    let pair = |digit: usize| {
        let other = (digit + 1) % 10;
        format!("{{\"prompt\": \"{digit}\", \"chosen\": \"{digit}\", \"rejected\": \"{other}\"}}\n")
    };
    fs::write(world.path("pairs.jsonl"), (0..10).map(pair).collect::<String>()).unwrap();
    let label = |digit: usize| {
        format!("{{\"prompt\": \"{digit}\", \"completion\": \"1\", \"label\": {}}}\n", digit == 1)
    };
    fs::write(world.path("labels.jsonl"), (0..10).map(label).collect::<String>()).unwrap();
    let rating = |digit: usize| {
        let rest = if digit.is_multiple_of(2) { ", \"verbosity\": 1" } else { "" };
        format!(
            "{{\"prompt\": \"{digit}\", \"completion\": \"1\", \"helpfulness\": {digit}{rest}}}\n"
        )
    };
    fs::write(world.path("ratings.jsonl"), (0..10).map(rating).collect::<String>()).unwrap();
    fs::write(world.path("responses.jsonl"), crate::steerlm2::rows(10, true)).unwrap();
    // `rm` comes before those that read what it leaves.
    for recipe in RECIPES {
        run(&world, recipe);
        let run = match recipe.command {
            RecipeCommand::Constitution => continue,
            RecipeCommand::Spin => "runs/spin/iteration_1/dpo".to_owned(),
            _ => format!("runs/{}", recipe.name),
        };
        let lines = world.metrics(&run);
        assert_eq!(lines.len(), 2, "{}", recipe.name);
    }
}
