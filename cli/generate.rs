//! `rollforge generate`: completions of prompts from the command line, a file, or one after the other.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::anyhow;
use serde::Serialize;

use super::{
    named_number::named_number,
    opening::OpeningArguments,
    output::print,
    prompts::{self, Wording},
    sampling::SamplingArguments,
};
use crate::{
    data::Attributes,
    engine::{Engine, Request, SamplingParams, StreamEvent},
    model::Model,
    rollout::{Prompt, PromptId, Rollout, StopReason},
};

/// Continue prompts with a model
///
/// Without --prompt and --input, every line of the standard input is a prompt of its own, answered as soon as it is
/// read.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    engine: OpeningArguments,
    /// A prompt; may be given several times
    #[arg(long, short, value_name = "TEXT", conflicts_with = "input")]
    prompt: Vec<String>,
    /// A file of prompts: JSON Lines or Parquet with a column `prompt`, or text with a prompt per line (.txt)
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Put each text into the model's chat template, as what a user says
    #[arg(long)]
    chat: bool,
    /// Tell each prompt what its answer is to be like, as SteerLM's training data do: helpfulness=4,toxicity=0
    #[arg(long, value_name = "NAME=NUMBER,...", value_delimiter = ',', value_parser = named_number)]
    attributes: Vec<(String, f64)>,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// Print a JSON object per completion: token ids, text, log-probs, why it ended, the weights' version
    #[arg(long)]
    json: bool,
}

/// One line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    prompt_id: u64,
    sample: u32,
    prompt_token_ids: &'a [u32],
    text: &'a str,
    token_ids: &'a [u32],
    /// Under the distribution sampled from (nats).
    logprobs: &'a [f32],
    /// Under the model's own distribution (nats).
    raw_logprobs: &'a [f32],
    stop_reason: &'a StopReason,
    weight_version: u64,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let model = arguments.engine.model()?;
    let wording = arguments.wording()?;
    let given = match &arguments.input {
        Some(path) => prompts::read(&model, path, &wording)?,
        None => {
            let texts = arguments.prompt.iter();
            texts.map(|text| prompts::encode(&model, text, &wording)).collect::<Result<_, _>>()?
        }
    };
    let sampling = Arc::new(arguments.sampling.params(&model.generation, arguments.json));
    let session =
        Session { engine: arguments.engine.start()?, model, sampling, arguments, wording };
    if given.is_empty() {
        session.answer_lines()?
    } else {
        session.answer_all(given)?
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn wording(&self) -> anyhow::Result<Wording> {
        let given = (!self.attributes.is_empty()).then(|| Attributes::new(self.attributes.clone()));
        let attributes = given.transpose().map_err(|why| anyhow!("--attributes: {why}"))?;
        Ok(Wording { chat: self.chat, attributes })
    }
}

struct Session<'a> {
    engine: Engine,
    model: Model,
    sampling: Arc<SamplingParams>,
    arguments: &'a Arguments,
    wording: Wording,
}

impl Session<'_> {
    /// Answers prompts together and prints the answers in the prompts' order.
    fn answer_all(&self, prompts: Vec<Vec<u32>>) -> anyhow::Result<()> {
        let requests: Vec<Request> =
            prompts.into_iter().zip(0..).map(|(tokens, id)| self.request(id, tokens)).collect();
        if let ([request], true) = (requests.as_slice(), self.streams()) {
            return self.stream(request.clone());
        }
        for rollout in self.engine.blocking().generate_all(requests)? {
            self.print(&rollout)?;
        }
        Ok(())
    }

    /// Answers one line of the standard input after the other.
    fn answer_lines(&self) -> anyhow::Result<()> {
        let mut lines = io::stdin().lock().lines();
        for id in 0.. {
            if io::stdin().is_terminal() {
                write!(io::stderr(), "> ")?;
            }
            let Some(line) = lines.next().transpose()? else { break };
            let request = self.request(id, prompts::encode(&self.model, &line, &self.wording)?);
            if self.streams() {
                self.stream(request)?;
                continue;
            }
            for rollout in self.engine.blocking().generate(request)? {
                self.print(&rollout)?;
            }
        }
        Ok(())
    }

    /// Says whether tokens are printed as they come: one sample, for eyes.
    fn streams(&self) -> bool {
        !self.arguments.json && self.sampling.n == 1 && io::stdout().is_terminal()
    }

    fn request(&self, id: u64, tokens: Vec<u32>) -> Request {
        let prompt = Prompt { id: PromptId(id), tokens: tokens.into() };
        Request::new(prompt, self.sampling.clone())
    }

    fn stream(&self, request: Request) -> anyhow::Result<()> {
        let mut events = self.engine.blocking().stream(request)?;
        let mut text = self.model.tokenizer()?.stream(true);
        let mut screen = io::stdout().lock();
        while let Some(event) = events.next_blocking() {
            if let StreamEvent::Token(sampled) = event? {
                write!(screen, "{}", text.push(sampled.token)?)?;
                screen.flush()?;
            }
        }
        writeln!(screen, "{}", text.finish()?)?;
        Ok(())
    }

    fn print(&self, rollout: &Rollout) -> anyhow::Result<()> {
        let text = self.engine.text(rollout)?;
        if !self.arguments.json {
            return Ok(print(text)?);
        }
        let line = Line {
            prompt_id: rollout.prompt.id.0,
            sample: rollout.sample,
            prompt_token_ids: rollout.prompt.tokens.ids(),
            text: &text,
            token_ids: &rollout.completion,
            logprobs: &rollout.rollout_logprobs,
            raw_logprobs: rollout.raw_logprobs.as_deref().unwrap_or_default(),
            stop_reason: &rollout.stop,
            weight_version: rollout.oldest_version().0,
        };
        Ok(print(serde_json::to_string(&line)?)?)
    }
}
