//! Every algorithm on one small task: a model that answers a digit with any digit is to answer with the same. And its negative
//! control: data or labels that have nothing to do with the prompt.

use std::{fmt::Write, fs, sync::Arc, time::Instant};

use rollforge::{
    config::{DistillConfig, DpoConfig, KtoConfig, PpoConfig, SpinConfig},
    engine::{Engine, EngineConfig, Request, SamplingParams},
    rollout::{Prompt, PromptId},
    run::{self, Silent, model_directory},
};

use serde_json::json;

use crate::{
    attributes,
    world::{World, launch, ppo_of_digits},
};

/// The least share of right answers after learning, and the most after the control; the model begins at about a tenth.
pub(crate) const LEARNED: f64 = 0.6;
pub(crate) const CONTROL: f64 = 0.3;

/// An algorithm, and how it is run.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// What users call it.
    pub(crate) name: &'static str,
    command: Command,
    options: &'static str,
}

#[derive(Clone, Copy)]
enum Command {
    Sft,
    Dpo,
    Kto,
    Spin,
    Distill,
    Regression,
    SteerLm,
    Ppo,
}

/// What an algorithm came to.
pub(crate) struct Learned {
    /// Shares of right answers: before, after, and after the control.
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) control: f64,
    /// Of the run that learns.
    pub(crate) seconds: f64,
}

const fn case(name: &'static str, command: Command, options: &'static str) -> Case {
    Case { name, command, options }
}

pub(crate) const CASES: [Case; 31] = [
    case("SFT", Command::Sft, "sft.epochs = 30\nsft.batch_size = 50\noptimizer.lr = 0.005\n"),
    case("DPO", Command::Dpo, ""),
    case("cDPO", Command::Dpo, "dpo.label_smoothing = 0.1\n"),
    case("robust DPO", Command::Dpo, "dpo.loss = 'robust'\ndpo.label_smoothing = 0.1\n"),
    case("IPO", Command::Dpo, "dpo.loss = 'ipo'\ndpo.beta = 0.05\ndpo.epochs = 60\n"),
    case("RPO, squared", Command::Dpo, "dpo.loss = 'rpo_sq'\n"),
    case("RPO, forward KL", Command::Dpo, "dpo.loss = 'rpo_fwd_kl'\ndpo.reward_scale = 5.0\n"),
    case("RPO, backward KL", Command::Dpo, "dpo.loss = 'rpo_bwd_kl'\ndpo.reward_scale = 5.0\n"),
    case("ORPO", Command::Dpo, "dpo.loss = 'orpo'\n"),
    case(
        "SimPO",
        Command::Dpo,
        "dpo.loss = 'simpo'\ndpo.beta = 2.0\ndpo.gamma = 4.0\ndpo.epochs = 60\n",
    ),
    case("KTO", Command::Kto, ""),
    case("SPIN", Command::Spin, ""),
    case("distillation, forward KL", Command::Distill, ""),
    case("distillation, backward KL", Command::Distill, "distill.kl = 'backward'\n"),
    case("distillation, Jensen-Shannon", Command::Distill, "distill.kl = 'js'\n"),
    case(
        "regression",
        Command::Regression,
        "regression.epochs = 100\noptimizer.lr = 0.01\nschedule.kind = 'linear'\n",
    ),
    // After the one before, whose ratings it learns from.
    case(
        "SteerLM after regression",
        Command::SteerLm,
        "sft.epochs = 150\nsft.batch_size = 50\noptimizer.lr = 0.005\nschedule.kind = 'linear'\n",
    ),
    case("PPO", Command::Ppo, "ppo.epochs = 2\nppo.iterations = 50\n"),
    case(
        "REINFORCE",
        Command::Ppo,
        "ppo.advantage = 'reinforce'\nppo.policy_loss = 'reinforce'\nppo.epochs = 1\n",
    ),
    case("REINFORCE++", Command::Ppo, "ppo.preset = 'reinforce_pp'\n"),
    case(
        "REINFORCE++-baseline",
        Command::Ppo,
        "ppo.preset = 'reinforce_pp'\nppo.advantage = 'reinforce_baseline'\n",
    ),
    case("RLOO", Command::Ppo, "ppo.preset = 'rloo'\n"),
    case("GRPO", Command::Ppo, "ppo.preset = 'grpo'\n"),
    case(
        "Dr.GRPO",
        Command::Ppo,
        "ppo.preset = 'dr_grpo'\nppo.samples_per_prompt = 8\nppo.iterations = 60\n",
    ),
    case(
        "DAPO",
        Command::Ppo,
        "ppo.preset = 'dapo'\nppo.filter_groups = true\nppo.max_refills = 3\n",
    ),
    case("GSPO", Command::Ppo, "ppo.preset = 'gspo'\n"),
    case("CISPO", Command::Ppo, "ppo.preset = 'cispo'\n"),
    case(
        "rejection sampling",
        Command::Ppo,
        "ppo.preset = 'rejection_sampling'\nppo.filter_groups = true\nppo.samples_per_prompt = 8\noptimizer.lr = 0.002\n",
    ),
    case("online DPO", Command::Ppo, "ppo.preset = 'online_dpo'\n"),
    case("on-policy distillation", Command::Ppo, "ppo.preset = 'distillation'\n"),
    case(
        "PPO, one step off",
        Command::Ppo,
        "ppo.epochs = 2\nppo.iterations = 50\nqueue.mode = 'one_step_off'\nthreads = 2\n",
    ),
];

/// Makes the model and every data file.
pub(crate) fn world() -> World {
    let world = World::of_digits();
    attributes::write_ratings(&world);
    world.digits("same", |prompt, _| prompt);
    for (name, right) in [("right", true), ("wrong", false)] {
        let (mut pairs, mut labels) = (String::new(), String::new());
        for (prompt, offset) in (0..10).flat_map(|prompt| (0..10).map(move |o| (prompt, o))) {
            // In the control each digit is better once and worse once.
            let other = (prompt + offset) % 10;
            let (chosen, rejected) =
                if right { (prompt, other) } else { (other, (other + 5) % 10) };
            if chosen == rejected {
                continue;
            }
            let pair = json!({
                "prompt": prompt.to_string(),
                "chosen": chosen.to_string(),
                "rejected": rejected.to_string(),
            });
            writeln!(pairs, "{pair}").unwrap();
            for (completion, good) in [(chosen, true), (rejected, false)] {
                let label = json!({
                    "prompt": prompt.to_string(),
                    "completion": completion.to_string(),
                    "label": good,
                });
                writeln!(labels, "{label}").unwrap();
            }
        }
        fs::write(world.path(&format!("pairs_{name}.jsonl")), pairs).unwrap();
        fs::write(world.path(&format!("labels_{name}.jsonl")), labels).unwrap();
    }
    let more = "data.train = 'same.jsonl'\ndata.append_eos = false\nsft.epochs = 30\n\
                sft.batch_size = 50\noptimizer.lr = 0.005\n";
    world.sft("teacher", "guess", more);
    world
}

impl Case {
    /// Runs the algorithm and its control.
    pub(crate) fn run(&self, world: &World) -> Learned {
        match self.command {
            Command::Regression => return attributes::regression(world, self.options),
            Command::SteerLm => return attributes::steerlm(world, self.options),
            _ => {}
        }
        let folder = |what: &str| format!("{}-{what}", self.name.replace([' ', ','], "-"));
        let (learned, control) = (folder("learned"), folder("control"));
        let began = Instant::now();
        self.train(world, &learned, true);
        let seconds = began.elapsed().as_secs_f64();
        self.train(world, &control, false);
        let right = |name: &str| share_of_right_answers(world, name, |digit| digit.to_string());
        let last = |name: &str| match self.command {
            Command::Spin => format!("{name}/iteration_3/dpo"),
            _ => name.to_owned(),
        };
        Learned {
            start: right("guess"),
            end: right(&last(&learned)),
            control: right(&last(&control)),
            seconds,
        }
    }

    fn train(&self, world: &World, name: &str, right: bool) {
        let (kind, rows) = if right { ("right", "same") } else { ("wrong", "any") };
        let observer = &mut Silent;
        let options = self.options;
        match self.command {
            Command::Sft => {
                let more =
                    format!("data.train = '{rows}.jsonl'\ndata.append_eos = false\n{options}");
                world.sft(name, "guess", &more);
            }
            Command::Dpo => {
                let defaults =
                    [("dpo.batch_size", "90"), ("dpo.epochs", "30"), ("optimizer.lr", "0.01")];
                let more = format!(
                    "data.train = 'pairs_{kind}.jsonl'\ndata.append_eos = false\n{}",
                    with_defaults(options, &defaults)
                );
                run::dpo(&world.config::<DpoConfig>(name, "guess", &more), launch(observer))
                    .unwrap();
            }
            Command::Kto => {
                let more = format!(
                    "data.train = 'labels_{kind}.jsonl'\ndata.append_eos = false\n\
                     kto.batch_size = 180\nkto.epochs = 40\noptimizer.lr = 0.01\n{options}"
                );
                run::kto(&world.config::<KtoConfig>(name, "guess", &more), launch(observer))
                    .unwrap();
            }
            Command::Distill => {
                // The texts say nothing of the task; the control's teacher does not know it either.
                let teacher = if right { "teacher" } else { "guess" };
                let more = format!(
                    "model.teacher = '{teacher}'\ndata.train = 'any.jsonl'\n\
                     data.append_eos = false\ndistill.batch_size = 50\ndistill.epochs = 40\n\
                     optimizer.lr = 0.005\n{options}"
                );
                run::distill(
                    &world.config::<DistillConfig>(name, "guess", &more),
                    launch(observer),
                )
                .unwrap();
            }
            Command::Regression | Command::SteerLm => unreachable!("they have a file of their own"),
            Command::Ppo => {
                let defaults = [
                    ("ppo.iterations", "100"),
                    ("ppo.samples_per_prompt", "4"),
                    ("optimizer.lr", "0.003"),
                ];
                let more = with_defaults(options, &defaults);
                let text = match (options.contains("distillation"), right) {
                    (false, _) => ppo_of_digits(rows, &more),
                    // The teacher of the control does not know the task, either.
                    (true, true) => of_a_teacher("teacher", &more),
                    (true, false) => of_a_teacher("guess", &more),
                };
                run::ppo(&world.config::<PpoConfig>(name, "guess", &text), launch(observer))
                    .unwrap();
            }
            Command::Spin => {
                let more = format!(
                    "data.train = '{rows}.jsonl'\ndata.append_eos = false\n\
                     sampling.max_new_tokens = 1\ndpo.batch_size = 100\ndpo.epochs = 40\n\
                     optimizer.lr = 0.005\ndpo.beta = 0.5\n{options}"
                );
                run::spin(&world.config::<SpinConfig>(name, "guess", &more), launch(observer))
                    .unwrap();
            }
        }
    }
}

/// Distils a teacher into what the policy says itself; there is no other reward.
fn of_a_teacher(teacher: &str, more: &str) -> String {
    let text = ppo_of_digits("any", more);
    let judge = "reward = { kind = 'position_match', column = 'answer' }";
    text.replace(judge, "reward = { kind = 'none' }") + &format!("model.reference = '{teacher}'\n")
}

/// Puts options before defaults, which give way to them.
fn with_defaults(options: &str, defaults: &[(&str, &str)]) -> String {
    let missing = defaults.iter().filter(|(key, _)| !options.contains(&format!("{key} =")));
    missing.fold(options.to_owned(), |all, (key, value)| format!("{all}{key} = {value}\n"))
}

/// Samples a hundred answers to the prompt of each digit, and returns how many of them are that digit.
pub(crate) fn share_of_right_answers(
    world: &World,
    name: &str,
    prompt: impl Fn(u64) -> String,
) -> f64 {
    let config = EngineConfig { threads: 1, ..EngineConfig::default() };
    let model = model_directory(&world.path(name));
    let engine = Engine::builder().config(config).model_dir(model).build().unwrap();
    let sampling = Arc::new(SamplingParams {
        max_new_tokens: 1,
        n: 100,
        seed: 9,
        ..SamplingParams::default()
    });
    let request = |digit: u64| {
        let tokens = engine.encode(&prompt(digit)).unwrap().tokens;
        Request::new(Prompt { id: PromptId(digit), tokens }, sampling.clone())
    };
    let rollouts = engine.blocking().generate_all((0..10).map(request).collect()).unwrap();
    let is_right = |rollout: &&rollforge::rollout::Rollout| {
        engine.text(rollout).unwrap() == rollout.prompt.id.0.to_string()
    };
    rollouts.iter().filter(is_right).count() as f64 / rollouts.len() as f64
}
