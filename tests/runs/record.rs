//! What a run writes down.

use rollforge::run::record::{EntryKind, Journal};

use crate::world::World;

#[test]
fn a_run_keeps_what_it_said_and_when_it_did_what() {
    let world = World::new("0123456789");
    world.digits("same", |prompt, _| prompt);
    world.ppo_of_digits("run", "model", "same", "ppo.iterations = 2\n");
    let entries = Journal::read(&world.path("run")).unwrap();
    let said: Vec<_> = entries.iter().map(|entry| (entry.step, entry.kind)).collect();
    assert_eq!(said, [(0, EntryKind::Note), (2, EntryKind::Checkpoint)], "{entries:?}");
}
