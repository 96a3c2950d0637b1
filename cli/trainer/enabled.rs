//! The trainer's answers.

use std::{process::ExitCode, time::Instant};

use anyhow::Result;

use crate::{
    cli::{
        annotate, bench, demo,
        opening::OpeningArguments,
        output::{note, print},
        report,
        row_pass::RowPassArguments,
        serve_rm, signals, teach,
    },
    config::{
        DistillConfig, DpoConfig, EvalConfig, KtoConfig, PpoConfig, RegressionConfig,
        RewardModelConfig, SftConfig, SpinConfig, SteerLm2Config,
    },
    engine::EngineDtype,
    model::Model,
    rollout::Dtype,
    run::{
        self, AnnotateOptions, Launch, Progress, RewardServer, RewardServerOptions, RowPass,
        RunDirectory, Scale,
        bench::{PpoBench, TrainBench},
        demo::{DemoOptions, Thresholds},
        eval::EvalReport,
    },
    trainer::{
        batch::PackedBatch,
        config::Device,
        learner::LogprobOptions,
        torch::{self, ModelOptions, libtorch},
    },
};

/// Runs the stage and says what it came to.
pub(in crate::cli) fn sft(config: &SftConfig, launch: Launch<'_>) -> Result<Vec<String>> {
    let outcome = run::sft(config, launch)?;
    let mut lines = vec![format!("policy: {}", outcome.policy.display())];
    let held_out = outcome.evaluation.map(|evaluation| evaluation.perplexity());
    lines.extend(held_out.map(|perplexity| format!("held-out perplexity: {perplexity:.3}")));
    Ok(lines)
}

/// Runs the stage and says what it came to.
pub(in crate::cli) fn reward_model(
    config: &RewardModelConfig,
    launch: Launch<'_>,
) -> Result<Vec<String>> {
    let outcome = run::reward_model(config, launch)?;
    Ok(vec![
        format!("reward model: {}", outcome.reward_model.display()),
        format!("accuracy: {:.3}", outcome.evaluation.accuracy),
    ])
}

/// Runs the stage and says what it came to.
pub(in crate::cli) fn regression(
    config: &RegressionConfig,
    launch: Launch<'_>,
) -> Result<Vec<String>> {
    let outcome = run::regression(config, launch)?;
    let mut lines = vec![format!("reward model: {}", outcome.reward_model.display())];
    let held_out = outcome.evaluation.map(|evaluation| evaluation.loss);
    lines.extend(held_out.map(|loss| format!("held-out mean squared error: {loss:.3}")));
    Ok(lines)
}

/// Runs the stage and says what it came to.
pub(in crate::cli) fn dpo(config: &DpoConfig, launch: Launch<'_>) -> Result<Vec<String>> {
    let outcome = run::dpo(config, launch)?;
    let mut lines = vec![format!("policy: {}", outcome.policy.display())];
    let held_out = outcome.evaluation.map(|evaluation| evaluation.accuracy);
    lines.extend(held_out.map(|accuracy| format!("held-out accuracy: {accuracy:.3}")));
    Ok(lines)
}

/// Runs the stage and says what it came to.
pub(in crate::cli) fn kto(config: &KtoConfig, launch: Launch<'_>) -> Result<Vec<String>> {
    let outcome = run::kto(config, launch)?;
    let mut lines = vec![format!("policy: {}", outcome.policy.display())];
    let held_out = outcome.evaluation.and_then(|evaluation| evaluation.margin());
    lines.extend(held_out.map(|margin| format!("held-out margin: {margin:.3}")));
    Ok(lines)
}

/// Runs the stage and says what it came to.
pub(in crate::cli) fn steerlm2(config: &SteerLm2Config, launch: Launch<'_>) -> Result<Vec<String>> {
    let outcome = run::steerlm2(config, launch)?;
    let mut lines = vec![format!("policy: {}", outcome.policy.display())];
    let held_out = outcome.evaluation.map(|evaluation| evaluation.distance);
    lines.extend(held_out.map(|distance| format!("held-out distance: {distance:.3}")));
    Ok(lines)
}

/// Runs the stage and says what it came to.
pub(in crate::cli) fn distill(config: &DistillConfig, launch: Launch<'_>) -> Result<Vec<String>> {
    let outcome = run::distill(config, launch)?;
    let mut lines = vec![format!("policy: {}", outcome.policy.display())];
    let held_out = outcome.evaluation.map(|evaluation| evaluation.kd_loss);
    lines.extend(held_out.map(|distance| format!("held-out divergence: {distance:.4}")));
    Ok(lines)
}

/// Runs the iterations and says what they came to.
pub(in crate::cli) fn spin(config: &SpinConfig, launch: Launch<'_>) -> Result<Vec<String>> {
    let outcome = run::spin(config, launch)?;
    Ok(vec![format!("policy: {}", outcome.policy.display())])
}

/// Runs the stage and says what it came to.
pub(in crate::cli) fn ppo(config: &PpoConfig, launch: Launch<'_>) -> Result<Vec<String>> {
    let outcome = run::ppo(config, launch)?;
    Ok(vec![format!("policy: {}", outcome.policy.display())])
}

/// Measures a training step.
pub(in crate::cli) fn bench_train(arguments: &bench::train::Arguments) -> Result<ExitCode> {
    let common = &arguments.common;
    let options = TrainBench {
        model: common.model.subject(),
        dtype: common.dtype.into(),
        rows: arguments.rows,
        length: arguments.length,
        threads: common.threads,
        turns: common.turns.turns(),
    };
    common.output.report(|progress| run::bench::train(&options, progress))
}

/// Measures whole iterations of PPO.
pub(in crate::cli) fn bench_ppo(arguments: &bench::ppo::Arguments) -> Result<ExitCode> {
    let common = &arguments.common;
    let options = PpoBench {
        model: common.model.subject(),
        dtype: common.dtype.into(),
        prompts: arguments.prompts,
        prompt: arguments.prompt,
        new: arguments.new,
        epochs: arguments.epochs,
        overrides: arguments.overrides.clone(),
        threads: common.threads,
        turns: common.turns.turns(),
    };
    common.output.report(|progress| run::bench::ppo(&options, progress))
}

/// Runs the demo, prints what it came to, and fails if a threshold is missed.
pub(in crate::cli) fn demo(arguments: &demo::Arguments) -> Result<ExitCode> {
    let started = Instant::now();
    let _lock = RunDirectory::claim(&arguments.output_dir)?;
    let options = DemoOptions {
        folder: arguments.output_dir.clone(),
        seed: arguments.seed,
        threads: arguments.threads,
        ppo_overrides: Vec::new(),
        stop: signals::listen()?,
    };
    let outcome = run::demo::demo(&options, &mut Progress::new(arguments.quiet))?;
    report::print_demo(&outcome, started.elapsed())?;
    let missed = outcome.missed(&Thresholds::default());
    for line in &missed {
        note(format_args!("error: {line}"));
    }
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row_pass(arguments: &RowPassArguments) -> RowPass {
    RowPass {
        model: arguments.model.clone(),
        input: arguments.input.clone(),
        output: arguments.output.clone(),
        replace: arguments.force,
        max_tokens: arguments.max_tokens,
        truncate: arguments.truncate,
        append_eos: !arguments.no_eos,
        micro_batch_tokens: arguments.micro_batch_tokens,
        device: arguments.device,
        dtype: arguments.dtype.into(),
        threads: arguments.threads,
    }
}

/// Rates a data set and says what came of it.
pub(in crate::cli) fn annotate(arguments: &annotate::Arguments) -> Result<ExitCode> {
    let annotate::Arguments { rows, step, range, rerate } = arguments;
    let scale = Scale { step: *step, range: *range };
    let options = AnnotateOptions { rows: row_pass(rows), rerate: *rerate, scale };
    let annotated = run::annotate(&options, &mut Progress::new(rows.quiet))?;
    if annotated.report.used < annotated.report.rows {
        note(&annotated.report);
    }
    let means = annotated.means.iter().map(|(name, mean)| format!("{name} {mean:.2}"));
    let means = means.collect::<Vec<_>>().join(", ");
    let used = annotated.report.used;
    print(format_args!("{}: {used} rows rated; means: {means}", rows.output.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Serves a reward model until the process ends.
pub(in crate::cli) fn serve_rm(
    arguments: &serve_rm::Arguments,
    token: Option<String>,
) -> Result<ExitCode> {
    let server = RewardServer::start(RewardServerOptions {
        token,
        model: arguments.model.clone(),
        standardize: arguments.standardize,
        weights: arguments.weights.iter().cloned().collect(),
        listen: arguments.listen,
        device: arguments.device,
        dtype: arguments.dtype.into(),
        threads: arguments.threads,
    })?;
    print(server.url())?;
    server.wait();
    Ok(ExitCode::SUCCESS)
}

/// Measures what the configuration asks for.
pub(in crate::cli) fn eval(
    config: &EvalConfig,
    progress: &mut dyn FnMut(&str),
) -> Result<EvalReport> {
    run::eval::eval(config, progress)
}

/// Returns the log-probability of each token but the first, for each text.
pub(in crate::cli) fn logprobs(
    model: &Model,
    arguments: &OpeningArguments,
    texts: &[Vec<u32>],
) -> Result<Vec<Vec<f32>>> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    libtorch::set_threads(if arguments.threads == 0 { cores() } else { arguments.threads })?;
    let compute = match arguments.dtype() {
        EngineDtype::Bf16 => Dtype::Bf16,
        _ => Dtype::F32,
    };
    let options = ModelOptions {
        device: Device::Cpu,
        compute,
        activation_checkpointing: false,
        frozen: true,
        autograd: false,
    };
    let weights = model.checkpoint.weights(Dtype::F32)?;
    let policy = torch::Model::load(model.spec(), &weights, &options)?;
    let score = |ids: &Vec<u32>| {
        let mut batch = PackedBatch::default();
        batch.push(ids, &vec![true; ids.len()]);
        Ok(policy.logprobs(&batch, &LogprobOptions::default())?.logprobs)
    };
    texts.iter().map(score).collect()
}

/// Writes a teacher's answers.
pub(in crate::cli) fn teach(arguments: &teach::Arguments) -> Result<ExitCode> {
    let teach::Arguments { rows, top_k } = arguments;
    let options = run::TeachOptions { rows: row_pass(rows), top_k: *top_k };
    let report = run::teach(&options, &mut Progress::new(rows.quiet))?;
    if report.used < report.rows {
        note(&report);
    }
    print(format_args!(
        "{}: {} rows, {top_k} answers to each token",
        rows.output.display(),
        report.used
    ))?;
    Ok(ExitCode::SUCCESS)
}
