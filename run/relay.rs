//! What a run has to say, on its way to the thread that started it.
//!
//! The trainer has a thread of its own, which nobody can end from outside. Whoever started the run therefore never waits
//! for it without looking at its pulse: a trainer that hangs is left behind, and the error names what it hangs in.

use std::time::Duration;

use anyhow::{Result, bail};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::{Metrics, Observer, heartbeat::Heartbeat};

/// An observer's call.
enum Call {
    Start(String, u64),
    Step(u64, Metrics),
    Note(String),
    Finish,
}

/// The trainer's end: an observer that passes everything on.
pub(super) struct Relay(Sender<Call>);

/// The end of whoever started the run.
pub(super) struct Relayed(Receiver<Call>);

/// Makes both ends.
pub(super) fn relay() -> (Relay, Relayed) {
    let (sender, receiver) = unbounded();
    (Relay(sender), Relayed(receiver))
}

impl Relay {
    fn pass_on(&self, call: Call) {
        // Nobody listens any more: the trainer was given up.
        drop(self.0.send(call));
    }
}

impl Observer for Relay {
    fn start(&mut self, stage: &str, total: u64) {
        self.pass_on(Call::Start(stage.to_owned(), total));
    }

    fn step(&mut self, step: u64, metrics: &Metrics) {
        self.pass_on(Call::Step(step, metrics.clone()));
    }

    fn note(&mut self, line: &str) {
        self.pass_on(Call::Note(line.to_owned()));
    }

    fn finish(&mut self) {
        self.pass_on(Call::Finish);
    }
}

impl Relayed {
    /// Lets an observer hear everything until the relay is gone.
    ///
    /// # Errors
    /// When the trainer gives no sign of life until the deadline.
    pub(super) fn tell(
        &self,
        observer: &mut dyn Observer,
        heartbeat: &Heartbeat,
        deadline: Duration,
    ) -> Result<()> {
        loop {
            let left = heartbeat.left(deadline);
            match self.0.recv_timeout(left) {
                Ok(Call::Start(stage, total)) => observer.start(&stage, total),
                Ok(Call::Step(step, metrics)) => observer.step(step, &metrics),
                Ok(Call::Note(line)) => observer.note(&line),
                Ok(Call::Finish) => observer.finish(),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if heartbeat.left(deadline).is_zero() => bail!(
                    "the run waited {:.1} s for a sign of life of the trainer (deadlines.trainer_seconds): {}",
                    deadline.as_secs_f64(),
                    heartbeat.describe()
                ),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what it hears.
    #[derive(Default)]
    struct Heard(Vec<String>);

    impl Observer for Heard {
        fn start(&mut self, stage: &str, total: u64) {
            self.0.push(format!("start {stage} {total}"));
        }
        fn step(&mut self, step: u64, metrics: &Metrics) {
            self.0.push(format!("step {step} {:?}", metrics.get("loss")));
        }
        fn note(&mut self, line: &str) {
            self.0.push(line.to_owned());
        }
        fn finish(&mut self) {
            self.0.push("finish".into());
        }
    }

    #[test]
    fn an_observer_hears_everything_in_order_until_the_trainer_is_done() {
        let ((mut relay, relayed), heart) = (relay(), Heartbeat::new("work"));
        let trainer = std::thread::spawn(move || {
            relay.start("ppo", 2);
            relay.note("a word");
            relay.step(1, &Metrics::new().with("loss", 0.5));
            relay.finish();
        });
        let mut heard = Heard::default();
        relayed.tell(&mut heard, &heart, Duration::from_secs(60)).unwrap();
        trainer.join().unwrap();
        assert_eq!(heard.0, ["start ppo 2", "a word", "step 1 Some(0.5)", "finish"]);
    }

    #[test]
    fn a_trainer_without_a_sign_of_life_is_given_up_by_name() {
        let ((relay, relayed), heart) = (relay(), Heartbeat::new("update of iteration 3"));
        let mut heard = Heard::default();
        let error = relayed.tell(&mut heard, &heart, Duration::from_millis(1)).unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with("the run waited 0.0 s for a sign of life of the trainer"),
            "{said}"
        );
        assert!(said.contains("at update of iteration 3 for"), "{said}");
        drop(relay);
    }
}
