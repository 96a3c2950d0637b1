// Products of matrices, in f32. A row's result does not depend on the rows beside it.

#pragma once

#include <cstddef>

namespace rollforge::contract_double {

/// Returns the sum of the products of two vectors.
float dot(float const* a, float const* b, std::size_t length);

/// A linear layer: `weight` is row-major `[outputs, inputs]`, `bias` may be null.
struct Linear {
    float const* weight = nullptr;
    float const* bias = nullptr;
    std::size_t outputs = 0;
    std::size_t inputs = 0;
};

/// `y = x weight^T + bias`, or added to `y`; `x` is `[rows, inputs]`, `y` is `[rows, outputs]`.
void multiply(Linear const& layer, float const* x, std::size_t rows, bool add, float* y);

}  // namespace rollforge::contract_double
