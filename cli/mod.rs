//! The command line: reads arguments, calls the library, prints. Holds no algorithm.
//!
//! Results go to the standard output, progress and errors to the standard error. An error is one line, `error: ...`,
//! and a status other than 0: 1 for what went wrong, 2 for arguments that cannot be understood, 130 and 143 for a run that
//! SIGINT (Ctrl-C) or SIGTERM stopped.

mod annotate;
mod backend_name;
mod bench;
mod config;
mod constitution;
mod dashboard;
mod data;
mod demo;
mod doctor;
mod engine;
mod eval;
mod generate;
mod named_number;
mod new_model;
mod opening;
mod output;
mod plan;
mod ppo;
mod prompts;
mod recipes;
#[cfg(feature = "libtorch")]
mod report;
mod report_page;
mod row_pass;
mod sampling;
mod score;
mod serve_rm;
mod signals;
mod teach;
mod trainer;
mod training;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::run::Stopped;
use training::TrainingArguments;

/// Trains language models from human feedback: generation and training in one process.
#[derive(Debug, Parser)]
#[command(name = "rollforge", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    /// Fine-tune a language model on texts, conversations, or prompts with completions
    Sft(TrainingArguments),
    /// Train a reward model on pairs of a chosen and a rejected completion
    Rm(TrainingArguments),
    /// Train a reward model that rates several attributes
    Regression(TrainingArguments),
    /// Align a language model with pairs of a chosen and a rejected completion: DPO, IPO, RPO, ORPO, SimPO
    Dpo(TrainingArguments),
    /// Align a language model with completions that are each good or bad: KTO
    Kto(TrainingArguments),
    /// Fine-tune a language model against its own answers: SPIN
    Spin(TrainingArguments),
    /// Train an attribute-conditioned model on several responses to each prompt: SteerLM 2.0
    #[command(name = "steerlm2")]
    SteerLm2(TrainingArguments),
    /// Teach a language model to say what another one would say: knowledge distillation
    Distill(TrainingArguments),
    Ppo(ppo::Arguments),
    Plan(plan::Arguments),
    Generate(generate::Arguments),
    Score(score::Arguments),
    ServeRm(serve_rm::Arguments),
    Annotate(annotate::Arguments),
    Teach(teach::Arguments),
    Eval(eval::Arguments),
    Constitution(constitution::Arguments),
    NewModel(new_model::Arguments),
    Engine(engine::Arguments),
    Bench(bench::Arguments),
    Config(config::Arguments),
    Data(data::Arguments),
    Recipes(recipes::Arguments),
    Watch(watch::Arguments),
    Report(report_page::Arguments),
    Doctor(doctor::Arguments),
}

/// Runs the program and returns its exit status.
pub fn main() -> ExitCode {
    // Arguments that cannot be understood end the program here, with status 2.
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(status) => status,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Stopped>() {
            Some(stopped) => {
                output::note(format_args!("{stopped}"));
                ExitCode::from(stopped.by.exit_status())
            }
            None => {
                output::print_error(&error);
                ExitCode::FAILURE
            }
        },
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Sft(arguments) => training::run(&arguments, Vec::new(), trainer::sft),
        Command::Rm(arguments) => training::run(&arguments, Vec::new(), trainer::reward_model),
        Command::Regression(arguments) => {
            training::run(&arguments, Vec::new(), trainer::regression)
        }
        Command::Dpo(arguments) => training::run(&arguments, Vec::new(), trainer::dpo),
        Command::Kto(arguments) => training::run(&arguments, Vec::new(), trainer::kto),
        Command::Spin(arguments) => training::run(&arguments, Vec::new(), trainer::spin),
        Command::SteerLm2(arguments) => training::run(&arguments, Vec::new(), trainer::steerlm2),
        Command::Distill(arguments) => training::run(&arguments, Vec::new(), trainer::distill),
        Command::Ppo(arguments) => ppo::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Score(arguments) => score::run(&arguments),
        Command::Annotate(arguments) => annotate::run(&arguments),
        Command::ServeRm(arguments) => serve_rm::run(&arguments),
        Command::Teach(arguments) => teach::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Constitution(arguments) => constitution::run(&arguments),
        Command::NewModel(arguments) => new_model::run(&arguments),
        Command::Engine(arguments) => engine::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Data(arguments) => data::run(&arguments),
        Command::Recipes(arguments) => recipes::run(&arguments),
        Command::Watch(arguments) => watch::run(&arguments),
        Command::Report(arguments) => report_page::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
    }
}
