#include "tensor_list.h"

namespace rollforge::contract_double {
namespace {

void add_linear(std::vector<Expected>& list, std::string const& name, std::size_t outputs, std::size_t inputs) {
    list.push_back({name + ".weight", outputs * inputs, 0, true});
    list.push_back({name + ".bias", outputs, 0, false});
}

void add_layer(std::vector<Expected>& list, Shape const& shape, std::size_t layer) {
    auto const name = [&](char const* part) { return layer_tensor(layer, part); };
    std::size_t const hidden = shape.hidden_size;
    list.push_back({name("input_layernorm.weight"), hidden, 0, true});
    add_linear(list, name("attention.qkv"), shape.q_size() + 2 * shape.kv_size(), hidden);
    add_linear(list, name("attention.dense"), hidden, shape.q_size());
    if (shape.qk_norm == 1) {
        list.push_back({name("attention.q_layernorm.weight"), shape.head_dim, 0, true});
        list.push_back({name("attention.k_layernorm.weight"), shape.head_dim, 0, true});
    }
    list.push_back({name("post_layernorm.weight"), hidden, 0, true});
    if (shape.fused_mlp == 1) {
        add_linear(list, name("mlp.fused_fc"), 2 * shape.intermediate_size, hidden);
    } else {
        add_linear(list, name("mlp.fc"), shape.intermediate_size, hidden);
        add_linear(list, name("mlp.gate"), shape.intermediate_size, hidden);
    }
    add_linear(list, name("mlp.proj"), hidden, shape.intermediate_size);
}

}  // namespace

std::string layer_tensor(std::size_t layer, std::string const& part) {
    return "transformer.layers." + std::to_string(layer) + "." + part;
}

std::vector<Expected> expected_tensors(Shape const& shape) {
    std::vector<Expected> list;
    list.push_back({rotary_name, shape.head_dim / 2, 0, true});
    std::size_t const padded = shape.vocab_padded * shape.hidden_size;
    list.push_back({embedding_name, shape.vocab_size * shape.hidden_size, padded, true});
    for (std::size_t layer = 0; layer < shape.num_layers; ++layer) add_layer(list, shape, layer);
    list.push_back({final_norm_name, shape.hidden_size, 0, true});
    list.push_back({head_name, padded, 0, false});
    return list;
}

}  // namespace rollforge::contract_double
