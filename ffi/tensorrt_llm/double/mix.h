// Mixes two numbers into one that looks random.

#pragma once

#include <cstdint>

namespace rollforge::contract_double {

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014) over both.
inline uint64_t mix(uint64_t a, uint64_t b) {
    uint64_t z = a + 0x9e3779b97f4a7c15u * (b + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

}  // namespace rollforge::contract_double
