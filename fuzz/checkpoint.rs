//! What a run goes on from.

use std::{fs, path::Path};

use rollforge::{
    rollout::{Order, QueueOptions, Rollout, restore},
    run::{Checkpoints, read_queue},
};

use super::{folder_with, put, refused, two_texts};

/// A checkpoint's manifest; after a zero byte, the one other file that is there, named `a`.
pub fn manifest(data: &[u8]) {
    let Some((manifest, file)) = two_texts(data) else { return };
    let run = folder_with("LATEST", b"checkpoints/step_1\n");
    let folder = run.path().join("checkpoints/step_1");
    fs::create_dir_all(&folder).expect("a folder can be made");
    put(&folder, "a", file.unwrap_or_default().as_bytes());
    let said = open(run.path(), manifest);
    // Nobody comes upon a seal by chance, but the error tells it.
    let seals = said.as_deref().and_then(|said| said.split_once("its seal must be "));
    if let Some((must_be, is)) = seals.and_then(|(_, seals)| seals.split_once(", is ")) {
        let is = is.split(';').next().unwrap_or_default();
        open(run.path(), &manifest.replacen(&format!("{is:?}"), &format!("{must_be:?}"), 1));
    }
}

/// Returns what is said against it.
fn open(run: &Path, manifest: &str) -> Option<String> {
    put(&run.join("checkpoints/step_1"), "manifest.json", manifest.as_bytes());
    let error = Checkpoints::of(run).open(None).err()?;
    refused(&error);
    Some(error.to_string())
}

/// A checkpoint's `queue.jsonl`. What is accepted goes on as a queue.
pub fn queue(data: &[u8]) {
    let folder = folder_with("queue.jsonl", data);
    let snapshot = match read_queue::<Rollout>(&folder.path().join("queue.jsonl")) {
        Err(error) => return refused(format!("{error:#}")),
        Ok(snapshot) => snapshot,
    };
    for order in [Order::Ticket, Order::Arrival] {
        let options = QueueOptions { batch: 2, max_staleness: 1, order, ..QueueOptions::default() };
        let (issuer, mut consumer) = match restore(options, snapshot.clone()) {
            Err(error) => return refused(error),
            Ok(queue) => queue,
        };
        while let Some(permit) = issuer.try_issue().expect("the trainer is there") {
            drop(permit);
            if consumer.try_take().is_some() {
                consumer.advance(consumer.version().next());
                break;
            }
            if consumer.state().dropped > snapshot.dropped + 8 {
                break;
            }
        }
    }
}
