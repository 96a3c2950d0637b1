#include "matrix.h"

#include <cstring>

namespace rollforge::contract_double {
namespace {

/// Four numbers that are computed with at once.
typedef float Lanes __attribute__((vector_size(16)));
constexpr std::size_t lanes = 4;

inline Lanes load(float const* from) {
    Lanes value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

/// The products of `Rows` vectors, `stride` apart, with one: each number of the latter is read once.
template <std::size_t Rows>
inline void dots(float const* x, std::size_t stride, float const* w, std::size_t length, float* out) {
    Lanes even[Rows] = {};
    Lanes odd[Rows] = {};
    std::size_t i = 0;
    for (; i + 2 * lanes <= length; i += 2 * lanes) {
        Lanes const first = load(w + i);
        Lanes const second = load(w + i + lanes);
        for (std::size_t row = 0; row < Rows; ++row) {
            even[row] += load(x + row * stride + i) * first;
            odd[row] += load(x + row * stride + i + lanes) * second;
        }
    }
    for (std::size_t row = 0; row < Rows; ++row) {
        Lanes const sum = even[row] + odd[row];
        float total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        for (std::size_t rest = i; rest < length; ++rest) total += x[row * stride + rest] * w[rest];
        out[row] = total;
    }
}

}  // namespace

float dot(float const* a, float const* b, std::size_t length) {
    float out;
    dots<1>(a, length, b, length, &out);
    return out;
}

void multiply(Linear const& layer, float const* x, std::size_t rows, bool add, float* y) {
    constexpr std::size_t tile = 4;
    for (std::size_t output = 0; output < layer.outputs; ++output) {
        float const* const w = layer.weight + output * layer.inputs;
        float const bias = layer.bias == nullptr ? 0.0f : layer.bias[output];
        auto const put = [&](std::size_t row, float value) {
            float& to = y[row * layer.outputs + output];
            to = add ? to + (value + bias) : value + bias;
        };
        std::size_t row = 0;
        for (; row + tile <= rows; row += tile) {
            float out[tile];
            dots<tile>(x + row * layer.inputs, layer.inputs, w, layer.inputs, out);
            for (std::size_t i = 0; i < tile; ++i) put(row + i, out[i]);
        }
        for (; row < rows; ++row) put(row, dot(x + row * layer.inputs, w, layer.inputs));
    }
}

}  // namespace rollforge::contract_double
