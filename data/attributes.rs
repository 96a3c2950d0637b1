//! Attributes in a prompt: what SteerLM's policies are told, in training and afterwards (Dong et al., 2023).

use serde_json::{Map, Value};

use super::{ATTRIBUTES, row::Content};

/// What an answer is to be like: `helpfulness:4,toxicity:0`.
///
/// The line stands before the text of a prompt, or of a conversation's last turn of the user, with a line break after
/// it. That is so in the rows of [`Form::SteerLm`](super::Form::SteerLm) and wherever a prompt is conditioned.
#[derive(Clone, Debug, PartialEq)]
pub struct Attributes(Vec<(String, f64)>);

impl Attributes {
    /// Puts attributes into their order: the usual ones as in [`ATTRIBUTES`], others after them as they come.
    ///
    /// # Errors
    /// When there is none, one comes twice, or a name could not be told from the rest of the line.
    pub fn new(given: impl IntoIterator<Item = (String, f64)>) -> Result<Self, String> {
        let mut all: Vec<(String, f64)> = given.into_iter().collect();
        if all.is_empty() {
            return Err("has no rating".into());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        for (place, (name, _)) in all.iter().enumerate() {
            if name.is_empty() || !name.chars().all(plain) {
                return Err(format!("attribute {name:?} must be of letters, digits, _ and -"));
            }
            if all[..place].iter().any(|(earlier, _)| earlier == name) {
                return Err(format!("attribute {name:?} comes twice"));
            }
        }
        let place = |name: &String| ATTRIBUTES.iter().position(|usual| usual == name);
        all.sort_by_key(|(name, _)| place(name).unwrap_or(ATTRIBUTES.len()));
        Ok(Self(all))
    }

    /// Takes the ratings of an example.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn of_ratings(ratings: &Map<String, Value>) -> Result<Self, String> {
        let number = |(name, value): (&String, &Value)| Some((name.clone(), value.as_f64()?));
        Self::new(ratings.iter().filter_map(number))
    }

    /// Reads a line such as [`Attributes::line`] returns, and NeMo-Aligner's labels are.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let one = |part: &str| {
            let (name, number) = part.split_once(':')?;
            let number = number.trim().parse().ok().filter(|number: &f64| number.is_finite())?;
            Some((name.trim().to_owned(), number))
        };
        let all: Option<Vec<_>> = line.split(',').map(one).collect();
        Self::new(all.ok_or("label must be as in helpfulness:4,toxicity:0")?)
    }

    /// Returns them as a policy reads them, without a line break.
    pub fn line(&self) -> String {
        // 4 and 4.0 are the same, as are 0 and -0.
        let one = |(name, value): &(String, f64)| format!("{name}:{}", value + 0.0);
        self.0.iter().map(one).collect::<Vec<_>>().join(",")
    }

    /// Puts the line before a prompt's text.
    pub fn before(&self, text: &str) -> String {
        format!("{}\n{text}", self.line())
    }

    /// Puts the line where it belongs in a prompt.
    ///
    /// # Errors
    /// When a conversation has no turn of the user, or one that is not text.
    pub(super) fn within(&self, prompt: Content) -> Result<Content, String> {
        let mut messages = match prompt {
            Content::Text(text) => return Ok(Content::Text(self.before(&text))),
            Content::Messages(messages) => messages,
        };
        let last = messages.iter_mut().rev().find(|message| message["role"] == "user");
        let last = last.ok_or("has no turn of the user to put attributes before")?;
        let text = last["content"].as_str().ok_or("the user's last turn must be text")?;
        last["content"] = self.before(text).into();
        Ok(Content::Messages(messages))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attributes(given: &[(&str, f64)]) -> Result<Attributes, String> {
        Attributes::new(given.iter().map(|&(name, value)| (name.to_owned(), value)))
    }

    #[test]
    fn the_line_has_the_usual_order_and_plain_numbers() {
        let given =
            [("verbosity", 2.5), ("fluency", 1.0), ("toxicity", -0.0), ("helpfulness", 4.0)];
        let line = attributes(&given).unwrap().line();
        assert_eq!(line, "toxicity:0,helpfulness:4,verbosity:2.5,fluency:1");
        assert_eq!(Attributes::parse(&line).unwrap().line(), line);
        assert!(Attributes::parse("helpfulness:high").is_err());
    }

    #[test]
    fn the_line_stands_before_the_last_thing_that_the_user_says() {
        let attributes = attributes(&[("helpfulness", 4.0)]).unwrap();
        let text = attributes.within(Content::Text("2 + 2?".into())).unwrap();
        assert_eq!(text, Content::Text("helpfulness:4\n2 + 2?".into()));
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let before =
            vec![turn("system", "s"), turn("user", "a"), turn("assistant", "b"), turn("user", "c")];
        let mut after = before.clone();
        after[3] = turn("user", "helpfulness:4\nc");
        assert_eq!(attributes.within(Content::Messages(before)), Ok(Content::Messages(after)));
        let refused = |messages| attributes.within(Content::Messages(messages)).unwrap_err();
        assert!(refused(vec![turn("system", "s")]).contains("no turn of the user"));
        let parts = json!({"role": "user", "content": [{"type": "image"}]});
        assert!(refused(vec![parts]).contains("must be text"));
    }

    #[test]
    fn names_that_could_not_be_read_again_are_refused() {
        assert_eq!(attributes(&[]).unwrap_err(), "has no rating");
        assert!(attributes(&[("a:b", 1.0)]).unwrap_err().contains("\"a:b\" must be of letters"));
        assert!(attributes(&[("a", 1.0), ("a", 2.0)]).unwrap_err().contains("comes twice"));
    }
}
