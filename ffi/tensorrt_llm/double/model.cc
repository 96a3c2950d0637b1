#include "model.h"

#include "tensor_list.h"

#include <algorithm>
#include <cmath>

namespace rollforge::contract_double {
namespace {

/// `out = x / sqrt(mean(x^2) + eps) * weight`
void rms_norm(float const* x, float const* weight, float eps, std::size_t size, float* out) {
    float const scale = 1.0f / std::sqrt(dot(x, x, size) / static_cast<float>(size) + eps);
    for (std::size_t i = 0; i < size; ++i) out[i] = x[i] * scale * weight[i];
}

float silu(float x) { return x / (1.0f + std::exp(-x)); }

}  // namespace

Model::Model(Plan const& plan) : shape_(plan.shape) {
    for (Tensor const& tensor : plan.tensors) to_f32(tensor, values_[tensor.name]);
    for (std::size_t layer = 0; layer < shape_.num_layers; ++layer) layers_.push_back(make_layer(layer));
    float const* const own = find(head_name);
    head_ = {own != nullptr ? own : find(embedding_name), nullptr, shape_.vocab_size, shape_.hidden_size};
}

void Model::load(Tensor const& tensor) {
    to_f32(tensor, values_.at(tensor.name));
    if (tensor.name == rotary_name) {
        cos_.clear();
        sin_.clear();
    }
}

float const* Model::find(std::string const& name) const {
    auto const found = values_.find(name);
    return found == values_.end() ? nullptr : found->second.data();
}

Linear Model::linear(std::string const& name, std::size_t outputs, std::size_t inputs) const {
    return {find(name + ".weight"), find(name + ".bias"), outputs, inputs};
}

Model::Layer Model::make_layer(std::size_t index) const {
    auto const name = [&](char const* part) { return layer_tensor(index, part); };
    std::size_t const hidden = shape_.hidden_size;
    std::size_t const inner = shape_.intermediate_size;
    Layer layer;
    layer.input_norm = find(name("input_layernorm.weight"));
    layer.qkv = linear(name("attention.qkv"), shape_.q_size() + 2 * shape_.kv_size(), hidden);
    layer.q_norm = find(name("attention.q_layernorm.weight"));
    layer.k_norm = find(name("attention.k_layernorm.weight"));
    layer.dense = linear(name("attention.dense"), hidden, shape_.q_size());
    layer.post_norm = find(name("post_layernorm.weight"));
    layer.proj = linear(name("mlp.proj"), hidden, inner);
    if (shape_.fused_mlp == 1) {
        layer.up = linear(name("mlp.fused_fc"), inner, hidden);
        layer.gate = layer.up;
        layer.gate.weight += inner * hidden;
        if (layer.gate.bias != nullptr) layer.gate.bias += inner;
    } else {
        layer.gate = linear(name("mlp.fc"), inner, hidden);
        layer.up = linear(name("mlp.gate"), inner, hidden);
    }
    return layer;
}

void Model::forward(std::vector<Row> const& rows, KvCache& cache, std::vector<float>& logits) {
    std::size_t positions = 0;
    for (Row const& row : rows) positions = std::max(positions, row.position + 1);
    reach(positions);
    embed(rows);
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
        attention(layer, rows, cache);
        feed_forward(layers_[layer], rows.size());
    }
    head(rows, logits);
}

void Model::reach(std::size_t positions) {
    std::vector<float> const& frequencies = values_.at(rotary_name);
    std::size_t const have = cos_.size() / frequencies.size();
    for (std::size_t position = have; position < positions; ++position) {
        for (float const frequency : frequencies) {
            float const angle = static_cast<float>(position) * frequency;
            cos_.push_back(std::cos(angle));
            sin_.push_back(std::sin(angle));
        }
    }
}

void Model::embed(std::vector<Row> const& rows) {
    std::size_t const size = shape_.hidden_size;
    float const* const table = find(embedding_name);
    hidden_.resize(rows.size() * size);
    normed_.resize(rows.size() * size);
    for (std::size_t row = 0; row < rows.size(); ++row)
        std::copy_n(table + static_cast<std::size_t>(rows[row].token) * size, size, &hidden_[row * size]);
}

void Model::attention(std::size_t index, std::vector<Row> const& rows, KvCache& cache) {
    Layer const& layer = layers_[index];
    std::size_t const hidden = shape_.hidden_size;
    std::size_t const q_size = shape_.q_size();
    std::size_t const kv_size = shape_.kv_size();
    std::size_t const width = q_size + 2 * kv_size;
    for (std::size_t row = 0; row < rows.size(); ++row)
        rms_norm(&hidden_[row * hidden], layer.input_norm, shape_.rms_norm_eps, hidden, &normed_[row * hidden]);
    qkv_.resize(rows.size() * width);
    multiply(layer.qkv, normed_.data(), rows.size(), false, qkv_.data());
    rotate(layer, rows);
    for (std::size_t row = 0; row < rows.size(); ++row) {
        float const* const kv = &qkv_[row * width + q_size];
        std::copy_n(kv, kv_size, cache.key(*rows[row].table, index, rows[row].position));
        std::copy_n(kv + kv_size, kv_size, cache.value(*rows[row].table, index, rows[row].position));
    }
    attended_.resize(rows.size() * q_size);
    for (std::size_t row = 0; row < rows.size(); ++row)
        attend(index, rows[row], cache, &qkv_[row * width], &attended_[row * q_size]);
    multiply(layer.dense, attended_.data(), rows.size(), true, hidden_.data());
}

void Model::rotate(Layer const& layer, std::vector<Row> const& rows) {
    std::size_t const half = shape_.head_dim / 2;
    std::size_t const rotated = shape_.num_heads + shape_.num_kv_heads;
    std::size_t const width = shape_.q_size() + 2 * shape_.kv_size();
    for (std::size_t row = 0; row < rows.size(); ++row) {
        float const* const cos = &cos_[rows[row].position * half];
        float const* const sin = &sin_[rows[row].position * half];
        for (std::size_t head = 0; head < rotated; ++head) {
            float* const x = &qkv_[row * width + head * 2 * half];
            float const* const norm = head < shape_.num_heads ? layer.q_norm : layer.k_norm;
            if (norm != nullptr) rms_norm(x, norm, shape_.rms_norm_eps, 2 * half, x);
            for (std::size_t i = 0; i < half; ++i) {
                float const a = x[i];
                float const b = x[i + half];
                x[i] = a * cos[i] - b * sin[i];
                x[i + half] = b * cos[i] + a * sin[i];
            }
        }
    }
}

void Model::attend(std::size_t layer, Row const& row, KvCache& cache, float const* q, float* out) {
    std::size_t const size = shape_.head_dim;
    std::size_t const end = row.position + 1;
    std::size_t const window = shape_.sliding_window;
    std::size_t const start = window != 0 && end > window ? end - window : 0;
    std::size_t const group = shape_.num_heads / shape_.num_kv_heads;
    float const scale = 1.0f / std::sqrt(static_cast<float>(size));
    scores_.resize(end);
    for (std::size_t head = 0; head < shape_.num_heads; ++head) {
        std::size_t const offset = head / group * size;
        float most = -INFINITY;
        for (std::size_t position = start; position < end; ++position) {
            scores_[position] = scale * dot(q + head * size, cache.key(*row.table, layer, position) + offset, size);
            most = std::max(most, scores_[position]);
        }
        float* const to = out + head * size;
        std::fill_n(to, size, 0.0f);
        float total = 0;
        for (std::size_t position = start; position < end; ++position) {
            float const weight = std::exp(scores_[position] - most);
            float const* const value = cache.value(*row.table, layer, position) + offset;
            total += weight;
            for (std::size_t i = 0; i < size; ++i) to[i] += weight * value[i];
        }
        for (std::size_t i = 0; i < size; ++i) to[i] /= total;
    }
}

void Model::feed_forward(Layer const& layer, std::size_t rows) {
    std::size_t const hidden = shape_.hidden_size;
    for (std::size_t row = 0; row < rows; ++row)
        rms_norm(&hidden_[row * hidden], layer.post_norm, shape_.rms_norm_eps, hidden, &normed_[row * hidden]);
    gate_.resize(rows * shape_.intermediate_size);
    up_.resize(gate_.size());
    multiply(layer.gate, normed_.data(), rows, false, gate_.data());
    multiply(layer.up, normed_.data(), rows, false, up_.data());
    for (std::size_t i = 0; i < gate_.size(); ++i) gate_[i] = silu(gate_[i]) * up_[i];
    multiply(layer.proj, gate_.data(), rows, true, hidden_.data());
}

void Model::head(std::vector<Row> const& rows, std::vector<float>& logits) {
    std::size_t const size = shape_.hidden_size;
    float const* const norm = find(final_norm_name);
    std::size_t wanted = 0;
    for (std::size_t row = 0; row < rows.size(); ++row) {
        if (!rows[row].wanted) continue;
        rms_norm(&hidden_[row * size], norm, shape_.rms_norm_eps, size, &normed_[wanted * size]);
        ++wanted;
    }
    logits.resize(wanted * shape_.vocab_size);
    multiply(head_, normed_.data(), wanted, false, logits.data());
}

}  // namespace rollforge::contract_double
