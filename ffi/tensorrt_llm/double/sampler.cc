#include "sampler.h"

#include "mix.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace rollforge::contract_double {
namespace {

/// Returns a number in [0, 1) with 53 random bits. Sequence k of a request draws with the seed plus k, as TensorRT-LLM's do.
double uniform(DrawKey const& key) {
    uint64_t const bits = mix(mix(key.seed + static_cast<uint32_t>(key.sequence), 1), key.position);
    return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace

std::optional<Drawn> Sampler::draw(float const* logits, std::size_t vocab, Sampling const& sampling,
                                   std::vector<int32_t> const& tokens, DrawKey const& key) {
    auto const bad = [](float logit) { return std::isnan(logit) || logit == INFINITY; };
    if (std::any_of(logits, logits + vocab, bad)) return std::nullopt;
    scores_.assign(logits, logits + vocab);
    if (sampling.repetition_penalty != 1) penalise(tokens, sampling.repetition_penalty);
    bool const ends = sampling.end_id >= 0 && static_cast<std::size_t>(sampling.end_id) < vocab;
    if (ends && key.position < static_cast<std::size_t>(sampling.min_tokens)) scores_[sampling.end_id] = -INFINITY;
    for (float& score : scores_) score /= sampling.temperature;
    // The first of the largest: the lowest id among equals.
    auto const best = std::max_element(scores_.begin(), scores_.end());
    float const most = *best;
    if (most == -INFINITY) return std::nullopt;
    weights_.resize(vocab);
    double total = 0;
    for (std::size_t id = 0; id < vocab; ++id) {
        weights_[id] = std::exp(static_cast<double>(scores_[id] - most));
        total += weights_[id];
    }
    bool const greedy = sampling.greedy();
    std::size_t const token = greedy ? static_cast<std::size_t>(best - scores_.begin()) : choose(sampling, uniform(key));
    double const log_prob = static_cast<double>(scores_[token] - most) - std::log(total);
    return Drawn{static_cast<int32_t>(token), static_cast<float>(log_prob)};
}

/// Divides positive and multiplies negative logits of tokens already seen, each once (Keskar et al., 2019).
void Sampler::penalise(std::vector<int32_t> const& tokens, float penalty) {
    seen_.assign(scores_.size(), false);
    for (int32_t const token : tokens) {
        if (seen_[token]) continue;
        seen_[token] = true;
        float& score = scores_[token];
        score = score > 0 ? score / penalty : score * penalty;
    }
}

std::size_t Sampler::choose(Sampling const& sampling, double uniform) {
    order_.resize(weights_.size());
    std::iota(order_.begin(), order_.end(), 0u);
    bool const cut = sampling.top_k > 0 || (sampling.top_p > 0 && sampling.top_p < 1);
    if (cut) {
        auto const heavier = [&](uint32_t a, uint32_t b) { return weights_[a] > weights_[b]; };
        std::stable_sort(order_.begin(), order_.end(), heavier);
    }
    if (sampling.top_k > 0 && static_cast<std::size_t>(sampling.top_k) < order_.size()) order_.resize(sampling.top_k);
    auto const sum = [&] {
        return std::accumulate(order_.begin(), order_.end(), 0.0,
                               [&](double before, uint32_t id) { return before + weights_[id]; });
    };
    if (sampling.top_p > 0 && sampling.top_p < 1) {
        double left = sampling.top_p * sum();
        std::size_t kept = 0;
        while (kept < order_.size() && left > 0) left -= weights_[order_[kept++]];
        order_.resize(kept);
    }
    // The most likely token weighs exp(0) = 1.
    auto const light = [&](uint32_t id) { return weights_[id] < sampling.min_p; };
    if (sampling.min_p > 0) order_.erase(std::remove_if(order_.begin(), order_.end(), light), order_.end());
    double target = uniform * sum();
    std::size_t last = order_.front();
    for (uint32_t const id : order_) {
        if (weights_[id] == 0) continue;
        last = id;
        if (target < weights_[id]) break;
        target -= weights_[id];
    }
    return last;
}

}  // namespace rollforge::contract_double
