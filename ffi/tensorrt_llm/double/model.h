// The transformer: RMSNorm, rotary grouped-query attention, SwiGLU. Computes in f32 from the weights as they are now.

#pragma once

#include "kv_cache.h"
#include "matrix.h"
#include "plan.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace rollforge::contract_double {

/// One token of a forward pass.
struct Row {
    int32_t token;
    std::size_t position;
    KvTable const* table;
    /// Whether its logits are wanted.
    bool wanted;
};

/// A transformer of the Llama family.
class Model {
public:
    /// Takes f32 copies of the weights.
    explicit Model(Plan const& plan);
    // `layers_` points into `values_`.
    Model(Model const&) = delete;
    Model& operator=(Model const&) = delete;

    /// Takes one tensor anew.
    void load(Tensor const& tensor);

    /// Computes the rows of many sequences together; keys and values go into the cache. `logits` becomes
    /// `[wanted rows, vocab_size]`: padding has none. A sequence's rows are in the order of their positions.
    void forward(std::vector<Row> const& rows, KvCache& cache, std::vector<float>& logits);

private:
    struct Layer {
        float const* input_norm = nullptr;
        Linear qkv;
        float const* q_norm = nullptr;
        float const* k_norm = nullptr;
        Linear dense;
        float const* post_norm = nullptr;
        /// gate_proj and up_proj; halves of one tensor where fused.
        Linear gate;
        Linear up;
        Linear proj;
    };

    float const* find(std::string const& name) const;
    Linear linear(std::string const& name, std::size_t outputs, std::size_t inputs) const;
    Layer make_layer(std::size_t index) const;
    void reach(std::size_t positions);
    void embed(std::vector<Row> const& rows);
    void attention(std::size_t index, std::vector<Row> const& rows, KvCache& cache);
    void rotate(Layer const& layer, std::vector<Row> const& rows);
    void attend(std::size_t layer, Row const& row, KvCache& cache, float const* q, float* out);
    void feed_forward(Layer const& layer, std::size_t rows);
    void head(std::vector<Row> const& rows, std::vector<float>& logits);

    Shape shape_;
    std::map<std::string, std::vector<float>> values_;
    std::vector<Layer> layers_;
    Linear head_;
    /// Cosines and sines of the positions seen so far, `head_dim / 2` each.
    std::vector<float> cos_;
    std::vector<float> sin_;
    // Buffers that live from step to step.
    std::vector<float> hidden_;
    std::vector<float> normed_;
    std::vector<float> qkv_;
    std::vector<float> attended_;
    std::vector<float> gate_;
    std::vector<float> up_;
    std::vector<float> scores_;
};

}  // namespace rollforge::contract_double
