use super::*;

fn rule_broken_by(toml: &str) -> String {
    toml::from_str::<PpoOptions>(toml).unwrap().validate().unwrap_err().to_string()
}

#[test]
fn a_preset_gives_way_to_what_is_spelled_out() {
    let options: PpoOptions = toml::from_str("preset = 'reasoning'\nepochs = 2").unwrap();
    assert_eq!((options.epochs(), options.gae_lambda()), (2, 1.0));
    assert_eq!(PpoOptions::default().epochs(), 4);
    assert_eq!(PpoOptions::default().gae_lambda(), 0.95);
}

#[test]
fn a_presets_loss_and_estimator_combine_with_what_is_spelled_out() {
    let read = |toml: &str| toml::from_str::<PpoOptions>(toml).unwrap();
    let grpo = read("preset = 'grpo'\nadvantage = 'rloo'\nkl_coef = 0.04");
    assert_eq!(grpo.advantage(), AdvantageEstimator::Rloo);
    assert_eq!(grpo.loss_normalization(), Normalization::SeqMeanTokenMean);
    assert_eq!((grpo.kl_in(), grpo.kl_estimator()), (KlPlace::Loss, KlEstimator::K3));
    assert!(grpo.has_reference() && !grpo.has_critic() && !grpo.whiten_advantages());
    assert!(!read("preset = 'dr_grpo'").group_std());
    assert_eq!(read("preset = 'dapo'").clip_range_high(), 0.28);
    let gspo = read("preset = 'gspo'");
    assert_eq!((gspo.policy_loss(), gspo.clip_range()), (PolicyLossKind::Gspo, 3e-4));
    assert!(read("preset = 'reinforce_pp'").whiten_advantages());
    let ppo = PpoOptions::default();
    assert!(ppo.has_critic() && ppo.has_reference() && ppo.whiten_advantages());
}

#[test]
fn resolved_options_read_back_as_themselves() {
    let resolved = PpoOptions::default().resolved(1e-5);
    let text = toml::to_string(&resolved).unwrap();
    assert_eq!(toml::from_str::<PpoOptions>(&text).unwrap(), resolved);
    assert!(text.contains("gae_lambda = 0.95") && text.contains("critic_lr = 0.00001"));
}

#[test]
fn contradictions_are_refused_by_name() {
    assert_eq!(
        rule_broken_by("kl_in = 'loss'"),
        "kl_estimator must be abs, k2 or k3 where kl_in is `loss`, got k1"
    );
    assert_eq!(
        rule_broken_by("prompts_per_iteration = 4\nmini_batches = 8"),
        "mini_batches must be at most prompts_per_iteration x samples_per_prompt, got 8"
    );
    assert_eq!(
        rule_broken_by("kl_target = 6.0\nkl_coef = 0.0"),
        "kl_coef must be above 0 where kl_target is given, got 0"
    );
    assert_eq!(
        rule_broken_by("kl_target = 6.0\nkl_horizon = 10.0"),
        "kl_horizon must be at least prompts_per_iteration x samples_per_prompt where kl_target is given, got 10"
    );
    assert_eq!(
        rule_broken_by("samples_per_prompt = 4294967297"),
        "prompts_per_iteration must be at most 1048576 / samples_per_prompt, got 64"
    );
    assert_eq!(
        rule_broken_by("dual_clip = 0.5"),
        "dual_clip must be above 1, or 0 for off, got 0.5"
    );
    assert_eq!(
        rule_broken_by("old_logprobs = 'rollout'\ncorrection.apply = 'always'"),
        "correction.apply must be on_mismatch where old_logprobs is `rollout`, got always"
    );
    assert_eq!(
        rule_broken_by("preset = 'grpo'"),
        "samples_per_prompt must be at least 2 where advantage compares a prompt's completions, got 1"
    );
    assert_eq!(
        rule_broken_by("advantage = 'rloo'\nsamples_per_prompt = 2\ngamma = 0.9"),
        "gamma must be 1 where advantage compares a prompt's completions, got 0.9"
    );
    assert_eq!(
        rule_broken_by("advantage = 'reinforce'\ncritic_warmup_iterations = 1"),
        "critic_warmup_iterations must be 0 unless advantage is `gae`, for there is no critic, got 1"
    );
    assert_eq!(
        rule_broken_by("policy_loss = 'cispo'\ndual_clip = 3.0"),
        "dual_clip must be 0 unless policy_loss is `ppo` or `gspo`, got 3"
    );
    let pairs = "preset = 'online_dpo'\nsamples_per_prompt = 2\n";
    for (key, more) in [("epochs", "epochs = 2"), ("mini_batches", "mini_batches = 2")] {
        let said = rule_broken_by(&format!("{pairs}{more}"));
        assert_eq!(said, format!("{key} must be 1 where advantage is `online_dpo`, got 2"));
    }
    assert_eq!(rule_broken_by("gamma = nan"), "gamma must be from 0 to 1, got NaN");
}
