//! The pages: links lead somewhere, the book has every page, and the options that are named exist.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use rollforge::config::{
    self, Config, DistillConfig, DpoConfig, EvalConfig, KtoConfig, PpoConfig, RegressionConfig,
    RewardModelConfig, SftConfig, SpinConfig, SteerLm2Config,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page in these folders, those of the root included.
fn pages(folders: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && folder != root() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// Leaves out what stands between fences.
fn prose(page: &str) -> String {
    let mut fenced = false;
    let keep = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    };
    page.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

/// The targets of a page's links, `[words](target)`.
fn links(page: &str) -> Vec<String> {
    let after = |part: &str| part.split(')').next().map(str::to_owned);
    prose(page).split("](").skip(1).filter_map(after).collect()
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Takes `..` out of a path without asking the disk.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

/// Says what is wrong with a link, if anything.
fn broken(page: &Path, text: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(f, a)| (f, Some(a)));
    let target = match file {
        "" => page.to_path_buf(),
        file => plain(&page.parent().unwrap().join(file)),
    };
    let said = |what: &str| Some(format!("{}: {link}: {what}", page.display()));
    let docs = root().join("docs");
    if !target.exists() {
        return said("there is no such file");
    }
    if page.starts_with(&docs) && !target.starts_with(&docs) {
        return said("leads out of the book");
    }
    let there = |anchor: &str| {
        let target =
            if file.is_empty() { text.into() } else { fs::read_to_string(&target).unwrap() };
        anchors(&target).contains(anchor)
    };
    match anchor {
        Some(anchor) if !there(anchor) => said("there is no such heading"),
        _ => None,
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for page in pages(&[".", "docs", "examples", "benches", "third_party"]) {
        let text = fs::read_to_string(&page).unwrap();
        wrong.extend(links(&text).iter().filter_map(|link| broken(&page, &text, link)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn links_that_lead_nowhere_are_found() {
    let page = root().join("docs/data.md");
    let text =
        "# One thing\n[a](algorithms.md#advantages) `[data](x)`\n```\n[b](nowhere.md)\n```\n";
    assert_eq!(links(text), ["algorithms.md#advantages", "x"]);
    let wrong = |link: &str| broken(&page, text, link);
    assert_eq!(wrong("algorithms.md#advantages"), None);
    assert_eq!(wrong("#one-thing"), None);
    assert_eq!(wrong("https://example.org/x"), None);
    assert!(wrong("#another").unwrap().ends_with("no such heading"));
    assert!(wrong("nowhere.md").unwrap().ends_with("no such file"));
    assert!(wrong("../README.md").unwrap().ends_with("out of the book"));
}

#[test]
fn the_book_has_every_page() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let named: BTreeSet<PathBuf> = links(&summary).iter().map(|link| docs.join(link)).collect();
    let mut there: BTreeSet<PathBuf> = pages(&["docs"]).into_iter().collect();
    there.remove(&docs.join("SUMMARY.md"));
    assert_eq!(named, there);
}

/// The least that a run needs; PPO needs a reward besides, and each kind has keys of its own.
const RUN: &str = "output_dir = 'o'\nmodel.path = 'm'\ndata.train = 'd.jsonl'\n";
const REWARDS: [&str; 2] = [
    "reward = { kind = 'model', path = 'r' }\n",
    "reward = { kind = 'exact_match', column = 'c' }\n",
];
const EVAL: &str = "model.path = 'm'\ndata.eval = 'd.jsonl'\neval.measure = 'accuracy'\n";

/// Says whether a command knows a key: whatever it is set to, it is not an unknown one.
fn knows<T: Config>(key: &str, least: &str) -> bool {
    let assignment = format!("{key}=[[[]]]");
    match config::parse::<T>("x.toml", least.into(), Path::new("/"), &[assignment]) {
        Ok(_) => true,
        Err(error) => {
            let said = error.to_string();
            !key.split('.').any(|part| said.contains(&format!("unknown key {part:?}")))
        }
    }
}

fn is_known(key: &str) -> bool {
    knows::<SftConfig>(key, RUN)
        || knows::<RewardModelConfig>(key, RUN)
        || knows::<RegressionConfig>(key, RUN)
        || knows::<DpoConfig>(key, RUN)
        || knows::<KtoConfig>(key, RUN)
        || knows::<SpinConfig>(key, RUN)
        || knows::<SteerLm2Config>(key, RUN)
        || knows::<DistillConfig>(key, RUN)
        || REWARDS.iter().any(|reward| {
            knows::<PpoConfig>(key, &format!("{RUN}{reward}"))
                || knows::<EvalConfig>(key, &format!("{EVAL}{reward}"))
        })
}

/// The words in back quotes that look like keys of ours: the name of a section, a dot, and more names.
fn keys(page: &str) -> BTreeSet<String> {
    const SECTIONS: [&str; 25] = [
        "model",
        "data",
        "sft",
        "reward_model",
        "regression",
        "dpo",
        "kto",
        "spin",
        "steerlm2",
        "distill",
        "ppo",
        "reward",
        "sampling",
        "queue",
        "mismatch",
        "engine",
        "optimizer",
        "lora",
        "ema",
        "schedule",
        "checkpoint",
        "log",
        "memory",
        "stop",
        "eval",
    ];
    let text = prose(page);
    let quoted = text.split('`').skip(1).step_by(2);
    let key = |word: &str| {
        let word = word.split([' ', '=']).next()?;
        let (section, rest) = word.split_once('.')?;
        let plain = rest.chars().all(|c| c.is_ascii_lowercase() || "_.".contains(c));
        (SECTIONS.contains(&section) && plain && !rest.is_empty()).then(|| word.to_owned())
    };
    quoted.filter_map(key).collect()
}

/// Of each row of the tables of `coming_from.md`, the middle: what an option is called here.
fn our_column(page: &str) -> String {
    let middle = |line: &str| line.split(" | ").nth(1).map(str::to_owned);
    page.lines()
        .filter(|line| line.starts_with("| "))
        .filter_map(middle)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn every_option_that_a_page_names_exists() {
    let docs = root().join("docs");
    let page = |name: &str| fs::read_to_string(docs.join(name)).unwrap();
    let coming = page("coming_from.md");
    let mut named = keys(&our_column(&coming));
    assert!(named.len() > 60, "{named:?}");
    let (intro, _) = coming.split_once("## NeMo-Aligner").unwrap();
    named.extend(keys(intro));
    named.extend(
        [
            "algorithms.md",
            "preference.md",
            "kto.md",
            "regression.md",
            "spin.md",
            "steerlm.md",
            "distill.md",
            "evaluation.md",
            "lora.md",
        ]
        .iter()
        .flat_map(|name| keys(&page(name))),
    );
    for path in pages(&["docs/algorithms"]) {
        named.extend(keys(&fs::read_to_string(path).unwrap()));
    }
    let unknown: Vec<_> = named.iter().filter(|key| !is_known(key)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn keys_that_do_not_exist_are_found() {
    assert!(is_known("ppo.clip_range") && is_known("reward.column") && is_known("reward.path"));
    assert!(is_known("ppo.correction.high") && is_known("seed"));
    assert!(!is_known("ppo.clip_rang") && !is_known("reward.colum") && !is_known("pp.clip_range"));
    assert!(
        !is_known("ppo.correction.hig") && !is_known("eval.mesure") && is_known("eval.measure")
    );
    let found = keys("`ppo.epochs` and `data.over_long = \"drop\"`, `data.jsonl`? `x.y` ppo.gamma");
    assert_eq!(found.iter().collect::<Vec<_>>(), ["data.jsonl", "data.over_long", "ppo.epochs"]);
}
