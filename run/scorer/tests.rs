use std::{path::Path, sync::mpsc};

use anyhow::bail;
use serde_json::Map;

use super::*;
use crate::{
    data::Place,
    rollout::{Prompt, PromptId, Rollout, StopReason, Ticket},
    run::reward::{Asked, Completion, Source},
};

/// Scores by the ticket, and tells the test what it is asked.
struct Told {
    asked: Asked,
    told: mpsc::Sender<Vec<u64>>,
}

impl Source for Told {
    fn asked(&self) -> Asked {
        self.asked
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        let tickets: Vec<u64> =
            completions.iter().map(|completion| completion.rollout.prompt.id.0).collect();
        if tickets.contains(&13) {
            bail!("told to fail");
        }
        assert!(!tickets.contains(&17), "told to panic");
        if tickets.contains(&19) {
            std::thread::sleep(Duration::from_secs(600));
        }
        let scores = tickets.iter().map(|&ticket| Reward::Score(ticket as f32)).collect();
        self.told.send(tickets).ok();
        Ok(scores)
    }
}

fn scorer(sources: &[(&str, f64, Asked)], seconds: f64) -> (Scorer, mpsc::Receiver<Vec<u64>>) {
    let (told, asked) = mpsc::channel();
    let sources = sources.iter().map(|&(name, weight, asked)| NamedSource {
        name: name.into(),
        weight,
        source: Box::new(Told { asked, told: told.clone() }),
    });
    let prompt = PromptSample {
        tokens: vec![1].into(),
        extra: Map::new(),
        place: Place { file: Path::new("a.jsonl").into(), line: 1 },
    };
    let text = "output_dir = 'a'\nmodel.path = 'b'\ndata.train = 'c'\nreward.kind = 'none'\n\
                ppo.value_init = 'policy'\n";
    let config = crate::config::parse("test", text.into(), Path::new("/"), &[]).unwrap();
    let deadline = Duration::from_secs_f64(seconds);
    let options = ScorerOptions { deadline, faults: Faults::of(&config) };
    (Scorer::start(sources.collect(), &vec![prompt].into(), options).unwrap(), asked)
}

/// Prompts with two samples each.
fn prompts<const N: usize>(tickets: [u64; N]) -> Vec<Arc<Answered>> {
    let rollout = |ticket, sample| Rollout {
        prompt: Prompt { id: PromptId(ticket), tokens: vec![1].into() },
        sample,
        completion: vec![2],
        rollout_logprobs: vec![-1.0],
        raw_logprobs: None,
        stop: StopReason::Length,
        versions: Vec::new(),
    };
    let answered = |ticket| Answered {
        ticket: Ticket(ticket),
        prompt: 0,
        rollouts: vec![rollout(ticket, 0), rollout(ticket, 1)],
    };
    tickets.map(|ticket| Arc::new(answered(ticket))).to_vec()
}

/// What a source was asked next. The limit only keeps a source that never is from hanging the tests.
fn next(asked: &mpsc::Receiver<Vec<u64>>) -> Vec<u64> {
    asked.recv_timeout(Duration::from_secs(60)).unwrap()
}

fn said(scorer: &mut Scorer, tickets: [u64; 1]) -> String {
    format!("{:#}", scorer.score(3, &prompts(tickets)).unwrap_err())
}

#[test]
fn what_is_finished_is_scored_at_once_and_not_again() {
    let (mut scorer, asked) = scorer(&[("told", 1.0, Asked::AtOnce)], 60.0);
    let batch = prompts([4, 5, 6]);
    scorer.finished().tell(&batch[2]);
    // Nobody has asked for the iteration's rewards.
    assert_eq!(next(&asked), [6, 6]);
    let (rewards, metrics) = scorer.score(1, &batch).unwrap();
    assert_eq!(next(&asked), [4, 4, 5, 5]);
    assert_eq!(rewards, [4.0, 4.0, 5.0, 5.0, 6.0, 6.0].map(Reward::Score));
    assert_eq!(metrics.get("reward/told/mean"), Some(5.0));
    // Nor is it known any more.
    scorer.score(2, &batch[2..]).unwrap();
    assert_eq!(next(&asked), [6, 6]);
}

#[test]
fn one_that_wants_whole_iterations_gets_them() {
    let sources = [("told", 1.0, Asked::WithTheBatch)];
    let (mut scorer, asked) = scorer(&sources, 60.0);
    let batch = prompts([4, 5]);
    batch.iter().for_each(|one| scorer.finished().tell(one));
    scorer.score(1, &batch).unwrap();
    assert_eq!(next(&asked), [4, 4, 5, 5]);
    assert!(asked.try_recv().is_err());
}

#[test]
fn a_failure_of_early_work_is_told_when_the_rewards_are_asked_for() {
    let (mut scorer, _asked) = scorer(&[("told", 1.0, Asked::AtOnce)], 60.0);
    scorer.finished().tell(&prompts([13])[0]);
    assert_eq!(said(&mut scorer, [4]), "the reward source failed in iteration 3: told to fail");
}

#[test]
fn of_several_the_one_that_fails_is_named() {
    let both = [("a", 1.0, Asked::AtOnce), ("b", 1.0, Asked::WithTheBatch)];
    let said = |ticket, seconds| said(&mut scorer(&both, seconds).0, [ticket]);
    assert_eq!(said(13, 60.0), "the reward source \"a\" failed in iteration 3: told to fail");
    assert_eq!(said(17, 60.0), "the reward source \"a\" panicked in iteration 3: told to panic");
    let late = said(19, 0.1);
    assert!(
        late.contains("s for the reward source \"a\" to score 2 completions of iteration 3"),
        "{late}"
    );
}
