// One of a request's sequences on its way through the batch.

#pragma once

#include "engine.h"
#include "kv_cache.h"
#include "request.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace rollforge::contract_double {

/// A request that the executor has taken in.
struct Job {
    uint64_t id = 0;
    Request request;
    std::optional<std::chrono::steady_clock::time_point> deadline;
    /// The script wants it to fail.
    bool doomed = false;
    /// Sequences that are in the batch, or were; and those that ended.
    int32_t started = 0;
    int32_t ended = 0;
    /// Until the request ends.
    std::unique_ptr<Engine::Pass> pass;

    bool is_started() const { return started == request.num_return_sequences; }

    /// Counts a sequence that ended; true when it was the last.
    bool end_one();
};

/// A sequence in the batch.
struct Sequence {
    std::shared_ptr<Job> job;
    int32_t index = 0;
    /// Prompt and completion so far.
    std::vector<int32_t> tokens;
    std::vector<float> log_probs;
    /// Positions whose keys and values are in the cache.
    std::size_t computed = 0;
    /// Longest completion there is room for.
    std::size_t max_tokens = 0;
    KvTable table;
    /// Rows in the step that is being computed.
    std::size_t scheduled = 0;
    /// Tokens that earlier responses held.
    std::size_t sent = 0;
    int32_t finish_reason = RF_NOT_FINISHED;

    std::size_t generated() const { return tokens.size() - job->request.prompt.size(); }
    bool is_prefill() const { return generated() == 0; }

    /// Takes a new token in and sees whether it is the last.
    void append(int32_t token, float log_prob);
    /// Says what has happened since the last response; or, when not streaming, in all.
    Response respond();

private:
    int32_t reason() const;
};

}  // namespace rollforge::contract_double
