// The double's engine file (`rank0.engine`): a text header, then raw little-endian weights.
//
//     rollforge-double-plan 1
//     vocab_size 16                     unpadded; token ids lie below it
//     vocab_padded 16                   rows of lm_head.weight
//     ...                               every field of `Shape`, once each
//     refittable 1                      optional: 0 refuses a refit
//     identity <word>                   optional: plans of one identity count their faults together
//     lacks <capability>                any number: a capability taken away, such as `lacks refit_in_place`
//     fault <point> <nth> <what>        any number: see faults.h
//     tensor <name> <f32|f16|bf16> <count> <offset>      every tensor, by TensorRT-LLM's name; offset in the data
//     data                              last line; the data starts at the next multiple of 64 in the file

#pragma once

#include "faults.h"
#include "tensor.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace rollforge::contract_double {

/// Sizes of the transformer and of the engine built from it.
struct Shape {
    std::size_t vocab_size = 0;
    std::size_t vocab_padded = 0;
    std::size_t hidden_size = 0;
    std::size_t intermediate_size = 0;
    std::size_t num_layers = 0;
    std::size_t num_heads = 0;
    std::size_t num_kv_heads = 0;
    std::size_t head_dim = 0;
    float rms_norm_eps = 0;
    /// 1: each head's q and k are normalised.
    std::size_t qk_norm = 0;
    /// 1: mlp.fused_fc holds [up; gate] instead of mlp.fc (gate) and mlp.gate (up).
    std::size_t fused_mlp = 0;
    std::size_t max_batch_size = 0;
    std::size_t max_num_tokens = 0;
    std::size_t max_seq_len = 0;
    std::size_t tokens_per_block = 0;
    std::size_t kv_blocks = 0;
    /// Each token sees itself and the `sliding_window - 1` before it; 0 sees all.
    std::size_t sliding_window = 0;

    std::size_t q_size() const { return num_heads * head_dim; }
    std::size_t kv_size() const { return num_kv_heads * head_dim; }
};

/// An engine file in memory.
class Plan {
public:
    /// Reads an engine file; RF_INVALID_ARGUMENT, with file and line, for one that breaks a rule.
    static Plan read(std::string const& path);
    /// The same from memory. `name` is what messages call it.
    static Plan parse(uint8_t const* data, std::size_t size, std::string const& name);

    /// Writes the plan with the tensors as they are now.
    std::vector<uint8_t> serialize() const;

    Shape shape;
    std::vector<Tensor> tensors;
    std::vector<Fault> faults;
    /// Bits of `rf_description.capabilities` that this engine is without.
    uint64_t lacks = 0;
    bool refittable = true;
    std::string identity;
};

}  // namespace rollforge::contract_double
