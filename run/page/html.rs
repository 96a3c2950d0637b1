//! The page: one template, one style, one script, for the report and live.

use serde::Serialize;

const PAGE: &str = include_str!("assets/page.html");
pub(super) const STYLE: &str = include_str!("assets/page.css");
pub(super) const SCRIPT: &str = concat!(
    include_str!("assets/base.js"),
    include_str!("assets/chart.js"),
    include_str!("assets/phases.js"),
    include_str!("assets/samples.js"),
    include_str!("assets/tables.js"),
    include_str!("assets/page.js"),
);

/// What the live page may do: its own style and script, and talk to where it came from.
pub(super) const LIVE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns the page that asks its server for the data.
pub(super) fn live() -> String {
    fill([
        ("policy", ""),
        ("style", r#"<link rel="stylesheet" href="page.css">"#),
        ("data", ""),
        ("script", r#"<script src="page.js"></script>"#),
    ])
}

/// Returns a page that holds everything it shows.
pub(super) fn report(snapshot: &impl Serialize) -> String {
    // No text in it can end the element: in JSON, `<` occurs in strings only.
    let data = serde_json::to_string(snapshot).expect("names are strings").replace('<', "\\u003c");
    // A hash of all there is: whoever wrote a part of it cannot have put it there.
    let nonce = blake3::hash(data.as_bytes()).to_hex();
    let policy = format!(
        r#"<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'none'">"#
    );
    fill([
        ("policy", &policy),
        ("style", &format!("<style nonce=\"{nonce}\">\n{STYLE}</style>")),
        ("data", &format!("<script type=\"application/json\" id=\"data\">{data}</script>")),
        ("script", &format!("<script nonce=\"{nonce}\">\n{SCRIPT}</script>")),
    ])
}

/// Puts parts where the template names them. In one pass: what is put in is not searched.
fn fill<const N: usize>(parts: [(&str, &str); N]) -> String {
    let mut page = String::new();
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("<!-- part: ") {
        let (name, after) = after.split_once(" -->\n").expect("page.html ends each part's name");
        let part = parts.iter().find(|(part, _)| *part == name).map_or("", |(_, text)| *text);
        page.push_str(before);
        if !part.is_empty() {
            page.push_str(part);
            page.push('\n');
        }
        rest = after;
    }
    page + rest
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_text_cannot_leave_the_data() {
        let hostile = "</script><script>alert(1)</script><!-- part: script -->\n";
        let page = report(&json!({ "completion": hostile }));
        let (_, data) = page.split_once(r#"id="data">"#).unwrap();
        let (data, _) = data.split_once("</script>").unwrap();
        let read: Value = serde_json::from_str(data).unwrap();
        assert_eq!(read["completion"], hostile);
        assert_eq!(page.matches("alert(1)").count(), 1);
        assert_eq!(page.matches("</script>").count(), 2);
    }

    #[test]
    fn every_part_is_filled_and_nothing_comes_from_elsewhere() {
        for page in [live(), report(&json!({}))] {
            assert!(!page.contains("part: "), "{page}");
            assert!(!page.contains("//cdn") && !page.contains("src=\"http"));
        }
        assert!(live().contains("page.js") && !live().contains("id=\"data\""));
    }
}
