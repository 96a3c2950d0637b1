// A tensor of an engine: its name, number format and bytes.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace rollforge::contract_double {

/// Weights of one name, as TensorRT would hold them: little-endian, row-major.
struct Tensor {
    std::string name;
    /// RF_F32, RF_F16 or RF_BF16.
    int32_t dtype = 0;
    /// In elements.
    std::size_t count = 0;
    std::vector<uint8_t> bytes;
};

/// Returns the size of one element in bytes; 0 for a number format that is none of the contract's.
std::size_t element_size(int32_t dtype);

/// Returns the name of a number format in the plan, such as "bf16".
char const* dtype_name(int32_t dtype);

/// Writes the tensor's numbers as f32. Exact: f16 and bf16 are subsets of f32.
void to_f32(Tensor const& tensor, std::vector<float>& out);

}  // namespace rollforge::contract_double
