// Which tensors a transformer of some shape has, by TensorRT-LLM's names.

#pragma once

#include "plan.h"

namespace rollforge::contract_double {

/// A tensor that a plan may hold.
struct Expected {
    std::string name;
    /// In elements.
    std::size_t count;
    /// A second count that does as well: an embedding may be padded like the head. 0 for none.
    std::size_t padded;
    bool required;
};

/// Lists every tensor, in the order of computation.
std::vector<Expected> expected_tensors(Shape const& shape);

/// Returns the name of a layer's tensor, such as `transformer.layers.0.attention.qkv.weight`.
std::string layer_tensor(std::size_t layer, std::string const& part);

/// Rotary frequencies, one per pair of a head's dimensions (radians per position). A constant of the engine, not a
/// parameter: TensorRT-LLM's rotary tables are refittable names too.
constexpr char const* rotary_name = "rotary_inv_freq";
constexpr char const* embedding_name = "transformer.vocab_embedding.weight";
constexpr char const* final_norm_name = "transformer.ln_f.weight";
/// Absent where the embedding is the head.
constexpr char const* head_name = "lm_head.weight";

}  // namespace rollforge::contract_double
