// What goes into the double's executor and what comes out. Field for field `rf_request` and `rf_response`.

#pragma once

#include "../contract.h"

#include <cstdint>
#include <string>
#include <vector>

namespace rollforge::contract_double {

/// How tokens are drawn.
struct Sampling {
    uint64_t seed = 0;
    float temperature = 1;
    int32_t top_k = 0;
    float top_p = 1;
    float min_p = 0;
    float repetition_penalty = 1;
    int32_t min_tokens = 0;
    int32_t end_id = -1;

    /// TensorRT-LLM's rule: greedy also where neither top-k nor top-p is set.
    bool greedy() const { return top_k == 1 || (top_k == 0 && top_p == 0); }
};

/// One prompt and how to answer it.
struct Request {
    std::vector<int32_t> prompt;
    int32_t max_tokens = 0;
    bool streaming = false;
    int32_t num_return_sequences = 1;
    bool return_log_probs = false;
    Sampling sampling;
    std::vector<std::vector<int32_t>> stop_words;
    uint64_t cache_salt = 0;
    /// 0 is unbounded.
    int64_t allotted_ms = 0;

    /// Fails with RF_INVALID_ARGUMENT for a field that no engine would take.
    void validate() const;
};

/// Something that happened to a request.
struct Response {
    uint64_t request_id = 0;
    int32_t sequence_index = 0;
    std::vector<int32_t> tokens;
    std::vector<float> log_probs;
    int32_t finish_reason = RF_NOT_FINISHED;
    bool is_sequence_final = false;
    bool is_final = false;
    /// Empty unless the request failed.
    std::string error;
};

}  // namespace rollforge::contract_double
