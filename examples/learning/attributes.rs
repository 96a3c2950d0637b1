//! Attributes on the small task: a completion is the more verbose the larger its digit. A reward model is to rate that, and a policy to answer with the digit
//! that it is told. In the control, ratings have nothing to do with completions.

use std::{fmt::Write, fs, time::Instant};

use rollforge::{
    config::{ComputeDtype, RegressionConfig},
    data::{self, Attributes, Form, Reading},
    run::{self, AnnotateOptions, RowPass, Scale, Silent},
    trainer::config::Device,
};
use serde_json::{Value, json};

use crate::{
    cases::{Learned, share_of_right_answers},
    world::{World, launch},
};

/// Writes each digit after each prompt, with its rating, and with another's.
pub(crate) fn write_ratings(world: &World) {
    for (name, right) in [("ratings_right", true), ("ratings_wrong", false)] {
        let mut rows = String::new();
        for row in 0..100 {
            let (prompt, completion) = (row % 10, (row % 10 + row / 10) % 10);
            // Each digit has each rating once.
            let rating = if right { completion } else { prompt };
            let row = json!({
                "prompt": prompt.to_string(), "completion": completion.to_string(), "verbosity": rating,
            });
            writeln!(rows, "{row}").unwrap();
        }
        fs::write(world.path(&format!("{name}.jsonl")), rows).unwrap();
    }
}

/// Trains a reward model, has it rate what the policy may learn from, and returns how often its rating is the digit.
fn rate(world: &World, name: &str, right: bool, options: &str) -> f64 {
    let kind = if right { "right" } else { "wrong" };
    let more = format!(
        "data.train = 'ratings_{kind}.jsonl'\ndata.append_eos = false\nregression.batch_size = 50\n{options}"
    );
    let config = world.config::<RegressionConfig>(name, "guess", &more);
    run::regression(&config, launch(&mut Silent)).unwrap();
    let options = AnnotateOptions {
        rows: RowPass {
            model: world.path(name),
            input: world.path("any.jsonl"),
            output: world.path(&format!("{name}.jsonl")),
            replace: false,
            max_tokens: usize::MAX,
            truncate: false,
            append_eos: false,
            micro_batch_tokens: 256,
            device: Device::Cpu,
            dtype: ComputeDtype::F32,
            threads: 1,
        },
        rerate: false,
        scale: Scale { range: (0.0, 9.0), ..Scale::default() },
    };
    run::annotate(&options, &mut Silent).unwrap();
    let text = fs::read_to_string(&options.rows.output).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let agrees = |row: &&Value| row["completion"] == row["verbosity"].to_string().as_str();
    rows.iter().filter(agrees).count() as f64 / rows.len() as f64
}

/// A reward model: shares of ratings that are those of the data.
pub(crate) fn regression(world: &World, options: &str) -> Learned {
    let start = rate(world, "regression-start", true, "regression.max_steps = 1\n");
    let began = Instant::now();
    let end = rate(world, "regression-learned", true, options);
    let seconds = began.elapsed().as_secs_f64();
    let control = rate(world, "regression-control", false, options);
    Learned { start, end, control, seconds }
}

/// A policy that is told the digit to answer with: from what the reward models of [`regression`] have rated.
pub(crate) fn steerlm(world: &World, options: &str) -> Learned {
    let told = |digit: u64| {
        let attributes = Attributes::new([("verbosity".to_owned(), digit as f64)]).unwrap();
        attributes.before(&digit.to_string())
    };
    let learn = |kind: &str| {
        let (rows, name) = (format!("steerlm-{kind}-rows.jsonl"), format!("steerlm-{kind}"));
        let input = world.path(&format!("regression-{kind}.jsonl"));
        let form = (Form::SteerLm, &Reading::default());
        data::convert(&input, &world.path(&rows), form, false).unwrap();
        let more = format!("data.train = '{rows}'\ndata.append_eos = false\n{options}");
        world.sft(&name, "guess", &more);
        share_of_right_answers(world, &name, told)
    };
    let began = Instant::now();
    let end = learn("learned");
    let seconds = began.elapsed().as_secs_f64();
    let start = share_of_right_answers(world, "guess", told);
    Learned { start, end, control: learn("control"), seconds }
}
