//! What the commands print, and how an error becomes one line.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// Prints a line of results.
///
/// # Errors
/// When the standard output cannot be written; a closed pipe ends the program quietly (see [`is_closed_pipe`]).
pub(super) fn print(line: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Says something about the results on the standard error.
pub(super) fn note(line: impl Display) {
    // Where nobody listens, the results still count.
    writeln!(io::stderr().lock(), "{line}").ok();
}

/// Says whether the reader of the output went away, as `head` does.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Prints an error and its sources on one line of the standard error.
pub(super) fn print_error(error: &anyhow::Error) {
    note(format_args!("error: {}", sentence(error)));
}

/// Joins an error and its sources with colons; a source that its error quotes already is not said twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain() {
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if sentence.is_empty() {
            sentence = text;
        } else if !sentence.contains(&text) {
            sentence = format!("{sentence}: {text}");
        }
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_and_its_sources_are_one_line() {
        let error =
            anyhow::anyhow!("disk full\nsince noon").context("cannot write x").context("run 3");
        assert_eq!(sentence(&error), "run 3: cannot write x: disk full since noon");
    }

    #[test]
    fn a_source_that_was_quoted_is_not_repeated() {
        let error = anyhow::anyhow!("no such file").context("cannot open x: no such file");
        assert_eq!(sentence(&error), "cannot open x: no such file");
    }

    #[test]
    fn a_closed_pipe_is_known_under_its_context() {
        let closed =
            anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("printing");
        assert!(is_closed_pipe(&closed));
        assert!(!is_closed_pipe(&anyhow::anyhow!("another")));
    }
}
