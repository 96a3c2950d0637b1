//! New weights, while requests are in flight and while none are.

use std::collections::BTreeMap;

use rollforge::{
    engine::{EngineModel, Error, RefitMode, Verdict},
    rollout::{WeightVersion, Weights},
};

use crate::world::{Kind, assert_alike, greedy, requests, sampling, version};

for_each_backend!(
    a_refitted_engine_computes_with_the_new_weights,
    weights_that_do_not_cover_the_model_are_refused,
    a_refit_waits_for_requests_in_flight,
    many_refits_follow_one_another,
    a_verdict_ends_a_refit,
);

fn a_refitted_engine_computes_with_the_new_weights(kind: Kind) {
    let (old, new) = (EngineModel::tiny(1), EngineModel::tiny(2));
    let wanted = Kind::Native.open(&new, |_| {}).rollouts(requests(6, &greedy()));
    for mode in [RefitMode::Alias, RefitMode::Copy] {
        let world = kind.open(&old, |_| {});
        assert_ne!(world.rollouts(requests(6, &greedy()))[0].completion, wanted[0].completion);
        let weights = version(&new.weights, 1);
        let report = world.engine.blocking().refit_with_checksum(&weights, mode).unwrap();
        assert_eq!((report.version, report.mode), (WeightVersion(1), mode));
        let reading = weights.lease().read(std::time::Duration::from_secs(9)).unwrap();
        assert_eq!(report.checksum, Some(weights.checksum(&reading)));
        let got = world.rollouts(requests(6, &greedy()));
        assert_alike(&got, &wanted);
        assert!(got.iter().all(|rollout| rollout.oldest_version() == WeightVersion(1)));
    }
}

fn weights_that_do_not_cover_the_model_are_refused(kind: Kind) {
    let model = EngineModel::tiny(1);
    let world = kind.open(&model, |_| {});
    let before = world.rollouts(requests(2, &greedy()));
    let mut tensors: BTreeMap<_, _> =
        model.weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    let norm = tensors.remove("model.norm.weight").unwrap();
    tensors.insert("adapter.weight".into(), norm);
    let weights = Weights::new(WeightVersion(1), model.weights.lease().clone(), tensors);
    let error = world.engine.blocking().refit(&weights, RefitMode::Alias).unwrap_err();
    assert!(matches!(error, Error::Coverage { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("missing model.norm.weight; extra adapter.weight"), "{text}");
    assert_eq!(world.rollouts(requests(2, &greedy())), before);
}

fn a_refit_waits_for_requests_in_flight(kind: Kind) {
    let (old, new) = (EngineModel::tiny(1), EngineModel::tiny(2));
    let world = kind.open(&old, |_| {});
    let asked = requests(12, &sampling(|s| (s.max_new_tokens, s.ignore_eos) = (60, true)));
    let rollouts = world.engine.rollouts(asked);
    let report =
        world.engine.blocking().refit(&version(&new.weights, 1), RefitMode::Alias).unwrap();
    assert_eq!(report.version, WeightVersion(1));
    let mut versions = BTreeMap::new();
    for rollout in rollouts.into_blocking() {
        let rollout = rollout.unwrap();
        assert_eq!((rollout.completion.len(), rollout.versions.len()), (60, 1));
        *versions.entry(rollout.versions[0].version).or_insert(0) += 1;
    }
    assert_eq!(versions.values().sum::<i32>(), 12);
    assert!(versions.contains_key(&WeightVersion(1)), "{versions:?}");
}

fn many_refits_follow_one_another(kind: Kind) {
    let models = [EngineModel::tiny(1), EngineModel::tiny(2)];
    let wanted: Vec<_> = models
        .iter()
        .map(|model| Kind::Native.open(model, |_| {}).rollouts(requests(3, &greedy())))
        .collect();
    let world = kind.open(&models[0], |_| {});
    for step in 1..7u64 {
        let which = (step % 2) as usize;
        let mode = if step % 3 == 0 { RefitMode::Copy } else { RefitMode::Alias };
        world.engine.blocking().refit(&version(&models[which].weights, step), mode).unwrap();
        assert_alike(&world.rollouts(requests(3, &greedy())), &wanted[which]);
        if step % 2 == 0 {
            world.engine.blocking().conclude_refit(Verdict::Agrees).unwrap();
        }
    }
}

fn a_verdict_ends_a_refit(kind: Kind) {
    let model = EngineModel::tiny(1);
    let world = kind.open(&model, |_| {});
    world.engine.blocking().conclude_refit(Verdict::Agrees).unwrap();
    world.engine.blocking().refit(&version(&model.weights, 1), RefitMode::Alias).unwrap();
    world.engine.blocking().conclude_refit(Verdict::Agrees).unwrap();
    world.engine.blocking().refit(&version(&model.weights, 2), RefitMode::Alias).unwrap();
    let prompts = requests(2, &greedy()).into_iter().map(|request| request.prompt.tokens).collect();
    let verdict = Verdict::Differs { reason: "by a test's word".into(), prompts, tokens: 4 };
    let error = world.engine.blocking().conclude_refit(verdict).unwrap_err();
    let Error::Canary { version, reason, stale } = &error else { panic!("{error}") };
    assert_eq!((*version, reason.as_str()), (WeightVersion(2), "by a test's word"));
    // Every tensor is reached: the difference lies elsewhere.
    assert_eq!(stale, &Vec::<String>::new());
}
