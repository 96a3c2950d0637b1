// Draws tokens: repetition penalty, min_tokens, temperature, top-k, top-p, min-p.

#pragma once

#include "request.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace rollforge::contract_double {

/// What a random number is for: equal keys give equal numbers, whatever was drawn before.
struct DrawKey {
    uint64_t seed;
    int32_t sequence;
    std::size_t position;
};

/// A drawn token.
struct Drawn {
    int32_t token;
    /// Of the penalised and temperature-scaled distribution, before top-k, top-p and min-p (nats).
    float log_prob;
};

/// Buffers kept between draws.
class Sampler {
public:
    /// Draws from `vocab` logits; `tokens` are prompt and completion so far. Nothing when a logit is not a number.
    std::optional<Drawn> draw(float const* logits, std::size_t vocab, Sampling const& sampling,
                              std::vector<int32_t> const& tokens, DrawKey const& key);

private:
    void penalise(std::vector<int32_t> const& tokens, float penalty);
    std::size_t choose(Sampling const& sampling, double uniform);

    std::vector<float> scores_;
    std::vector<double> weights_;
    std::vector<uint32_t> order_;
    std::vector<bool> seen_;
};

}  // namespace rollforge::contract_double
