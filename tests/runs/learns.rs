//! Every algorithm learns, and from data that say nothing none does.

use crate::learning::{CASES, CONTROL, LEARNED, world};

#[test]
fn every_algorithm_learns_and_nothing_from_what_has_nothing_to_do_with_the_prompt() {
    let world = world();
    let mut missed = Vec::new();
    for case in CASES {
        let learned = case.run(&world);
        if learned.end < LEARNED || learned.control > CONTROL {
            missed.push((case.name, learned.start, learned.end, learned.control));
        }
    }
    assert!(missed.is_empty(), "start, end, control: {missed:?}");
}
