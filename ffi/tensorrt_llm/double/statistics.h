// An iteration's statistics in TensorRT-LLM's words.

#pragma once

#include "kv_cache.h"

#include <cstddef>
#include <cstdint>
#include <string>

namespace rollforge::contract_double {

/// What happened in one iteration of the executor.
struct Statistics {
    uint64_t iteration = 0;
    double latency_ms = 0;
    std::size_t new_active = 0;
    std::size_t active = 0;
    std::size_t queued = 0;
    std::size_t completed = 0;
    std::size_t max_active = 0;
    std::size_t max_tokens = 0;
    std::size_t context_requests = 0;
    std::size_t generation_requests = 0;
    std::size_t context_tokens = 0;
    std::size_t tokens_per_block = 0;
    KvStats kv;

    std::string json() const;
};

}  // namespace rollforge::contract_double
