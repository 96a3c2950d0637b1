//! `NAME=NUMBER`, as options take it.

/// Reads a name and a finite number.
///
/// # Errors
/// Says what is expected.
pub(super) fn named_number(text: &str) -> Result<(String, f64), String> {
    let parts = text.split_once('=').map(|(name, number)| (name.trim(), number.trim().parse()));
    match parts {
        Some((name, Ok(number))) if !name.is_empty() && f64::is_finite(number) => {
            Ok((name.to_owned(), number))
        }
        _ => Err("must be a name and a finite number, such as helpfulness=4".into()),
    }
}
