use std::path::Path;

use crate::config::{Error, PpoConfig, RewardKind, forbidden_change, parse, to_toml};

const BASE: &str = "output_dir = 'run'\nmodel.path = 'base'\ndata.train = 'a.jsonl'\n\
                    ppo.preset = 'grpo'\nppo.samples_per_prompt = 2\n";

fn read(reward: &str) -> Result<PpoConfig, Error> {
    parse("run.toml", format!("{BASE}{reward}"), Path::new("/base"), &[])
}

fn refusal(reward: &str) -> String {
    let said = read(reward).unwrap_err().to_string();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

const TWO: &str = "[[reward.sources]]\nkind = 'numeric'\ncolumn = 'answer'\n\
                   [[reward.sources]]\nkind = 'length'\nname = 'short'\nweight = 1\ncache_tokens = 8\n";

#[test]
fn one_source_is_a_table_and_several_are_a_list() {
    let config =
        read("reward = { kind = 'exact_match', column = 'answer', weight = -2 }\n").unwrap();
    let [only] = &config.reward.sources[..] else { panic!("{:?}", config.reward) };
    assert_eq!((only.name.as_str(), only.weight), ("exact_match", -2.0));
    let config = read(TWO).unwrap();
    let names: Vec<_> = config.reward.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["numeric", "short"]);
    let RewardKind::Length { max_tokens, .. } = config.reward.sources[1].kind else { panic!() };
    assert_eq!(max_tokens, Some(config.sampling.max_new_tokens), "spelled out");
}

#[test]
fn what_is_printed_reads_back() {
    for reward in [
        TWO,
        "reward.kind = 'none'\n",
        "[reward]\nkind = 'model'\npath = 'rm'\nstandardize = true\nweight = 0.5\n",
        "[reward]\nkind = 'regex'\npattern = '(\\d+)\"'\ntake = 'last'\n",
        "[reward]\nkind = 'format'\ntemplate = '<a>{}</a>'\ncontains = ['x']\n",
        "[reward]\nkind = 'http'\nurl = 'http://127.0.0.1:7071/score'\ntoken_env = 'TOKEN'\n",
        "[reward]\nkind = 'program'\ncommand = ['python3', 'judge.py']\ndirectory = 'judges'\n",
        "[reward]\nkind = 'json_schema'\nschema_file = 's.json'\n",
        "[reward]\nkind = 'json_schema'\nschema = { type = 'object', properties = { a = { minimum = 1 } } }\n",
        "[[reward.sources]]\nkind = 'json_schema'\n[reward.sources.schema]\ntype = 'object'\n\
         [[reward.sources]]\nkind = 'none'\n",
    ] {
        let config = read(reward).unwrap();
        let text = to_toml(&config);
        let again: PpoConfig = parse("again.toml", text.clone(), Path::new("/"), &[]).unwrap();
        assert_eq!(again, config, "{text}");
    }
}

#[test]
fn paths_are_those_of_the_configurations_folder() {
    let config = read(
        "[[reward.sources]]\nkind = 'model'\npath = 'rm'\n\
         [[reward.sources]]\nkind = 'json_schema'\nschema_file = 's.json'\n",
    )
    .unwrap();
    let inputs: Vec<_> = config.reward.inputs().collect();
    assert_eq!(inputs, [Path::new("/base/rm"), Path::new("/base/s.json")]);
    assert_eq!(config.reward.critic().unwrap().0, Path::new("/base/rm"));
}

#[test]
fn what_is_wrong_with_a_source_has_its_line() {
    let second = "run.toml:9:";
    let said = refusal("[reward]\nkind = 'exact'\n");
    assert!(said.starts_with("run.toml:6:") && said.contains("unknown value \"exact\""), "{said}");
    assert!(refusal("[reward]\ncolumn = 'a'\n").contains("missing key \"kind\" in [reward]"));
    let said = refusal("[reward]\nkind = 'regex'\n");
    assert!(said.contains("missing key \"pattern\" in [reward]"), "{said}");
    let said = refusal("[reward]\nkind = 'exact_match'\ncolumn = 'a'\nwieght = 2\n");
    assert_eq!(said, "run.toml:9:1: unknown key \"wieght\" in [reward], did you mean \"weight\"?");
    let said = refusal("[reward]\nkind = 'none'\nsources = []\n");
    assert!(said.contains("unknown key \"kind\" in [reward], expected sources"), "{said}");
    let said = refusal("[reward]\nsources = []\n");
    assert!(said.contains("reward.sources must be at least one source, got none"), "{said}");

    let list = |second: &str| format!("[[reward.sources]]\nkind = 'none'\n\n{second}\n");
    for (source, expected) in [
        ("[[reward.sources]]\nkind = 'nothing'", "reward.sources[1]: unknown value \"nothing\""),
        ("[[reward.sources]]\nkind = 'numeric'", "missing key \"column\" in [reward.sources[1]]"),
        ("[[reward.sources]]\nkind = 'none'", "reward.sources[1].name must be another than"),
    ] {
        let said = refusal(&list(source));
        assert!(said.starts_with(second) && said.contains(expected), "{said}");
    }
    let said = refusal(&list("[[reward.sources]]\nkind = 'numeric'\ncolumn = 'a'\ntolerence = 1"));
    assert!(
        said.starts_with("run.toml:12:1: unknown key \"tolerence\" in [reward.sources[1]], did"),
        "{said}"
    );
    let said = refusal(&list("[[reward.sources]]\nkind = 'numeric'\ncolumn = 'a'\nweight = 'x'"));
    assert!(said.starts_with(second) && said.contains("weight: must be a number"), "{said}");
    let said = refusal(&list("[[reward.sources]]\nkind = 'regex'\npattern = '('"));
    assert!(
        said.starts_with("run.toml:11:1: reward.sources[1].pattern must be a regular"),
        "{said}"
    );
}

#[test]
fn options_are_checked_and_named() {
    for (reward, said) in [
        ("kind = 'none', name = 'a/b'", "reward.name must be of letters, digits, _ and -"),
        ("kind = 'none', name = ''", "reward.name must be of letters"),
        ("kind = 'none', weight = nan", "reward.weight must be finite, got NaN"),
        ("kind = 'none', column = 'a'", "unknown key \"column\" in [reward]"),
        ("kind = 'regex', pattern = 'a', take = 'lst'", "did you mean \"last\"?"),
        ("kind = 'regex', pattern = '(?<=a)b'", "look-around"),
        (
            "kind = 'numeric', column = 'a', tolerance = -1.0",
            "reward.tolerance must be a number from 0 up",
        ),
        ("kind = 'json_schema'", "reward.schema must be given, or schema_file, got neither"),
        ("kind = 'json_schema', schema = {}, schema_file = 'a'", "schema_file, got both"),
        ("kind = 'format'", "reward.template must be given, or contains, got neither"),
        ("kind = 'format', template = ' {} '", "more than {} and white space"),
        ("kind = 'format', contains = ['']", "reward.contains must be a list of texts"),
        ("kind = 'length'", "reward.cache_tokens must be given, or target_tokens, got neither"),
        ("kind = 'length', cache_tokens = 4, target_tokens = 4", "got both"),
        (
            "kind = 'length', cache_tokens = 0",
            "reward.cache_tokens must be from 1 to max_tokens (128)",
        ),
        ("kind = 'length', cache_tokens = 9, max_tokens = 8", "from 1 to max_tokens (8), got 9"),
        ("kind = 'length', target_tokens = 0", "reward.target_tokens must be at least 1"),
        ("kind = 'http', url = 'https://a'", "reward.url must be http://HOST:PORT/PATH"),
        ("kind = 'http', url = 'http://a', batch = 0", "reward.batch must be at least 1"),
        ("kind = 'http', url = 'http://a', retrys = 0", "did you mean \"retries\"?"),
        (
            "kind = 'program', command = []",
            "reward.command must be a program and its arguments, got []",
        ),
        (
            "kind = 'program', command = ['a'], deadline_seconds = 0.0",
            "reward.deadline_seconds must be above 0",
        ),
        ("kind = 'model', path = 'rm', weights = { a = inf }", "reward.weights must be finite"),
        (
            "kind = 'model', path = 'rm', standardize = true, weights = { a = 1 }",
            "reward.standardize must be false where weights are given",
        ),
        ("kind = 'program', command = ['a'], retries = -1", "reward: invalid value: integer `-1`"),
        ("kind = 'length', target_tokens = 4, max_tokens = 8", "reward.max_tokens must be unset"),
    ] {
        let refused = refusal(&format!("reward = {{ {reward} }}\n"));
        assert!(refused.contains(said), "{reward}: {refused}");
    }
}

#[test]
fn a_critic_starts_from_the_only_reward_model() {
    let critic = |sources: &str| {
        refusal(&format!("ppo.advantage = 'gae'\nppo.value_init = 'reward_model'\n{sources}"))
    };
    let model = "[[reward.sources]]\nkind = 'model'\npath = 'rm'\n";
    let two = format!("{model}name = 'a'\n{model}");
    assert!(
        critic(&two).contains("\"policy\" where reward.sources has 2 of kind \"model\", not one")
    );
    assert!(
        critic(TWO).contains("\"policy\" where reward.sources has 0 of kind \"model\", not one")
    );
    let one = "ppo.advantage = 'gae'\nppo.value_init = 'reward_model'\n";
    read(&format!("{one}{model}{}", TWO)).unwrap();
}

#[test]
fn a_run_goes_on_under_other_deadlines_and_the_same_weights() {
    let sources = |more: &str| {
        let program =
            format!("[[reward.sources]]\nkind = 'program'\ncommand = ['judge']\n{more}\n");
        read(&format!("[[reward.sources]]\nkind = 'none'\n{program}")).unwrap()
    };
    let began = to_toml(&sources(""));
    let change = |more: &str| {
        let change = forbidden_change("old.toml", began.clone(), &sources(more)).unwrap();
        change.map(|change| change.to_string())
    };
    assert_eq!(change("deadline_seconds = 5"), None);
    let said = change("weight = 2").unwrap();
    assert!(
        said.contains(": reward.sources[1].weight was 1.0 when the run began, not 2.0"),
        "{said}"
    );
}
