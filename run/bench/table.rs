//! Reports as a page of tables in Markdown.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{Ratio, Report, Row};

/// Reads every report (`*.json`) of a folder and returns them as tables, in the order of their names.
///
/// # Errors
/// Names the folder or the file that is no report.
pub fn table(folder: &Path) -> Result<String> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    ensure!(!files.is_empty(), "{}: there is no report (*.json)", folder.display());
    files.sort();
    let sections =
        files.iter().map(|path| Ok(section(&read(path)?))).collect::<Result<Vec<_>>>()?;
    Ok(sections.join("\n"))
}

fn read(path: &Path) -> Result<Report> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{}: no report", path.display()))
}

fn section(report: &Report) -> String {
    let mut text = format!("## {}\n\n", title(report));
    // A string has no place to fail to write to.
    let mut line = |line: String| writeln!(text, "{line}").unwrap_or_default();
    line(format!("`rollforge {}`\n", report.command.join(" ")));
    line(format!("{}.\n", report.circumstances().join(". ")));
    line(
        "| what | median | lowest to highest | limit | share | peers: median, times better |"
            .into(),
    );
    line("|---|---:|---:|---:|---:|---|".into());
    for row in &report.rows {
        line(row_line(row, report));
    }
    let findings = report.findings();
    if !findings.is_empty() {
        line(String::new());
    }
    for finding in findings {
        line(format!("- {finding}"));
    }
    text
}

fn title(report: &Report) -> String {
    let settings = report.settings.iter().filter(|(_, value)| !value.is_null());
    let settings = settings.map(|(name, value)| match value.as_str() {
        Some(text) => format!("{name} {text}"),
        None => format!("{name} {value}"),
    });
    let settings: Vec<_> = settings.collect();
    format!("{}: {}", report.bench, settings.join(", "))
}

fn row_line(row: &Row, report: &Report) -> String {
    let (low, high) = row.values.spread();
    let limit = row.limit.map(number).unwrap_or_default();
    let share = row.share().map(|share| format!("{:.0}%", 100.0 * share)).unwrap_or_default();
    let peers = report.ratios_of(row).map(|ratio: &Ratio| {
        format!("{} {}, **{:.2}x**", ratio.name(), number(ratio.median), ratio.times_better)
    });
    format!(
        "| `{}` | {} | {} to {} | {limit} | {share} | {} |",
        row.name,
        number(row.values.median()),
        number(low),
        number(high),
        peers.collect::<Vec<_>>().join("; ")
    )
}

/// Returns a number with about four digits.
pub fn number(value: f64) -> String {
    let digits =
        if value == 0.0 { 0 } else { (3.0 - value.abs().log10().floor()).max(0.0) as usize };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::bench::report::tests::example;

    #[test]
    fn a_folder_of_reports_becomes_one_page() {
        let folder = tempfile::tempdir().unwrap();
        assert!(table(folder.path()).unwrap_err().to_string().contains("there is no report"));
        let text = serde_json::to_string(&example()).unwrap();
        fs::write(folder.path().join("b.json"), text.replace("engine", "train")).unwrap();
        fs::write(folder.path().join("a.json"), text).unwrap();
        let page = table(folder.path()).unwrap();
        assert!(page.starts_with("## engine: ") && page.contains("\n## train: "), "{page}");
        let row = "| `decode_b1_tokens_per_s` | 100.0 | 90.00 to 110.0 | 200.0 | 50% | hf 25.00, **4.00x** |";
        assert!(page.contains(row), "{page}");
        assert!(page.contains("hf, static 400.0, **2.50x**"), "{page}");
        assert!(page.contains("- a note") && page.contains("- hf agrees: 8 of 8"), "{page}");
        assert!(page.contains("- hf alone: compile_s 70.00 s"), "{page}");
        fs::write(folder.path().join("c.json"), "{}").unwrap();
        let error = format!("{:#}", table(folder.path()).unwrap_err());
        assert!(error.contains("c.json: no report"), "{error}");
    }

    #[test]
    fn numbers_have_four_digits() {
        let shown = [0.0, 0.001_234_5, 1.0, 12.345, 12_345.6].map(number);
        assert_eq!(shown, ["0", "0.001234", "1.000", "12.35", "12346"]);
    }
}
