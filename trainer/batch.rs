//! Sequences laid end to end, without padding.

/// Sequences packed for one forward pass, with the rows whose next token matters.
///
/// Everything per token that a loss sees (log-probs, values, advantages, ...) is a flat vector with one entry per
/// selected row, in the order of [`PackedBatch::selected`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// Token ids of all sequences, one after the other.
    pub tokens: Vec<u32>,
    /// Length of each sequence; they add up to `tokens.len()`.
    pub lengths: Vec<usize>,
    /// Indices into `tokens` of the rows that predict a token of interest: row `i` predicts `tokens[i + 1]`, which
    /// belongs to the same sequence. Ascending.
    pub selected: Vec<usize>,
}

impl PackedBatch {
    /// Appends a sequence; `mask[t]` says whether token `t` is of interest. The first token never is.
    ///
    /// # Panics
    /// If the sequence is empty or the mask has another length.
    pub fn push(&mut self, tokens: &[u32], mask: &[bool]) {
        assert!(!tokens.is_empty(), "a sequence has at least one token");
        assert_eq!(tokens.len(), mask.len(), "one mask entry per token");
        let start = self.tokens.len();
        self.selected.extend((1..tokens.len()).filter(|&t| mask[t]).map(|t| start + t - 1));
        self.tokens.extend_from_slice(tokens);
        self.lengths.push(tokens.len());
    }

    /// Returns each token's position within its sequence.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.lengths.iter().flat_map(|&length| 0..length)
    }

    /// Returns the token that each selected row predicts.
    pub fn targets(&self) -> impl Iterator<Item = u32> + '_ {
        self.selected.iter().map(|&row| self.tokens[row + 1])
    }

    /// Returns the row of each sequence's last token.
    pub fn last_rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.lengths.iter().scan(0, |end, &length| {
            *end += length;
            Some(*end - 1)
        })
    }
}
