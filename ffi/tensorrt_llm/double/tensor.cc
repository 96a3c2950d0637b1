#include "tensor.h"

#include "../contract.h"

#include <cmath>
#include <cstring>

namespace rollforge::contract_double {
namespace {

float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

float from_bf16(uint16_t bits) { return from_bits(static_cast<uint32_t>(bits) << 16); }

float from_f16(uint16_t bits) {
    uint32_t const sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    uint32_t const exponent = (bits >> 10) & 0x1fu;
    uint32_t const fraction = bits & 0x3ffu;
    if (exponent == 0) {
        float const magnitude = std::ldexp(static_cast<float>(fraction), -24);
        return sign != 0 ? -magnitude : magnitude;
    }
    // Infinities and NaNs keep the largest exponent; the bias grows from 15 to 127.
    uint32_t const wide = exponent == 0x1f ? 0xffu : exponent + 112;
    return from_bits(sign | (wide << 23) | (fraction << 13));
}

template <typename Convert>
void convert_halves(Tensor const& tensor, std::vector<float>& out, Convert convert) {
    for (std::size_t i = 0; i < tensor.count; ++i) {
        uint16_t bits;
        std::memcpy(&bits, tensor.bytes.data() + 2 * i, sizeof bits);
        out[i] = convert(bits);
    }
}

}  // namespace

std::size_t element_size(int32_t dtype) {
    switch (dtype) {
        case RF_F32: return 4;
        case RF_F16:
        case RF_BF16: return 2;
        default: return 0;
    }
}

char const* dtype_name(int32_t dtype) {
    switch (dtype) {
        case RF_F32: return "f32";
        case RF_F16: return "f16";
        case RF_BF16: return "bf16";
        default: return "unknown";
    }
}

void to_f32(Tensor const& tensor, std::vector<float>& out) {
    out.resize(tensor.count);
    switch (tensor.dtype) {
        case RF_F16: convert_halves(tensor, out, from_f16); break;
        case RF_BF16: convert_halves(tensor, out, from_bf16); break;
        default:
            if (tensor.count > 0) std::memcpy(out.data(), tensor.bytes.data(), 4 * tensor.count);
    }
}

}  // namespace rollforge::contract_double
