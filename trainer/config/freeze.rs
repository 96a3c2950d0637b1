//! Which parameters stay as they are.

/// Parameters that stay as they are, by name and by layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freeze {
    /// Names of parameters, or beginnings of names followed by `*`.
    pub names: Vec<String>,
    /// So many layers, counted from the first, and the token embeddings where there are any.
    pub layers: usize,
}

impl Freeze {
    /// Says whether a parameter stays as it is.
    pub fn keeps(&self, name: &str) -> bool {
        let of_layer = |layer: usize| name.starts_with(&format!("model.layers.{layer}."));
        let early = (0..self.layers).any(of_layer)
            || (self.layers > 0 && name == "model.embed_tokens.weight");
        early || self.names.iter().any(|pattern| Self::matches(pattern, name))
    }

    /// Says whether a pattern is a parameter's.
    pub fn matches(pattern: &str, name: &str) -> bool {
        match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        }
    }
}
