use super::super::{Entropy, LogprobOptions, Model, ModelOptions, testing};
use crate::{
    model::Head,
    rollout::Dtype,
    trainer::{batch::PackedBatch, loss},
};

const ALL: LogprobOptions =
    LogprobOptions { temperature: 1.0, entropy: Entropy::Measure, top: false };

/// Each sequence of a batch as a batch of its own.
fn alone(batch: &PackedBatch) -> Vec<PackedBatch> {
    let mut start = 0;
    let one = |&length: &usize| {
        let range = start..start + length;
        start += length;
        let selected =
            batch.selected.iter().filter(|row| range.contains(row)).map(|row| row - range.start);
        PackedBatch {
            tokens: batch.tokens[range.clone()].to_vec(),
            lengths: vec![length],
            selected: selected.collect(),
            ..PackedBatch::default()
        }
    };
    batch.lengths.iter().map(one).collect()
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} and {b}");
    }
}

#[test]
fn a_packed_sequence_scores_as_it_does_alone() {
    for spec in testing::specs().into_iter().filter(|spec| spec.head == Head::LanguageModel) {
        let (model, batch) =
            (testing::model(&spec, ModelOptions::default()), testing::batch(&spec));
        let packed = model.logprobs(&batch, &ALL).unwrap();
        assert_eq!(packed.logprobs.len(), batch.selected.len());
        let parts = alone(&batch)
            .iter()
            .map(|batch| model.logprobs(batch, &ALL).unwrap())
            .collect::<Vec<_>>();
        close(
            &packed.logprobs,
            &parts.iter().flat_map(|part| part.logprobs.clone()).collect::<Vec<_>>(),
            1e-5,
        );
        close(
            &packed.entropy,
            &parts.iter().flat_map(|part| part.entropy.clone()).collect::<Vec<_>>(),
            1e-5,
        );
    }
}

#[test]
fn values_and_scores_are_those_of_the_sequence_alone() {
    let spec = testing::spec().with_head(Head::Score);
    let (model, batch) = (testing::model(&spec, ModelOptions::default()), testing::batch(&spec));
    let parts = alone(&batch);
    let values: Vec<f32> = parts.iter().flat_map(|batch| model.values(batch).unwrap()).collect();
    close(&model.values(&batch).unwrap(), &values, 1e-5);
    let scores: Vec<f32> = parts.iter().flat_map(|batch| model.scores(batch).unwrap()).collect();
    close(&model.scores(&batch).unwrap(), &scores, 1e-5);
}

#[test]
fn a_token_does_not_see_what_follows() {
    for spec in testing::specs().into_iter().filter(|spec| spec.head == Head::LanguageModel) {
        let model = testing::model(&spec, ModelOptions::default());
        let (mut tokens, mask) =
            (vec![3, 1, 4, 1, 5, 9, 2], [false, true, true, true, false, false, false]);
        let before = model.logprobs(&PackedBatch::pack([(&tokens[..], &mask[..])]), &ALL).unwrap();
        tokens[5] = 6;
        let after = model.logprobs(&PackedBatch::pack([(&tokens[..], &mask[..])]), &ALL).unwrap();
        assert_eq!(before, after);
    }
}

#[test]
fn a_sliding_window_forgets() {
    let spec = &testing::specs()[1];
    let window = spec.sliding_window.unwrap();
    let model = testing::model(spec, ModelOptions::default());
    // Two layers see twice as far back, less the token itself each time.
    let reach = 2 * (window - 1);
    let score = |first: u32| {
        let mut tokens = vec![7; reach + 3];
        tokens[0] = first;
        let mask: Vec<bool> = (0..tokens.len()).map(|t| t + 2 >= tokens.len()).collect();
        model.logprobs(&PackedBatch::pack([(&tokens[..], &mask[..])]), &ALL).unwrap().logprobs
    };
    let (one, other) = (score(1), score(2));
    assert_ne!(one[0], other[0], "the first token is the last one seen");
    assert_eq!(one[1], other[1], "the first token is out of reach");
}

#[test]
fn log_probs_are_those_of_the_logits_divided_by_the_temperature() {
    let spec = testing::spec();
    let model = testing::model(&spec, ModelOptions::default());
    // Every token as the second one of the same sequence: their log-probs are one whole distribution.
    let distribution = |temperature| -> Vec<f64> {
        let options = LogprobOptions { temperature, entropy: Entropy::Skip, top: false };
        let each = (0..spec.vocab_size as u32).map(|token| {
            let batch = PackedBatch::pack([(&[5, token][..], &[false, true][..])]);
            f64::from(model.logprobs(&batch, &options).unwrap().logprobs[0])
        });
        each.collect()
    };
    let (raw, scaled) = (distribution(1.0), distribution(0.7));
    for (a, b) in loss::log_softmax(&raw, 0.7).iter().zip(&scaled) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
    let options = LogprobOptions { temperature: 0.7, entropy: Entropy::Measure, top: false };
    let batch = PackedBatch::pack([(&[5, 0][..], &[false, true][..])]);
    let entropy = model.logprobs(&batch, &options).unwrap().entropy[0];
    assert!((f64::from(entropy) - loss::entropy(&raw, 0.7).0).abs() < 1e-5);
}

#[test]
fn bf16_agrees_with_f32_to_bf16_precision() {
    let spec = testing::spec();
    let batch = testing::batch(&spec);
    let exact = testing::model(&spec, ModelOptions::default()).logprobs(&batch, &ALL).unwrap();
    for frozen in [false, true] {
        let options = ModelOptions { compute: Dtype::Bf16, frozen, ..ModelOptions::default() };
        let rough = testing::model(&spec, options).logprobs(&batch, &ALL).unwrap();
        close(&rough.logprobs, &exact.logprobs, 0.05);
        assert_ne!(rough, exact);
    }
}

#[test]
fn nothing_selected_gives_nothing() {
    let spec = testing::spec();
    let model = testing::model(&spec, ModelOptions::default());
    let batch = PackedBatch::pack([(&[1, 2, 3][..], &[false; 3][..])]);
    assert!(model.logprobs(&batch, &ALL).unwrap().logprobs.is_empty());
    let empty = PackedBatch::default();
    assert!(model.logprobs(&empty, &ALL).unwrap().logprobs.is_empty());
}

#[test]
fn bad_input_is_refused_in_a_sentence() {
    let spec = testing::spec();
    let model = testing::model(&spec, ModelOptions::default());
    let score = |tokens: &[u32]| {
        let mask = vec![true; tokens.len()];
        model.logprobs(&PackedBatch::pack([(tokens, &mask[..])]), &ALL).unwrap_err().to_string()
    };
    assert_eq!(score(&[1, 23]), "token must be below the vocabulary's 23, got 23");
    assert_eq!(
        score(&[0; 65]),
        "sequence length must be at most the model's context of 64, got 65"
    );
    let batch = testing::batch(&spec);
    let cold = LogprobOptions { temperature: 0.0, ..ALL };
    let error = model.logprobs(&batch, &cold).unwrap_err().to_string();
    assert_eq!(error, "temperature must be positive, got 0");
    let error = model.values(&batch).unwrap_err().to_string();
    assert_eq!(error, "head must be Score for this pass, got LanguageModel");
    let half = ModelOptions { compute: Dtype::F16, ..ModelOptions::default() };
    let error = Model::load(&spec, &testing::weights(&spec, 1), &half).unwrap_err().to_string();
    assert_eq!(error, "compute must be f32 or bf16, got f16");
}

#[test]
fn weights_that_are_not_the_models_are_refused_by_name() {
    let spec = testing::spec();
    let other = spec.with_head(Head::Score);
    let error =
        Model::load(&other, &testing::weights(&spec, 1), &ModelOptions::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the weights do not cover the model: missing score.weight; extra lm_head.weight"
    );
    let name = "model.layers.1.mlp.up_proj.weight";
    let error = Model::load(
        &spec,
        &testing::weights_with(&spec, name, 17, f32::NAN),
        &ModelOptions::default(),
    );
    let error = error.unwrap_err().to_string();
    assert_eq!(error, format!("weight of {name} must be finite, got NaN at element 17"));
}
