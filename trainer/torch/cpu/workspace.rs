//! Buffers of a pass. They grow to what the largest pass needs, and stay.

/// What the backward pass needs of a layer, beside its input.
#[derive(Debug, Default)]
pub(in crate::trainer::torch) struct LayerTrace<E> {
    /// q, k and v as attention takes them: `[tokens, q + k + v]`.
    pub(super) qkv: Vec<E>,
    /// The same before q and k were normalised, where they are.
    pub(super) raw: Vec<E>,
    /// Attention's output at the layer's rows: `[rows, q]`.
    pub(super) mixed: Vec<E>,
    /// The logarithm of each soft-max's denominator: `[kv heads, tokens, group]` of one sequence after the other.
    pub(super) denominators: Vec<f32>,
    /// The residual stream between attention and the feed-forward part, `[rows, hidden]`.
    pub(super) middle: Vec<f32>,
    /// `[rows, up + gate]`
    pub(super) up_gate: Vec<E>,
}

/// Buffers that no pass needs longer than a layer; names with `d_` are derivatives of the loss.
#[derive(Debug, Default)]
pub(in crate::trainer::torch) struct Buffers<E> {
    pub(super) normed: Vec<E>,
    /// What attention or the feed-forward part adds to the stream, or the derivative of what went into them.
    pub(super) product: Vec<E>,
    /// `[rows, ffn]`
    pub(super) gated: Vec<E>,
    /// Attention's output, `[kv heads, tokens, group x head_dim]` of one sequence after the other.
    pub(super) heads: Vec<E>,
    /// Attention's output and its input, at the rows wanted of the last layer.
    pub(super) picked: Vec<E>,
    pub(super) picked_stream: Vec<f32>,
    /// `d_stream` as products take it.
    pub(super) d_narrow: Vec<E>,
    pub(super) d_gated: Vec<E>,
    pub(super) d_up_gate: Vec<E>,
    /// `[tokens, q]`
    pub(super) d_mixed: Vec<E>,
    /// Derivatives of the rows wanted of the last layer, with zeros in between.
    pub(super) d_scattered: Vec<E>,
    pub(super) d_scattered_stream: Vec<f32>,
    /// As attention's way back leaves them, `[kv heads, tokens, (group + k + v) x head_dim]`.
    pub(super) d_heads: Vec<f32>,
    pub(super) d_qkv: Vec<E>,
    /// Parts of the sums that make the gradient of a norm.
    pub(super) partial: Vec<f32>,
    /// The gradient of one weight.
    pub(super) weight: Vec<E>,
}

/// All buffers of the passes in one number format.
#[derive(Debug, Default)]
pub(in crate::trainer::torch) struct Workspace<E> {
    /// The residual stream `[tokens, hidden]` before each layer and after the last; only two where no gradient is wanted.
    pub(super) streams: Vec<Vec<f32>>,
    /// One for each layer; only one where no gradient is wanted, or where layers are computed again for theirs.
    pub(super) traces: Vec<LayerTrace<E>>,
    pub(super) buffers: Buffers<E>,
    /// The derivative of the loss with respect to the residual stream.
    pub(super) d_stream: Vec<f32>,
    /// The final norm's output, `[rows, hidden]`.
    pub(super) last: Vec<E>,
    pub(super) d_last: Vec<E>,
    /// `[rows, vocab]`, then the derivatives.
    pub(super) logits: Vec<E>,
}

/// Returns so much of a buffer, which grows where it is too small. What it holds is anything.
pub(super) fn room<T: Default + Clone>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        // Not `resize`: nothing of what is there need be copied.
        *buffer = vec![T::default(); len];
    }
    &mut buffer[..len]
}

/// As [`room`], filled with zeros.
pub(super) fn zeros<T: Default + Clone>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    let room = room(buffer, len);
    room.fill(T::default());
    room
}

/// Makes sure that there are so many.
pub(super) fn at_least<T: Default>(buffers: &mut Vec<T>, count: usize) {
    if buffers.len() < count {
        buffers.resize_with(count, T::default);
    }
}
